/** What a run was asked for, from the command line, and what every measurement is given. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { WORKLOADS } from "./load.ts";

export interface Setting {
  readonly quick: boolean;
  /** Seconds of load that each measured figure gets, over all its rounds. */
  readonly seconds: number;
  readonly rounds: number;
  /** Folder of the built library. */
  readonly build: string;
  readonly postgres: boolean;
  readonly chosen: (name: string) => boolean;
}

const PARTS = [
  ...WORKLOADS,
  "tenancy",
  "scale",
  "cold-open",
  "rebuild",
  "verify",
  "rotation",
  "rewrap",
  "portability",
  "erasure",
  "network",
  "noisy",
] as const;

const USAGE = `usage: npm run bench -- [options]
  --quick          at most two minutes, coarser
  --only NAMES     of ${PARTS.join(", ")}
  --seconds N      seconds of load a figure (1.5, or 0.3 with --quick)
  --no-postgres    leave PostgreSQL out
  --build DIR      measure another build than dist`;

/** @throws Error with the usage for arguments that are not understood. */
export function parseSetting(args: string[]): Setting {
  const options = {
    quick: { type: "boolean" },
    only: { type: "string" },
    seconds: { type: "string" },
    "no-postgres": { type: "boolean" },
    build: { type: "string" },
  } as const;
  try {
    const { values } = parseArgs({ args, options, allowPositionals: false });
    const quick = values.quick ?? false;
    const seconds = Number(values.seconds ?? (quick ? 0.3 : 1.5));
    if (!(seconds > 0)) throw new Error("--seconds is a positive number");
    return {
      quick,
      seconds,
      rounds: quick ? 3 : 5,
      build: values.build ?? fileURLToPath(new URL("../dist", import.meta.url)),
      postgres: values["no-postgres"] !== true,
      chosen: chooser(values.only),
    };
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${USAGE}`);
  }
}

function chooser(only: string | undefined): (name: string) => boolean {
  if (only === undefined) return () => true;
  const names = only.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !(PARTS as readonly string[]).includes(name));
  if (unknown !== undefined) throw new Error(`there is no benchmark ${unknown}`);
  return (name) => names.includes(name);
}

const scratch = new Set<string>();
process.once("exit", () => {
  for (const folder of scratch) rmSync(folder, { recursive: true, force: true });
});

/** Runs work in a temporary folder that is gone afterwards, whatever happens. */
export async function inScratch<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-bench-"));
  scratch.add(folder);
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
    scratch.delete(folder);
  }
}
