#!/usr/bin/env node
/**
 * The command `kimberlite`. Looks at the Node.js that runs it before anything native is loaded, because the SQLite
 * binding ends an older one with a crash instead of a message.
 */
const OLDEST_NODE = 22;
const RUNTIME_UNSUPPORTED_EXIT = 13;

if (Number.parseInt(process.versions.node, 10) < OLDEST_NODE) {
  process.stderr.write(
    `error: Kimberlite needs Node.js ${OLDEST_NODE} or later, and this is ${process.versions.node}: install a newer ` +
      "one (https://nodejs.org), or put it first on the PATH; in a checkout, `npm start` brings its own " +
      "(runtime_unsupported)\n",
  );
  process.exitCode = RUNTIME_UNSUPPORTED_EXIT;
} else {
  const { runCommand } = await import("./program.ts");
  process.exitCode = await runCommand(process.argv.slice(2));
}

export {};
