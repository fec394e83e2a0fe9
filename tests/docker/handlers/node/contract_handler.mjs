// The conformance kit's handler in JavaScript: its event says what it does.

import { spawn } from "node:child_process";
import { appendFileSync } from "node:fs";
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";

const ENVIRONMENT = randomUUID();
let executions = 0;

class ContractError extends Error {
  name = "ContractError";
}

const ACTIONS = {
  big: (event) => "x".repeat(event.bytes - 2),
  count: async (event) => {
    const began = Date.now() / 1000;
    await pause((event.seconds ?? 0) * 1000);
    return { environment: ENVIRONMENT, execution: executions, began, ended: Date.now() / 1000 };
  },
  describe: async (event, context) => {
    const remaining = context.getRemainingTimeInMillis();
    await pause((event.seconds ?? 0) * 1000);
    return {
      aws_request_id: context.awsRequestId,
      function_name: context.functionName,
      function_version: context.functionVersion,
      invoked_function_arn: context.invokedFunctionArn,
      memory_limit_in_mb: context.memoryLimitInMB,
      remaining_ms: remaining,
      remaining_later_ms: context.getRemainingTimeInMillis(),
      custom: context.clientContext?.custom,
      variables: Object.fromEntries((event.names ?? []).map((name) => [name, process.env[name] ?? null])),
    };
  },
  eat: async (event) => {
    const eaten = [];
    for (let mb = 0; mb < event.mb; mb++) eaten.push(Buffer.alloc(1 << 20, 1));
    await pause((event.seconds ?? 5) * 1000);
    return eaten.length;
  },
  echo: (event) => event.value,
  end: (event) => {
    process.stdout.write("ending\n");
    process.exit(event.status ?? 0);
  },
  end_later: (event) => {
    setTimeout(() => process.exit(3), event.seconds * 1000);
    return executions;
  },
  fail: (event) => {
    throw new ContractError(`${event.message ?? "told to"} ${ENVIRONMENT} ${executions}`);
  },
  identify: async (event) => {
    const names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    const keys = names.map((name) => process.env[name] ?? null);
    await pause((event.seconds ?? 0) * 1000);
    return { keys, later: process.env.AWS_ACCESS_KEY_ID ?? null, region: process.env.AWS_REGION, trace: process.env._X_AMZN_TRACE_ID ?? null };
  },
  kill: async (event) => {
    process.kill(process.pid, event.signal ?? "SIGKILL");
    await pause(60_000);
  },
  looks_like_an_error: () => ({ errorMessage: "an answer", errorType: "Answer", requestId: "", stackTrace: [] }),
  say: async (event) => {
    const stream = process[event.stream ?? "stdout"];
    stream.write(Buffer.from(event.hex ?? "", "hex"));
    if (event.seconds) await pause(event.seconds * 1000);
    stream.write(event.text + (event.end ?? "\n")); // console.log puts the time and the request's id before it
    return event.text.length;
  },
  sleep: async (event) => {
    await pause(event.seconds * 1000);
    if ("after" in event) appendFileSync(event.after, `${process.pid}\n`);
    return event.value;
  },
  spawn: async (event) => {
    spawn("/bin/sh", ["-c", 'sleep "$0"; echo $$ >> "$1"', String(event.seconds), event.after], { stdio: "ignore" });
    await pause((event.seconds + 60) * 1000);
  },
  spin: () => {
    for (;;);
  },
  unserialisable: () => 1n,
};

export async function handler(event, context) {
  executions += 1;
  if ("mark" in event) appendFileSync(event.mark, `${process.pid}\n`);
  if ("print" in event) process.stdout.write(`${event.print}\n`);
  return ACTIONS[event.do](event, context);
}
