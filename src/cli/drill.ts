/**
 * `kimberlite erase --drill`: an erasure of a scratch tenant, with everything looked through that could still hold
 * something of it: its files, a copy of them from before put back, and the memory of the process.
 *
 * The memory is that of another process, which erases; this one knows what to look for. Every search is made before the
 * erasure too, and has to find: one that cannot find proves nothing.
 */
import { type ChildProcess, fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, cpSync, mkdtempSync, openSync, readFileSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { verifyErasureCertificate } from "../erasure/certificate.ts";
import { KimberliteError, kimberliteError } from "../errors.ts";
import { OVERWRITING_ALLOCATOR } from "../host/memory.ts";
import { parseVerifierKey } from "../log/signed-note.ts";
import type { GlobalOptions } from "./arguments.ts";
import { drillPrefix, findNeedles, keyNeedles, type Needle, textNeedle } from "./drill-secrets.ts";
import { type DrillAnswer, type DrillOrder, SUBJECT } from "./drill-subject.ts";
import { filesBelow } from "./inspect.ts";
import { initialise, installationPaths, openInstallation } from "./installation.ts";
import { toJson } from "./render.ts";

const SUBJECT_FILE = fileURLToPath(
  new URL(`./drill-subject${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`, import.meta.url),
);
const MEMORY_CHUNK_BYTES = 8 * 1024 * 1024;
const OVERLAP_BYTES = 128;

/** One thing that was looked at. */
interface Finding {
  readonly what: string;
  readonly ok: boolean;
  readonly found: string;
}

export async function drill(options: GlobalOptions): Promise<undefined> {
  const dir = mkdtempSync(join(tmpdir(), "kimberlite-drill-"));
  const findings: Finding[] = [];
  try {
    await run(dir, (finding) => {
      findings.push(finding);
      if (options.json !== true) console.log(`${finding.ok ? "✓" : "✗"} ${finding.what}: ${finding.found}`);
    });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  const ok = findings.every((finding) => finding.ok);
  if (options.json === true) console.log(toJson({ ok, findings }));
  if (!ok) throw kimberliteError("drill_failed", "the drill found what an erasure must not leave");
}

async function run(dir: string, note: (finding: Finding) => void): Promise<void> {
  const paths = installationPaths(dir);
  await initialise(paths);
  const seed = randomBytes(16).toString("hex");
  const subject = new Subject();
  try {
    const { keys = { from: 0, to: 0 } } = await subject.tell({ do: "live", paths, seed });
    const secretKeys = keyNeedles(seed, SUBJECT, keys);
    const all = [textNeedle("rows", drillPrefix(seed)), ...secretKeys];
    const before = subject.memory(all);
    if (before === undefined)
      note({ what: "memory", ok: true, found: "not looked at: this platform does not show it" });
    else {
      const rows = before.get("rows") ?? 0;
      const seenKeys = secretKeys.filter(({ name }) => before.has(name)).length;
      const found = `texts of rows ${rows} times, ${seenKeys} keys: the search finds`;
      note({ what: "memory before the erasure", ok: rows > 0 && seenKeys > 0, found });
    }
    note(nothing("files before the erasure", inFiles(paths.data, all), "all is encrypted"));
    const backup = join(dir, "backup");
    cpSync(paths.data, backup, { recursive: true });
    const { certificate = "", verifierKey = "" } = await subject.tell({ do: "erase" });
    const { removed } = verifyErasureCertificate(certificate, parseVerifierKey(verifierKey));
    note({
      what: "certificate",
      ok: true,
      found: `signed; removed: ${removed.map(({ what }) => what).join(", ")}`,
    });
    const after = subject.memory(all);
    if (after !== undefined) note(nothing("memory after the erasure", after, "neither a row nor a key"));
    note(nothing("files after the erasure", inFiles(paths.data, all), "neither a row nor a key"));
    const left = filesBelow(paths.data).filter(({ name }) => /(^|\/)(tenants\/1\/|keys\/1\.)/.test(name));
    note({ what: "files of the tenant", ok: left.length === 0, found: `${left.length}` });
    const { refusals = [] } = await subject.tell({ do: "look" });
    const refused = refusals.slice(0, -1).every((code) => code === "tenant_erased");
    note({
      what: "rows, time travel, streams, audit, rebuild",
      ok: refused,
      found: refusals.slice(0, -1).join(", "),
    });
    note({
      what: "the other tenant",
      ok: refusals.at(-1) === "bystander is served",
      found: refusals.at(-1) ?? "",
    });
    await subject.tell({ do: "end" });
    const restored = await lookIntoBackup(dir, backup);
    note({
      what: "a copy of the data from before, beside today's keys",
      ok: restored !== "answered",
      found: restored,
    });
  } finally {
    subject.kill();
  }
}

/** Puts the tenant's data of before back, as whoever kept a copy of the data would; the keys are today's. */
async function lookIntoBackup(dir: string, backup: string): Promise<string> {
  const { data } = installationPaths(dir);
  const tenant = join("tenants", SUBJECT.toString());
  cpSync(join(backup, tenant), join(data, tenant), { recursive: true });
  // The catalogue of before, in which the tenant is alive: the attack that the tombstone alone would not stop.
  rmSync(join(data, "tenants", "0"), { recursive: true });
  cpSync(join(backup, "tenants", "0"), join(data, "tenants", "0"), { recursive: true });
  rmSync(join(data, "journal"), { recursive: true });
  cpSync(join(backup, "journal"), join(data, "journal"), { recursive: true });
  try {
    const db = await openInstallation(installationPaths(dir));
    try {
      await db.query(SUBJECT, "SELECT * FROM people");
      return "answered";
    } finally {
      await db.close();
    }
  } catch (error) {
    if (error instanceof KimberliteError) return error.code;
    throw error;
  }
}

function nothing(what: string, found: ReadonlyMap<string, number>, good: string): Finding {
  const names = [...found.keys()];
  return {
    what,
    ok: names.length === 0,
    found: names.length === 0 ? good : [...found].map(([name, times]) => `${name} ${times} times`).join("; "),
  };
}

function inFiles(folder: string, needles: readonly Needle[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const { name } of filesBelow(folder)) findNeedles(readFileSync(join(folder, name)), needles, found);
  return found;
}

/** The process that erases. */
class Subject {
  readonly #process: ChildProcess = fork(SUBJECT_FILE, ["drill-subject"], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
    env: { ...process.env, [OVERWRITING_ALLOCATOR.name]: OVERWRITING_ALLOCATOR.value },
  });

  async tell(order: DrillOrder): Promise<DrillAnswer> {
    const answered = Promise.withResolvers<DrillAnswer>();
    const ended = (): void =>
      answered.reject(kimberliteError("drill_failed", "the process of the drill ended"));
    this.#process.once("message", (message) => answered.resolve(message as DrillAnswer));
    this.#process.once("exit", ended);
    this.#process.send(order);
    try {
      const answer = await answered.promise;
      if (answer.error !== undefined) throw kimberliteError("drill_failed", answer.error);
      return answer;
    } finally {
      this.#process.off("exit", ended);
    }
  }

  /** Every writable page of the process; undefined where the platform does not show it. */
  memory(needles: readonly Needle[]): Map<string, number> | undefined {
    const { pid } = this.#process;
    if (process.platform !== "linux" || pid === undefined) return undefined;
    const found = new Map<string, number>();
    const memory = openSync(`/proc/${pid}/mem`, "r");
    try {
      for (const [begin, end] of writableRanges(pid)) {
        for (let at = begin; at < end; at += MEMORY_CHUNK_BYTES - OVERLAP_BYTES) {
          const bytes = Buffer.allocUnsafe(Math.min(MEMORY_CHUNK_BYTES, end - at));
          const length = readMemory(memory, bytes, at);
          findNeedles(bytes.subarray(0, length), needles, found);
        }
      }
    } finally {
      closeSync(memory);
    }
    return found;
  }

  kill(): void {
    this.#process.kill("SIGKILL");
  }
}

function writableRanges(pid: number): [number, number][] {
  return readFileSync(`/proc/${pid}/maps`, "utf8")
    .split("\n")
    .flatMap((line): [number, number][] => {
      const [, begin, end, rights] = /^([0-9a-f]+)-([0-9a-f]+) (\S{4})/.exec(line) ?? [];
      if (begin === undefined || end === undefined || rights?.startsWith("rw") !== true) return [];
      return [[Number.parseInt(begin, 16), Number.parseInt(end, 16)]];
    });
}

/** Bytes that were read; 0 for a range that is gone or cannot be read. */
function readMemory(file: number, bytes: Buffer, position: number): number {
  try {
    return readSync(file, bytes, 0, bytes.length, position);
  } catch {
    return 0;
  }
}
