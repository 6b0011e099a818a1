/** Runs the victim, ends it, and checks what it left: one data directory over many deaths. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { createMasterKeyFile, Kimberlite, masterKeyFile, TenantId } from "../../src/index.ts";
import { projectionFolder } from "../../src/pipeline/projection-base.ts";
import { type CallerState, settle, type TenantReport } from "./check.ts";
import { dumpProjection } from "./dump.ts";
import { CALLERS, TENANTS } from "./operations.ts";
import type { KillPlan } from "./plan.ts";
import type { VictimTask } from "./victim.ts";

const VICTIM = join(import.meta.dirname, "victim.ts");
/** As the victim has it: opened with another length, the files would grow. */
const JOURNAL_FILE_BYTES = 64 * 1024;
const PATIENCE_MS = 20_000;

export interface LifeOptions {
  readonly plan?: KillPlan | undefined;
  /** Killed so long after it began to work, or, if negative, so long after it was started; unless its plan comes first. */
  readonly lifeMs: number;
}

export interface Death {
  /** The plan came true. */
  readonly planned: boolean;
  readonly acknowledged: number;
}

/** A data directory whose process dies again and again. */
export class Patient {
  readonly dir: string = mkdtempSync(join(tmpdir(), "kimberlite-crash-"));
  readonly seed: number;
  readonly #callers: ReadonlyMap<number, CallerState[]>;

  constructor(seed: number) {
    this.seed = seed;
    createMasterKeyFile(join(this.dir, "master.key"));
    const fresh = (): CallerState[] => Array.from({ length: CALLERS }, () => ({ next: 0, underWay: false }));
    this.#callers = new Map(TENANTS.map((tenant) => [tenant, fresh()]));
  }

  get dataDir(): string {
    return join(this.dir, "data");
  }

