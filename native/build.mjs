/**
 * Builds the guard (the SQLite extension in this folder) for this platform. Runs at `npm install`, on any Node.
 *
 * Does nothing when a binary newer than its sources is there already, so a package with a prebuilt binary needs no
 * compiler. Without either it says so and succeeds: opening a database then fails with `runtime_unsupported`.
 * The binary is written beside its place and renamed, because a running process may have the old one mapped.
 * `--force` rebuilds.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const sources = [
  "guard.c",
  "authorizer.c",
  "watchdog.c",
  "rowcodec.c",
  "bounded.c",
  "like.c",
  "scrub.c",
  "shared.c",
].map((name) => join(here, name));
const inputs = [...sources, join(here, "guard.h"), join(here, "allowed.h"), fileURLToPath(import.meta.url)];
const extension = process.platform === "darwin" ? "dylib" : "so";

function platformName() {
  const musl = process.platform === "linux" && !process.report.getReport().header.glibcVersionRuntime;
  return `${musl ? "linuxmusl" : process.platform}-${process.arch}`;
}

/** The folder of the SQLite headers that belong to the very library which will load the guard. */
function headers() {
  const require = createRequire(join(here, "..", "package.json"));
  return join(dirname(require.resolve("better-sqlite3-multiple-ciphers/package.json")), "deps", "sqlite3");
}

function fresh(target) {
  if (!existsSync(target)) return false;
  const built = statSync(target).mtimeMs;
  return inputs.every((input) => !existsSync(input) || statSync(input).mtimeMs <= built);
}

function compile(target) {
  mkdirSync(dirname(target), { recursive: true });
  const unfinished = `${target}.${process.pid}`;
  const flags = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-D_DARWIN_C_SOURCE",
    "-O2",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
  ];
  const warnings = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wconversion",
    "-Wvla",
  ];
  const linker = process.platform === "darwin" ? [] : ["-Wl,-z,nodelete,-z,relro,-z,now"];
  const compiler = process.env.CC || "cc";
  const args = [
    ...flags,
    ...warnings,
    "-isystem",
    headers(),
    "-o",
    unfinished,
    ...sources,
    ...linker,
    "-lpthread",
  ];
  const result = spawnSync(compiler, args, { encoding: "utf8" });
  if (result.status === 0) renameSync(unfinished, target);
  else rmSync(unfinished, { force: true });
  return result.status === 0 ? undefined : (result.error?.message ?? result.stderr);
}

function main() {
  if (process.platform !== "linux" && process.platform !== "darwin") {
    console.warn("kimberlite: Linux and macOS only; databases cannot be opened on this platform.");
    return;
  }
  const target = join(here, "prebuilt", platformName(), `guard.${extension}`);
  if (!process.argv.includes("--force") && fresh(target)) return;
  const failure = compile(target);
  if (failure === undefined) {
    console.log(`kimberlite: built ${target} (${readFileSync(target).length} bytes)`);
    return;
  }
  const kept = existsSync(target);
  console.warn(
    `kimberlite: the SQLite guard could not be compiled${kept ? "; the binary that is there stays" : ""}.`,
  );
  console.warn(failure.trim());
  if (!kept)
    console.warn("Install a C compiler (cc) and run `npm rebuild kimberlite`; until then no database opens.");
  if (process.argv.includes("--force")) process.exitCode = 1;
}

main();
