#!/usr/bin/env node
/**
 * The command `kimberlite`. Looks at the Node.js that runs it before anything native is loaded, because the SQLite
 * binding ends an older one with a crash instead of a message.
 *
 * `erase` runs in a process of its own, whose allocator overwrites what is freed: that is settled when a process starts.
 */
import { spawnSync } from "node:child_process";
import { OVERWRITING_ALLOCATOR, overwritesFreedMemory } from "../host/memory.ts";

const OLDEST_NODE = 22;
const RUNTIME_UNSUPPORTED_EXIT = 13;

if (Number.parseInt(process.versions.node, 10) < OLDEST_NODE) {
  process.stderr.write(
    `error: Kimberlite needs Node.js ${OLDEST_NODE} or later, and this is ${process.versions.node}: install a newer ` +
      "one (https://nodejs.org), or put it first on the PATH; in a checkout, `npm start` brings its own " +
      "(runtime_unsupported)\n",
  );
  process.exitCode = RUNTIME_UNSUPPORTED_EXIT;
} else if (process.platform === "linux" && process.argv.includes("erase") && !overwritesFreedMemory()) {
  const env = { ...process.env, [OVERWRITING_ALLOCATOR.name]: OVERWRITING_ALLOCATOR.value };
  const args = [...process.execArgv, ...process.argv.slice(1)];
  const { status } = spawnSync(process.execPath, args, { env, stdio: "inherit" });
  process.exitCode = status ?? 1;
} else {
  const { runCommand } = await import("./program.ts");
  process.exitCode = await runCommand(process.argv.slice(2));
}
