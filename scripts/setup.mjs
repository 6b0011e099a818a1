/**
 * Makes a checkout ready to run: `node scripts/setup.mjs [--test]`.
 *
 * One line a step, nothing more unless a step fails; a step that has nothing to do says so and costs milliseconds.
 * Runs on Node 18 and later, and needs npm and a C compiler. Neither package.json nor package-lock.json is changed by it.
 *
 * With `--test` a failed build of the extension does not end the run, because a suite of its own repeats it and reports
 * it beside all others, and `dist` is left to the suite `package`: no other wants it. Without it every failure ends the run.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildDist, buildNative, distIsCurrent, nativeIsCurrent } from "./artifacts.mjs";
import { fingerprint, machinePath, PROJECT_NODE, projectEnv, ROOT, run, textOf } from "./tree.mjs";

const PLATFORMS = ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"];
const LOCK = join(ROOT, "package-lock.json");
const INSTALLED = join(ROOT, "node_modules", ".cache", "kimberlite", "installed.sha256");

const STEPS = [
  { name: "platform", work: checkPlatform },
  { name: "dependencies", work: installDependencies },
  { name: "native", work: buildNativeIfNeeded, hasSuite: true },
];

/** What only those who run it need. */
const RUN_STEPS = [{ name: "dist", work: buildDistIfNeeded }];

/** What only the tests need, one step a server or tool. */
const TEST_STEPS = [{ name: "softhsm2", work: installSoftHsm, hasSuite: true }];

const testing = process.argv.includes("--test");
for (const step of [...STEPS, ...(testing ? TEST_STEPS : RUN_STEPS)]) {
  const startedMs = Date.now();
  try {
    const said = step.work();
    console.log(`setup  ${step.name.padEnd(13)} ${said}${elapsed(startedMs)}`);
  } catch (error) {
    console.error(`setup  ${step.name.padEnd(13)} failed${elapsed(startedMs)}\n${error.message}`);
    if (testing && step.hasSuite) continue;
    if (testing) console.log("0 passed, 1 failed, 0 skipped");
    process.exit(1);
  }
}

function checkPlatform() {
  const platform = `${process.platform}-${process.arch}`;
  if (!PLATFORMS.includes(platform)) {
    throw new Error(`Kimberlite runs on ${PLATFORMS.join(", ")}; this machine is ${platform}.`);
  }
  const major = Number(process.versions.node.split(".")[0]);
  if (major < 18)
    throw new Error(`Setup needs Node.js 18 or later to begin with; this is ${process.version}.`);
  return platform;
}

/**
 * `npm install`, not `npm ci`: npm leaves the optional packages of other platforms out of the lock file, and then
 * refuses the lock file for lacking them. Versions are exact in package.json, and both files are compared afterwards.
 */
function installDependencies() {
  requireLockMatches();
  const wanted = dependenciesFingerprint();
  if (textOf(INSTALLED) === wanted && existsSync(PROJECT_NODE)) return "up to date";
  const before = fingerprint([join(ROOT, "package.json"), LOCK]);
  run("npm", ["install", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"], {
    env: projectEnv({ PATH: machinePath() }),
  });
  if (!existsSync(PROJECT_NODE)) {
    throw new Error(
      "npm did not install the pinned Node.js (package `node`): its install script must be allowed to run.",
    );
  }
  if (fingerprint([join(ROOT, "package.json"), LOCK]) !== before) {
    throw new Error(
      "npm changed package.json or package-lock.json; look at `git diff` and commit or undo it.",
    );
  }
  mkdirSync(dirname(INSTALLED), { recursive: true });
  writeFileSync(INSTALLED, wanted);
  return "installed";
}

function requireLockMatches() {
  const locked = JSON.parse(readFileSync(LOCK, "utf8")).packages[""];
  const wanted = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  for (const group of ["dependencies", "devDependencies", "optionalDependencies"]) {
    if (JSON.stringify(sorted(locked[group])) !== JSON.stringify(sorted(wanted[group]))) {
      throw new Error(`package-lock.json does not match the ${group} of package.json; run \`npm install\`.`);
    }
  }
}

function sorted(versions = {}) {
  return Object.entries(versions).sort(([a], [b]) => (a < b ? -1 : 1));
}

function dependenciesFingerprint() {
  const { allowScripts, overrides } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  return fingerprint(
    [LOCK],
    JSON.stringify({ allowScripts, overrides, platform: process.platform + process.arch }),
  );
}

function buildNativeIfNeeded() {
  if (nativeIsCurrent()) return "up to date";
  buildNative();
  return "compiled";
}

function buildDistIfNeeded() {
  if (distIsCurrent()) return "up to date";
  buildDist();
  return "compiled";
}

/** A token in software, which the PKCS#11 tests use as their HSM; a Debian package. */
function installSoftHsm() {
  const present = () =>
    (process.env.PATH ?? "").split(":").some((folder) => existsSync(join(folder, "softhsm2-util")));
  if (present()) return "installed";
  if (process.getuid?.() !== 0 || !existsSync("/usr/bin/apt-get")) {
    throw new Error(
      "SoftHSM2 is needed for the PKCS#11 tests: install it (Debian: apt-get install softhsm2).",
    );
  }
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  run("apt-get", ["update", "-qq"], { env });
  run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", "softhsm2"], { env });
  if (!present()) throw new Error("apt-get installed no softhsm2-util.");
  return "installed now";
}

function elapsed(startedMs) {
  const ms = Date.now() - startedMs;
  return ms < 500 ? "" : ` (${(ms / 1000).toFixed(1)} s)`;
}
