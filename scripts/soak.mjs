/**
 * The long runs of what `npm test` does in short, seeded slices: random SQL against a model, kills, power losses, disk
 * faults, every bit of a log, operators at once, and the guard's fuzzers. Takes hours; stop it at any time.
 *
 * usage: npm run soak -- [--fuzz-seconds N]   (KIMBERLITE_SEED repeats a seed)
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { "fuzz-seconds": { type: "string", default: "1800" } } });
const root = fileURLToPath(new URL("..", import.meta.url));
const env = { ...process.env, KIMBERLITE_SOAK: "1" };

const runs = [
  ["native/check.mjs", "--seconds", values["fuzz-seconds"]],
  [
    "node_modules/vitest/vitest.mjs",
    "run",
    "--testTimeout=14400000",
    "test/sim",
    "test/crash",
    "test/tamper",
    "test/keys/at-once.test.ts",
    "test/portability",
  ],
];
const failed = runs.filter((args) => {
  const { status } = spawnSync(process.execPath, args, { cwd: root, env, stdio: "inherit" });
  return status !== 0;
});
for (const [program] of failed) process.stderr.write(`failed: ${program}\n`);
process.exitCode = failed.length === 0 ? 0 : 1;