  /** One life: opens, checks what the last one left, works, dies. @throws with the seed and folder on any fault */
  async live(options: LifeOptions): Promise<Death> {
    const life = new Life({ dir: this.dir, seed: this.seed, plan: options.plan });
    const early = options.lifeMs < 0 ? setTimeout(() => life.kill(), -options.lifeMs) : undefined;
    try {
      const reports = await life.opened;
      clearTimeout(early);
      if (reports === undefined) return { planned: !life.killedByUs, acknowledged: 0 };
      this.#check(reports);
      life.go(this.#starts());
      const timer = setTimeout(() => life.kill(), Math.abs(options.lifeMs));
      await life.ended;
      clearTimeout(timer);
      return { planned: !life.killedByUs, acknowledged: this.#learn(life.lines) };
    } catch (error) {
      life.kill();
      throw this.#fault(error);
    }
  }

  /** Checks once more, then that every projection, built anew from its log, is what it was. */
  async finish(): Promise<void> {
    const life = new Life({ dir: this.dir, seed: this.seed, lookOnly: true });
    try {
      const reports = await life.opened;
      if (reports === undefined) throw new Error("the process ended before it opened");
      this.#check(reports);
      await life.ended;
      for (const tenant of TENANTS) await this.#compareRebuilt(tenant);
    } catch (error) {
      throw this.#fault(error);
    }
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Gives the first tenant more rows than a rebuild writes in two transactions. */
  async addWideTable(): Promise<void> {
    const db = await Kimberlite.open({
      dataDir: this.dataDir,
      masterKey: masterKeyFile(join(this.dir, "master.key")),
      journalFileBytes: JOURNAL_FILE_BYTES,
    });
    const id = TenantId(TENANTS[0]);
    await db.execute(id, "CREATE TABLE wide (id INTEGER PRIMARY KEY, body TEXT)");
    const fill = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 15000)
      INSERT INTO wide (body) SELECT 'row ' || i FROM n`;
    for (let part = 0; part < 5; part += 1) await db.execute(id, fill);
    await db.close();
  }

  /** Deletes a projection's files, as an operator may at any time. */
  forgetProjection(tenant: number): void {
    rmSync(projectionFolder(this.dataDir, TenantId(tenant)), { recursive: true, force: true });
  }

  async #compareRebuilt(tenant: number): Promise<void> {
    const at = { dataDir: this.dataDir, masterKey: join(this.dir, "master.key") };
    const live = await dumpProjection(at, tenant);
    this.forgetProjection(tenant);
    const db = await Kimberlite.open({
      dataDir: this.dataDir,
      masterKey: masterKeyFile(at.masterKey),
      journalFileBytes: JOURNAL_FILE_BYTES,
    });
    await db.query(TenantId(tenant), "SELECT 1");
    await db.close();
    const rebuilt = await dumpProjection(at, tenant);
    const differs =
      live.length === rebuilt.length ? live.findIndex((line, index) => line !== rebuilt[index]) : -2;
    if (differs === -1) return;
    const known = new Set(rebuilt);
    const missing = live.filter((line) => !known.has(line)).slice(0, 5);
    const before = new Set(live);
    const added = rebuilt.filter((line) => !before.has(line)).slice(0, 5);
    throw new Error(
      `tenant ${tenant}: rebuilt is not live; only live: ${missing.join(" ; ")}; only rebuilt: ${added.join(" ; ")}`,
    );
  }

  #check(reports: readonly TenantReport[]): void {
    const faults = reports.flatMap((report) => {
      const callers = this.#callers.get(report.tenant) ?? [];
      return settle({ seed: this.seed, tenant: report.tenant, callers }, report);
    });
    if (faults.length > 0) throw new Error(faults.slice(0, 10).join("\n"));
  }

  #starts(): Record<number, number[]> {
    return Object.fromEntries(
      [...this.#callers].map(([tenant, callers]) => [tenant, callers.map((state) => state.next)]),
    );
  }

  #learn(lines: readonly string[]): number {
    let acknowledged = 0;
    for (const line of lines) {
      const [what, tenant, caller, n] = line.split(" ");
      const state = this.#callers.get(Number(tenant))?.[Number(caller)];
      if (state === undefined || Number(n) !== state.next) throw new Error(`unexpected report: ${line}`);
      if (what === "b") state.underWay = true;
      if (what !== "a") continue;
      state.underWay = false;
      state.next += 1;
      acknowledged += 1;
    }
    return acknowledged;
  }

  #fault(error: unknown): Error {
    const why = error instanceof Error ? error.message : String(error);
    return new Error(`seed ${this.seed}, left in ${this.dir}: ${why}`, { cause: error });
  }
}

/** One process, from its start to its end. */
class Life {
  readonly lines: string[] = [];
  /** What it found; undefined if it died before it could say. */
  readonly opened: Promise<TenantReport[] | undefined>;
  readonly ended: Promise<void>;
  killedByUs = false;
  readonly #child: ChildProcess;

  constructor(task: VictimTask) {
    this.#child = spawn(process.execPath, ["--no-warnings", VICTIM, JSON.stringify(task)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#child.stdin?.on("error", () => undefined);
    let fault: string | undefined;
    const patience = setTimeout(() => {
      fault = `the process did not end within ${PATIENCE_MS} ms`;
      this.#child.kill("SIGKILL");
    }, PATIENCE_MS);
    let opened: (reports: TenantReport[] | undefined) => void = () => undefined;
    let failed: (error: Error) => void = () => undefined;
    this.opened = new Promise((resolve, reject) => {
      opened = resolve;
      failed = reject;
    });
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      if (line.startsWith("f ")) fault = line;
      else if (line.startsWith("o ")) opened(JSON.parse(line.slice(2)) as TenantReport[]);
      else this.lines.push(line);
    });
    this.ended = new Promise((resolve, reject) => {
      this.#child.on("close", (code, signal) => {
        clearTimeout(patience);
        const error = new Error(fault ?? `the process ended by itself, with ${code ?? signal}`);
        const fine = fault === undefined && (signal === "SIGKILL" || (code === 0 && task.lookOnly === true));
        if (fine) opened(undefined);
        else failed(error);
        if (fine) resolve();
        else reject(error);
      });
    });
    this.ended.catch(() => undefined);
    this.opened.catch(() => undefined);
  }

  go(starts: Record<number, number[]>): void {
    this.#child.stdin?.write(`${JSON.stringify(starts)}\n`);
  }

  kill(): void {
    this.killedByUs = true;
    this.#child.kill("SIGKILL");
  }
}
