// What a handler can do, one function a behaviour, by the names of tests/parity; run in a container and outside.

import { execSync } from "node:child_process";
import { existsSync, fstatSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

let count = 0;

class OwnError extends Error {
  name = "OwnError";
}

const BEHAVIOURS = {
  // --- answers ---
  echo: (event) => event.value,
  nothing: () => undefined,
  a_promise: () => pause(1, "kept"),
  not_a_number: () => [NaN, Infinity, -Infinity],
  bytes_of_text: () => Buffer.from("no json"),
  a_set: () => new Set([1]),
  a_date: () => new Date(0),
  a_circle: () => {
    const circle = [];
    circle.push(circle);
    return circle;
  },
  a_lone_surrogate: () => "\ud800",
  a_large_integer: () => 2n ** 70n,
  a_large_answer: (event) => "x".repeat(event.size),
  length: (event) => event.text.length,
  looks_like_an_error: (_, context) => ({
    errorType: "ValueError", errorMessage: "no", requestId: context.awsRequestId, stackTrace: [],
  }),
  looks_like_a_timeout: () => "Task timed out after 1.00 seconds",

  // --- errors ---
  raises: () => {
    throw new Error("no such strike");
  },
  raises_without_text: () => {
    throw new OwnError();
  },
  raises_beyond_ascii: () => {
    throw new OwnError("zu kurz: Zoë €");
  },
  raises_from_a_cause: () => {
    throw new OwnError("outer", { cause: new Error("inner") });
  },
  raises_multi_line: () => {
    throw new OwnError("first\n  second\nthird");
  },
  throws_a_text: () => {
    throw "no error at all";
  },
  rejects: () => Promise.reject(new OwnError("later")),
  rejects_unheard: async () => {
    Promise.reject(new OwnError("unheard"));
    await pause(10_000);
  },

  // --- ends ---
  exits_with_0: () => process.exit(0),
  exits_with_3: () => process.exit(3),
  ends_with_255: () => process.exit(255),
  is_killed: () => dies("SIGKILL"),
  is_terminated: () => dies("SIGTERM"),
  hangs_up: () => dies("SIGHUP"),
  sleeps: (event) => pause(event.seconds * 1000, "slept"),

  // --- context ---
  request_id: (_, context) => context.awsRequestId,
  function: (_, context) => [context.functionName, context.functionVersion, context.invokedFunctionArn],
  memory: (_, context) => [context.memoryLimitInMB, typeof context.memoryLimitInMB],
  log_names: (_, context) => [context.logGroupName, context.logStreamName.length > 0],
  remaining: (event, context) => {
    const left = context.getRemainingTimeInMillis();
    return event.timeout * 1000 - 900 < left && left <= event.timeout * 1000;
  },
  identity: (_, context) => context.identity ?? null,
  client_context: (_, context) => context.clientContext,
  shown: (_, context) => Object.keys(context).sort(),

  // --- the environment ---
  variable: (event) => process.env[event.name] ?? null,
  counts: () => ++count,
  keeps_a_variable: () => {
    const before = process.env.KEPT ?? null;
    process.env.KEPT = "kept";
    return before;
  },
  keeps_a_file: () => {
    const path = `/tmp/htcgrid-parity-${process.pid}`;
    const existed = existsSync(path);
    writeFileSync(path, "");
    if (existed) rmSync(path);
    return existed;
  },
  where: () => [process.cwd(), import.meta.url],
  input_is_empty: () => fstatSync(0).size,
  timezone: () => [new Date(0).getHours(), Intl.DateTimeFormat().resolvedOptions().timeZone],
  runs_a_program: () => execSync("echo from the shell").toString(),

  // --- logs ---
  prints: () => {
    process.stdout.write("hello\nZoë €\nno newline");
    return null;
  },
  prints_errors: () => {
    process.stderr.write("to stderr\n");
    return null;
  },
  logs: () => {
    console.warn("careful");
    console.log("wrong %s", { a: 1 });
    return null;
  },
  writes_to_the_descriptor: () => writeSync(1, "by descriptor\n"),
  prints_json: () => {
    console.log(JSON.stringify({ level: "INFO", n: 1 }));
    return null;
  },
};

async function dies(signal) {
  process.kill(process.pid, signal);
  await pause(10_000);
}

export async function handler(event, context) {
  const behaviour = BEHAVIOURS[event?.do];
  return behaviour ? behaviour(event, context) : event;
}
