/**
 * Runs the guard under the sanitizers: `node native/check.mjs [--seconds N] [--seed N]`. Plain Node, C compiler needed.
 *
 * The SQLite amalgamation that the library ships is compiled together with the guard into one program, under the
 * address and undefined-behaviour sanitizers, and the watchdog once more under the thread sanitizer. The objects of
 * SQLite are kept in `native/build/`. Exits with 1 at the first fault; prints the seed.
 */
import { spawn } from "node:child_process";
import { createHash, randomInt } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const build = join(here, "build");
const compiler = process.env.CC || "cc";
const library = dirname(
  createRequire(join(here, "..", "package.json")).resolve("better-sqlite3-multiple-ciphers/package.json"),
);
const sqlite = join(library, "deps", "sqlite3");
const guard = [
  "guard.c",
  "authorizer.c",
  "watchdog.c",
  "rowcodec.c",
  "bounded.c",
  "like.c",
  "scrub.c",
  "shared.c",
  "fuzz/driver.c",
  "fuzz/fuzz.c",
];
const strict = [
  "-std=c11",
  "-D_GNU_SOURCE",
  "-D_DARWIN_C_SOURCE",
  "-DSQLITE_CORE",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-Wshadow",
];

/** Two programs: what each is compiled with, SQLite's part of it with less where that is enough. */
const variants = {
  address: {
    flags: [
      "-g",
      "-O1",
      "-fno-omit-frame-pointer",
      "-fsanitize=address,undefined",
      "-fno-sanitize-recover=all",
    ],
    sqlite: ["-g", "-fno-omit-frame-pointer", "-fsanitize=address"],
  },
  thread: { flags: ["-g", "-O1", "-fsanitize=thread"], sqlite: ["-g", "-fsanitize=thread"] },
};
/** From here on it pays to have the compiler optimise SQLite, which takes it most of a minute. */
const LONG_SECONDS = 120;

async function run(command, args, options = {}) {
  const child = spawn(command, args, { stdio: "inherit", ...options });
  const code = await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (status, signal) => resolve(signal ?? status));
  });
  if (code !== 0) throw new Error(`${command} ${args.slice(0, 3).join(" ")} ended with ${code}`);
}

/** The options that the library itself is compiled with. */
function defines() {
  const text = readFileSync(join(library, "deps", "defines.gypi"), "utf8");
  return [...text.matchAll(/'((?:SQLITE|HAVE)_[^']+)'/g)].map((match) => `-D${match[1]}`);
}

async function sqliteObject(variant, optimise) {
  const source = join(sqlite, "sqlite3.c");
  const args = [...variants[variant].sqlite, optimise ? "-O1" : "-O0", "-w", ...machine(), ...defines()];
  const key = createHash("sha256")
    .update(readFileSync(source))
    .update(args.join(" "))
    .digest("hex")
    .slice(0, 16);
  const object = join(build, `sqlite3-${variant}-${key}.o`);
  if (existsSync(object)) return object;
  console.log(`compiling SQLite for the ${variant} sanitizer (once)`);
  const unfinished = `${object}.${process.pid}.o`;
  await run(compiler, [...args, "-c", source, "-o", unfinished]);
  renameSync(unfinished, object);
  return object;
}

/** AEGIS is compiled for processors with AES instructions where there are some. */
function machine() {
  return process.arch === "x64" ? ["-maes", "-msse4.2", "-mpclmul"] : [];
}

async function program(variant, optimise) {
  const object = await sqliteObject(variant, optimise);
  const path = join(build, `driver-${variant}`);
  const sources = guard.map((name) => join(here, name));
  const args = [...variants[variant].flags, ...strict, "-I", sqlite, "-I", here, ...sources, object];
  await run(compiler, [...args, "-o", path, "-lpthread", "-lm", "-ldl"]);
  return path;
}

async function main() {
  const { values } = parseArgs({ options: { seconds: { type: "string" }, seed: { type: "string" } } });
  const seconds = Number(values.seconds ?? 20);
  const seed = values.seed ?? String(randomInt(1, 2 ** 32));
  mkdirSync(build, { recursive: true });
  const [address, thread] = await Promise.all(
    ["address", "thread"].map((variant) => program(variant, seconds > LONG_SECONDS)),
  );
  const cwd = mkdtempSync(join(tmpdir(), "kimberlite-guard-"));
  try {
    console.log("address and undefined-behaviour sanitizers");
    await run(address, ["exercise"], { cwd });
    await run(address, ["threads", "2"], { cwd });
    console.log(`fuzzing for ${seconds} s with --seed ${seed}`);
    await run(address, ["fuzz", seed, String(seconds)], { cwd });
    console.log("thread sanitizer");
    await run(thread, ["threads", "3"], { cwd });
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
