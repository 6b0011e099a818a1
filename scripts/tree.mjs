/**
 * Where things are in a checkout, and how its scripts start other programs.
 *
 * Runs on Node 18 and later, before anything is installed: no dependency, plain JavaScript. Programs of the project
 * are started with `node_modules/.bin` first on the PATH, so that they run on the Node.js that package.json pins and
 * not on the machine's.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");
export const BIN = join(ROOT, "node_modules", ".bin");

/** The pinned Node.js; absent until the dependencies are installed. */
export const PROJECT_NODE = join(BIN, "node");

/** The environment of a program of the project: pinned Node.js first, no colours, for its output is captured. */
export function projectEnv(extra = {}) {
  const { FORCE_COLOR: _, ...rest } = process.env;
  return { ...rest, PATH: [BIN, machinePath()].join(delimiter), NO_COLOR: "1", ...extra };
}

/** The PATH without the project's own programs: an install must not run on the Node.js that it replaces. */
export function machinePath() {
  const paths = (process.env.PATH ?? "").split(delimiter);
  return paths.filter((path) => path !== BIN && path !== `${BIN}/`).join(delimiter);
}

/**
 * Runs a program to its end in the project's root and returns what it printed on both streams.
 *
 * @throws an Error whose message ends with that output, when it cannot be started or exits with another code than 0.
 */
export function run(program, args, { env = projectEnv(), cwd = ROOT } = {}) {
  const done = spawnSync(program, args, { cwd, env, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  const output = `${done.stdout ?? ""}${done.stderr ?? ""}`.trimEnd();
  if (done.error === undefined && done.status === 0) return output;
  const why =
    done.error?.message ?? (done.signal ? `was ended by ${done.signal}` : `exited with ${done.status}`);
  throw new Error(`${[program, ...args].join(" ")}: ${why}\n${output}`);
}

/** Paths of the files under a folder, in the order of their names, without those that `skip` refuses by name. */
export function filesUnder(folder, skip = () => false) {
  if (!existsSync(folder)) return [];
  const files = [];
  for (const entry of sortedEntries(folder)) {
    if (skip(entry.name)) continue;
    const path = join(folder, entry.name);
    if (entry.isDirectory()) files.push(...filesUnder(path, skip));
    else if (entry.isFile()) files.push(path);
  }
  return files;
}

function sortedEntries(folder) {
  return readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A hash over names and contents: equal exactly when nothing in them changed. */
export function fingerprint(paths, extra = "") {
  const hash = createHash("sha256").update(extra);
  for (const path of paths) {
    const bytes = readFileSync(path);
    hash.update(`\0${path.slice(ROOT.length)}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest("hex");
}

/** Text of a file, or undefined when there is none. */
export function textOf(path) {
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}
