/** Runs the command as its users do: a process of its own, on a directory of its own. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const LIMIT_MS = 240_000;

export interface CommandResult {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface CommandOptions {
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  readonly nodeArgs?: readonly string[];
  /** Closes the reading end of its output after so many bytes. */
  readonly stopReadingAfter?: number;
}

export type Kimberlite = (args: readonly string[], options?: CommandOptions) => Promise<CommandResult>;

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A folder that is gone when the file's tests are done. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-e2e-"));
  folders.push(folder);
  return folder;
}

/** The command with `--dir dir` behind its arguments. */
export function commandOn(dir: string): Kimberlite {
  return (args, options) => runCommand([...args, "--dir", dir], options);
}

export function runCommand(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const { input = "", env = {}, nodeArgs = [], stopReadingAfter = Number.POSITIVE_INFINITY } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...nodeArgs, MAIN, ...args], {
      env: { ...process.env, NO_COLOR: "1", ...env },
      timeout: LIMIT_MS,
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on("data", (piece: Buffer) => {
      out.push(piece);
      if (Buffer.concat(out).length > stopReadingAfter) child.stdout.destroy();
    });
    child.stderr.on("data", (piece: Buffer) => err.push(piece));
    child.stdin.on("error", () => undefined);
    child.on("error", reject);
    child.on("close", (code) => {
      resolve({ code, out: Buffer.concat(out).toString("utf8"), err: Buffer.concat(err).toString("utf8") });
    });
    child.stdin.end(input);
  });
}

/** Runs it, and fails with what it said unless it ended well. */
export async function succeed(running: Promise<CommandResult>): Promise<string> {
  const { code, out, err } = await running;
  if (code !== 0) throw new Error(`exit code ${code}: ${err}${out}`);
  return out;
}
