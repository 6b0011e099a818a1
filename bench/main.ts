/**
 * The benchmarks: `npm run bench -- [--quick] [--only NAMES] [--seconds N] [--no-postgres] [--build DIR]`.
 *
 * Prints tables and the targets, and writes the same as JSON to `bench/results/`. What cannot run is named with the
 * reason and the rest goes on. Exit code 0 whatever is measured, 1 if a benchmark failed, 2 for wrong arguments.
 */
import { measureColdOpen } from "./cold-open.ts";
import { compareAll } from "./compare.ts";
import { measureErasure } from "./erasure.ts";
import { WORKLOADS } from "./load.ts";
import { measureNetwork } from "./network.ts";
import { measureNoise } from "./noisy.ts";
import { measurePortability } from "./portability.ts";
import { PostgresServer } from "./postgres.ts";
import { measureRebuild } from "./rebuild.ts";
import { describe, machine, print, save } from "./report.ts";
import type { Results } from "./results.ts";
import { measureRewrap } from "./rewrap.ts";
import { measureRotation } from "./rotation.ts";
import { measureScale } from "./scale.ts";
import { inScratch, parseSetting, type Setting } from "./setting.ts";
import { measureTenancy } from "./tenancy.ts";
import { judge } from "./verdicts.ts";
import { measureVerify } from "./verify.ts";

const REBUILD_TARGET = 100_000;
const VERIFY_TARGET_MB = 200;

let setting: Setting;
try {
  setting = parseSetting(process.argv.slice(2));
} catch (error) {
  console.error((error as Error).message);
  process.exit(2);
}
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));

const host = machine();
const results: Results = { comparisons: [], figures: [], verdicts: [], skipped: [] };
console.log(describe(host));
const startedMs = performance.now();
const server = await startServer();
try {
  await part(WORKLOADS.filter(setting.chosen).join(", "), () => compareAll(setting, results, server, say));
  results.verdicts.push(...judge(results));
  if (setting.chosen("tenancy")) await part("tenancy", () => measureTenancy(setting, results));
  if (setting.chosen("scale")) await part("scale", () => measureScale(setting, results));
  if (setting.chosen("cold-open")) await part("cold-open", () => measureColdOpen(setting, results));
  if (setting.chosen("rebuild")) await part("rebuild", rebuilds);
  if (setting.chosen("verify")) await part("verify", verifications);
  if (setting.chosen("rotation")) await part("rotation", () => measureRotation(setting, results));
  if (setting.chosen("rewrap")) await part("rewrap", () => measureRewrap(setting, results));
  if (setting.chosen("portability")) await part("portability", () => measurePortability(setting, results));
  if (setting.chosen("erasure")) await part("erasure", () => measureErasure(setting, results));
  if (setting.chosen("network")) await part("network", () => measureNetwork(setting, results));
  if (setting.chosen("noisy")) await part("noisy", () => measureNoise(setting, results));
} finally {
  await server?.stop();
}
say("");
print(results);
const seconds = Math.round((performance.now() - startedMs) / 1_000);
const postgres = server === undefined ? undefined : { version: server.version, settings: server.settings };
console.log(
  `${seconds} s; written to ${save(results, { machine: host, seconds, quick: setting.quick, postgres })}`,
);
process.exit(results.skipped.some(({ reason }) => reason.startsWith("failed")) ? 1 : 0);

async function startServer(): Promise<PostgresServer | undefined> {
  if (!WORKLOADS.some(setting.chosen)) return undefined;
  if (!setting.postgres) return skip("left out by --no-postgres");
  try {
    return await PostgresServer.start();
  } catch (error) {
    return skip((error as Error).message);
  }
}

function skip(reason: string): undefined {
  results.skipped.push({ name: "PostgreSQL", reason });
}

async function part(name: string, work: () => Promise<void>): Promise<void> {
  say(name);
  try {
    await work();
  } catch (error) {
    results.skipped.push({ name, reason: `failed: ${(error as Error).stack}` });
  }
}

async function rebuilds(): Promise<void> {
  const changes = setting.quick ? 30_000 : 300_000;
  for (const rowsEach of [1, 100]) {
    const { changesPerSecond } = await inScratch((folder) =>
      measureRebuild({ ...setting, folder, changes, rowsEach }),
    );
    const name = `rebuild, transactions of ${rowsEach} ${rowsEach === 1 ? "row" : "rows"}`;
    results.figures.push({
      name,
      value: changesPerSecond,
      unit: "row changes/s",
      note: `${changes} changes`,
    });
    if (rowsEach > 1) continue;
    const met = changesPerSecond >= REBUILD_TARGET;
    const target = "rebuild ≥ 100,000 row changes/s (transactions of one row)";
    results.verdicts.push({ target, measured: Math.round(changesPerSecond).toLocaleString("en-US"), met });
  }
}

async function verifications(): Promise<void> {
  const megabytes = setting.quick ? 60 : 400;
  for (const recordsEach of [64, 1]) {
    await inScratch(async (folder) => {
      for (const withKeys of [false, true]) {
        const { megabytesPerSecond } = await measureVerify({
          ...setting,
          folder,
          megabytes,
          recordsEach,
          withKeys,
        });
        const what = `${withKeys ? "with keys" : "without keys"}, blocks of ${recordsEach} ${recordsEach === 1 ? "record" : "records"}`;
        results.figures.push({
          name: `verify ${what}`,
          value: megabytesPerSecond,
          unit: "MB/s",
          note: `${megabytes} MB`,
        });
        if (recordsEach === 1) continue;
        const measured = `${Math.round(megabytesPerSecond)} MB/s`;
        results.verdicts.push({
          target: `verify ≥ 200 MB/s (${what})`,
          measured,
          met: megabytesPerSecond >= VERIFY_TARGET_MB,
        });
      }
    });
  }
}

/** One line of progress, on the terminal alone. */
function say(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`);
}
