/**
 * What is built from the sources: `dist`, and the native extension.
 *
 * What each was built from is remembered by content, not by time, because a checkout of another commit sets times at
 * will. `dist` is compiled beside its place first: a failed build leaves the last good one, and a file that was deleted
 * in `src` does not live on in it.
 */
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { BIN, filesUnder, fingerprint, PROJECT_NODE, ROOT, run, textOf } from "./tree.mjs";

const DIST = join(ROOT, "dist");
const NEXT = join(ROOT, ".dist-next");
const PREBUILT = join(ROOT, "native", "prebuilt");
const CLI = join("cli", "main.js");

/** True when `dist` was compiled from exactly the sources that are here. */
export function distIsCurrent() {
  return existsSync(join(DIST, CLI)) && builtFrom("dist") === distSources();
}

/** Compiles `src`; throws with the compiler's words when it has an error. */
export function buildDist() {
  const sources = distSources();
  rmSync(NEXT, { recursive: true, force: true });
  try {
    run(join(BIN, "tsc"), ["-p", "tsconfig.build.json", "--outDir", NEXT]);
    if (existsSync(join(NEXT, CLI))) chmodSync(join(NEXT, CLI), 0o755);
    rmSync(DIST, { recursive: true, force: true });
    renameSync(NEXT, DIST);
  } finally {
    rmSync(NEXT, { recursive: true, force: true });
  }
  remember("dist", sources);
}

/** True when the extension was compiled on this machine from exactly the sources that are here. */
export function nativeIsCurrent() {
  return filesUnder(PREBUILT).length > 0 && builtFrom("native") === nativeSources();
}

/** Compiles the extension; throws with the compiler's words when that fails, even if an older binary is there. */
export function buildNative() {
  const sources = nativeSources();
  run(PROJECT_NODE, ["native/build.mjs", "--force"]);
  remember("native", sources);
}

function distSources() {
  const sources = filesUnder(join(ROOT, "src"), (name) => name.endsWith(".test.ts"));
  const settings = ["tsconfig.json", "tsconfig.build.json", "package-lock.json"];
  return fingerprint([...sources, ...settings.map((name) => join(ROOT, name))]);
}

function nativeSources() {
  const sources = filesUnder(join(ROOT, "native"), (name) => !/\.(c|h|mjs)$/.test(name));
  return fingerprint([...sources, join(ROOT, "package-lock.json")], process.platform + process.arch);
}

function builtFrom(artifact) {
  return textOf(stampOf(artifact));
}

function remember(artifact, sources) {
  mkdirSync(dirname(stampOf(artifact)), { recursive: true });
  writeFileSync(stampOf(artifact), sources);
}

function stampOf(artifact) {
  return join(ROOT, "node_modules", ".cache", "kimberlite", `${artifact}.sha256`);
}
