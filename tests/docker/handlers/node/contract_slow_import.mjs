// A module that takes three seconds to be loaded.

import { setTimeout as pause } from "node:timers/promises";

export { handler } from "./contract_handler.mjs";

console.log("contract_slow_import is loaded");
await pause(3_000);
