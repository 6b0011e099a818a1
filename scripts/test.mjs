/**
 * Runs every check of the repository and says how it went.
 *
 *     node scripts/test.mjs [suite…]          or          KIMBERLITE_SUITES=unit,lint npm test
 *
 * First the suites that look at the sources run, those of `LANES` beside each other, and then the tests, which say how
 * far they are; one that fails, hangs or is missing is a failure and does not stop the others. The last line is
 * `N passed, N failed, N skipped`: the tests of vitest, and one for each other suite. The exit code is 0 only when
 * nothing failed.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BIN, projectEnv, ROOT } from "./tree.mjs";

const MINUTE_MS = 60_000;
const SHOWN_LINES = 400;
const CODE_FOLDERS = ["src", "test", "bench", "scripts"].filter((folder) => existsSync(join(ROOT, folder)));

const SUITES = [
  { name: "types", limitMs: 8 * MINUTE_MS, commands: [["tsc", "-p", "."]] },
  {
    name: "lint",
    limitMs: 8 * MINUTE_MS,
    commands: [
      ["biome", "ci", "--colors=off", "."],
      ["oxlint", "--type-aware", "--deny-warnings", ...CODE_FOLDERS],
    ],
  },
  {
    name: "layers",
    limitMs: 2 * MINUTE_MS,
    commands: [["depcruise", "--config", ".dependency-cruiser.mjs", "src"]],
  },
  { name: "knip", limitMs: 2 * MINUTE_MS, commands: [["knip", "--no-progress"]] },
  {
    name: "native",
    limitMs: 10 * MINUTE_MS,
    commands: [
      ["node", "native/build.mjs", "--force"],
      ["node", "native/check.mjs"],
    ],
  },
  { name: "unit", limitMs: 30 * MINUTE_MS, count: countTests, shown: true, commands: [] },
  { name: "package", limitMs: 8 * MINUTE_MS, commands: [["node", "test/package/check.mjs"]] },
];

/** What runs beside each other: each lane keeps about one core busy. What is in none comes after, one by one. */
const LANES = [["native"], ["types", "lint", "layers", "knip", "package"]];

/** Groups of the programs that run now. */
const running = new Set();
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    for (const group of running) killGroup(group);
    process.exit(130);
  });
}

const chosen = chosenSuites();
const results = [];
await Promise.all(LANES.map((lane) => runInTurn(chosen.filter(({ name }) => lane.includes(name)))));
await runInTurn(chosen.filter(({ name }) => !LANES.flat().includes(name)));
report(SUITES.flatMap(({ name }) => results.filter((result) => result.name === name)));
process.exitCode = results.some((result) => result.failed > 0) ? 1 : 0;

function chosenSuites() {
  const named = process.argv.slice(2).join(",") || (process.env.KIMBERLITE_SUITES ?? "");
  const names = named.split(",").map((name) => name.trim());
  const wanted = names.filter((name) => name !== "");
  const unknown = wanted.filter((name) => !SUITES.some((suite) => suite.name === name));
  if (unknown.length > 0) {
    console.error(
      `no suite ${unknown.join(", ")}; there are: ${SUITES.map((suite) => suite.name).join(", ")}`,
    );
    console.log("0 passed, 1 failed, 0 skipped");
    process.exit(2);
  }
  return wanted.length === 0 ? SUITES : SUITES.filter((suite) => wanted.includes(suite.name));
}

async function runInTurn(suites) {
  for (const suite of suites) results.push(await runSuite(suite));
}

async function runSuite(suite) {
  const startedMs = performance.now();
  const counted = await (suite.count ?? countCommands)(suite);
  const seconds = (performance.now() - startedMs) / 1000;
  const result = { name: suite.name, seconds, skipped: [], ...counted };
  console.log(`${result.failed === 0 ? "ok    " : "FAILED"} ${suite.name.padEnd(8)} ${seconds.toFixed(1)} s`);
  if (result.failed > 0 && suite.shown !== true) console.log(lastLines(result.output));
  return result;
}

/** All commands of a suite, each even after an earlier one failed: together one pass or one failure. */
async function countCommands({ commands, limitMs }) {
  const outputs = [];
  for (const command of commands) {
    const { ok, output } = await runCommand(command, limitMs);
    if (!ok) outputs.push(`$ ${command.join(" ")}\n${output}`);
  }
  const failed = outputs.length > 0;
  return { passed: failed ? 0 : 1, failed: failed ? 1 : 0, output: outputs.join("\n") };
}

async function countTests({ limitMs, shown }) {
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-totals-"));
  try {
    const file = join(folder, "totals.json");
    const reporters = ["--reporter=default", "--reporter=./scripts/totals-reporter.mjs"];
    const command = ["vitest", "run", "--allowOnly=false", ...reporters];
    const { ok, output } = await runCommand(command, limitMs, { shown, env: { KIMBERLITE_TOTALS: file } });
    const totals = existsSync(file)
      ? JSON.parse(readFileSync(file, "utf8"))
      : { passed: 0, failed: 1, skipped: [] };
    if (!ok && totals.failed === 0) totals.failed = 1;
    return { ...totals, output };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Runs one program in a process group of its own, so that nothing that it started outlives its limit.
 *
 * @param shown whether what it prints is printed as it comes, too
 */
function runCommand([program, ...args], limitMs, { shown = false, env = {} } = {}) {
  return new Promise((resolve) => {
    const child = spawn(join(BIN, program), args, {
      cwd: ROOT,
      env: projectEnv(env),
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const chunks = [];
    const take = (chunk) => {
      chunks.push(chunk);
      if (shown) process.stdout.write(chunk);
    };
    const end = (ok, why) => {
      clearTimeout(timer);
      running.delete(child.pid);
      if (shown && why !== undefined) console.log(why);
      const output = Buffer.concat(chunks).toString("utf8").trimEnd();
      resolve({ ok, output: why === undefined ? output : `${output}\n${why}` });
    };
    if (child.pid !== undefined) running.add(child.pid);
    const timer = setTimeout(() => {
      take(Buffer.from(`\nstopped after ${limitMs / MINUTE_MS} minutes\n`));
      if (child.pid !== undefined) killGroup(child.pid);
    }, limitMs);
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.on("error", (error) => end(false, error.message));
    child.on("close", (code, signal) =>
      end(code === 0, code === 0 ? undefined : `exited with ${code ?? signal}`),
    );
  });
}

function killGroup(pid) {
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

function lastLines(text) {
  const lines = text.split("\n");
  if (lines.length <= SHOWN_LINES) return text;
  return [`… ${lines.length - SHOWN_LINES} lines before`, ...lines.slice(-SHOWN_LINES)].join("\n");
}

function report(results) {
  const skipped = results.flatMap((result) => result.skipped);
  if (skipped.length > 0) console.log("\nskipped:");
  for (const { test, reason } of skipped) console.log(`  ${test}: ${reason}`);
  console.log("\nsuite       time  passed  failed  skipped");
  for (const { name, seconds, passed, failed, skipped } of results) {
    const cells = [`${seconds.toFixed(1)} s`.padStart(8), ...[passed, failed, skipped.length].map(cell)];
    console.log(name.padEnd(8) + cells.join(""));
  }
  const sum = (pick) => results.reduce((total, result) => total + pick(result), 0);
  const counts = [sum((r) => r.passed), sum((r) => r.failed), skipped.length];
  console.log(`\n${counts[0]} passed, ${counts[1]} failed, ${counts[2]} skipped`);
}

function cell(count) {
  return String(count).padStart(8);
}
