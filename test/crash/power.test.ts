/**
 * I-2 against a loss of power: a database runs on a disk that knows what was really made durable, and is opened again
 * from what such a disk may be left with: unsynced writes there or not sector by sector, names of unsynced folders
 * gone, an older projection or none, bytes lost that a failed sync counted as clean; also after a kill without a loss.
 *
 * A failure prints its seed. KIMBERLITE_SOAK=1 runs many more, KIMBERLITE_SEED sets the first.
 */
import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { systemDisk } from "../../src/host/disk.ts";
import { createMasterKeyFile, Kimberlite, masterKeyFile, TenantId } from "../../src/index.ts";
import { projectionFolder } from "../../src/pipeline/projection-base.ts";
import { type Seeded, seeded } from "../../src/testing/seeded.ts";
import { VolatileDisk } from "./volatile-disk.ts";

const SOAK = process.env["KIMBERLITE_SOAK"] !== undefined;
const FIRST_SEED = Number(process.env["KIMBERLITE_SEED"] ?? (SOAK ? Date.now() % 1_000_000 : 1));
const SEEDS = SOAK ? 400 : 12;
const LOSSES = 5;

interface Known {
  readonly acknowledged: Set<number>;
  readonly begun: Set<number>;
}

/** One installation over several losses. */
class Subject {
  readonly #chance: Seeded;
  readonly #folder: string = mkdtempSync(join(tmpdir(), "kimberlite-power-"));
  readonly #tenants: Map<number, Known> = new Map();
  readonly #failing: boolean;
  #generation = 0;
  /** The power is gone: what is acknowledged from now on is not. */
  #lost = false;
  #next = 1;
  #power: VolatileDisk;
  #db: Kimberlite | undefined;

  constructor(seed: number) {
    this.#chance = seeded(seed);
    this.#failing = seed % 3 === 0;
    createMasterKeyFile(join(this.#folder, "master.key"));
    // The folder itself is the caller's; what is below it the database makes and syncs.
    this.#power = this.#volatile(this.#place());
  }

  async run(): Promise<void> {
    for (let loss = 0; loss < LOSSES; loss += 1) {
      this.#db = await this.#open();
      await this.#check();
      for (let step = 0; step < 30; step += 1) await this.#step();
      await this.#lose();
    }
    this.#db = await this.#open();
    await this.#check();
    await this.#db.close();
    rmSync(this.#folder, { recursive: true });
  }

  #place(): string {
    return join(this.#folder, `${this.#generation}`);
  }

  #volatile(root: string): VolatileDisk {
    systemDisk.makeFolder(root);
    return new VolatileDisk(systemDisk, root, {
      failsSync: (path) => this.#failing && path.endsWith(".seg") && this.#chance.oneIn(3),
    });
  }

  async #open(): Promise<Kimberlite> {
    return this.#patiently(() => this.#openOnce());
  }

  #openOnce(): Promise<Kimberlite> {
    return Kimberlite.open({
      dataDir: join(this.#place(), "data"),
      masterKey: masterKeyFile(join(this.#folder, "master.key")),
      disk: this.#power.disk,
      logSegmentBytes: 8 * 1024,
      journalFileBytes: 8 * 1024,
      maxOpenTenants: 3,
    });
  }

  async #step(): Promise<void> {
    const db = this.#db as Kimberlite;
    if (this.#tenants.size === 0 || this.#chance.oneIn(15)) await this.#addTenant(db);
    if (this.#chance.oneIn(20)) await this.#rotate(db);
    await Promise.all(Array.from({ length: 1 + this.#chance.below(4) }, () => this.#insert(db)));
  }

  async #addTenant(db: Kimberlite): Promise<void> {
    const tenant = this.#tenants.size + 1;
    try {
      await db.createTenant({ id: TenantId(tenant), name: `tenant ${tenant}` });
      await db.execute(TenantId(tenant), "CREATE TABLE rows (n INTEGER PRIMARY KEY, body TEXT)");
    } catch (error) {
      if (this.#failing) return;
      throw error;
    }
    this.#tenants.set(tenant, { acknowledged: new Set(), begun: new Set() });
  }

  /** Its audit record is a commit like any other. */
  async #rotate(db: Kimberlite): Promise<void> {
    try {
      await db.rotateDek(TenantId(this.#someTenant()));
    } catch (error) {
      if (!this.#failing) throw error;
    }
  }

  #someTenant(): number {
    return 1 + this.#chance.below(this.#tenants.size);
  }

  async #insert(db: Kimberlite): Promise<void> {
    const tenant = this.#someTenant();
    const known = this.#tenants.get(tenant) as Known;
    const n = this.#next;
    this.#next += 1;
    known.begun.add(n);
    try {
      await db.insert(TenantId(tenant), "rows", { n, body: "y".repeat(this.#chance.below(1_500)) });
      if (!this.#lost) known.acknowledged.add(n);
    } catch (error) {
      if (!this.#failing) throw error;
    }
  }

  /** The power goes, in the middle of some writes; sometimes a kill and a new start came shortly before. */
  async #lose(): Promise<void> {
    const abandoned = this.#db as Kimberlite;
    const underWay = Array.from({ length: this.#chance.below(4) }, () =>
      this.#insert(abandoned).catch(() => undefined),
    );
    if (this.#chance.oneIn(2)) await new Promise((resolve) => setImmediate(resolve));
    const older = this.#olderProjections();
    const former = this.#place();
    this.#lost = true;
    this.#generation += 1;
    if (this.#chance.oneIn(2)) this.#power = this.#power.copyTo(this.#place());
    else {
      this.#power.losePower(this.#place(), this.#chance);
      this.#power = this.#volatile(this.#place());
    }
    for (const tenant of this.#tenants.keys()) this.#rollBackProjection(older, tenant);
    await Promise.all(underWay);
    await abandoned.close().catch(() => undefined);
    this.#lost = false;
    rmSync(former, { recursive: true });
    if (older !== undefined) rmSync(older, { recursive: true });
  }

  /** Where the folders of the loss before stand, which are what a disk may roll SQLite's files back to. */
  #olderProjections(): string | undefined {
    if (!this.#chance.oneIn(2)) return undefined;
    const folder = mkdtempSync(join(tmpdir(), "kimberlite-older-"));
    cpSync(join(this.#place(), "data", "tenants"), join(folder, "tenants"), { recursive: true });
    return folder;
  }

  #rollBackProjection(older: string | undefined, tenant: number): void {
    const path = projectionFolder(join(this.#place(), "data"), TenantId(tenant));
    if (!this.#chance.oneIn(3)) return;
    rmSync(path, { recursive: true, force: true });
    const from = older === undefined ? undefined : projectionFolder(older, TenantId(tenant));
    if (from !== undefined && existsSync(from)) cpSync(from, path, { recursive: true });
  }

  /** A tenant whose segments could not be made durable when the database was opened is tried again at each use. */
  async #patiently<T>(work: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!this.#failing || (error as { code?: unknown }).code !== "disk_failed") throw error;
      }
    }
  }

  async #check(): Promise<void> {
    const db = this.#db as Kimberlite;
    for (const [tenant, { acknowledged, begun }] of this.#tenants) {
      const rows = await this.#patiently(() => db.query(TenantId(tenant), "SELECT n FROM rows"));
      const found = new Set(rows.map((row) => row["n"] as number));
      expect(
        [...acknowledged].filter((n) => !found.has(n)),
        "acknowledged and lost",
      ).toEqual([]);
      expect(
        [...found].filter((n) => !begun.has(n)),
        "never begun",
      ).toEqual([]);
      const report = await db.verifyTenant(TenantId(tenant));
      expect(report.reason).toBeUndefined();
      for (const n of found) acknowledged.add(n);
    }
  }
}

describe("a database whose disk loses its power", () => {
  for (let index = 0; index < SEEDS; index += 1) {
    const seed = FIRST_SEED + index;
    it(`keeps what it acknowledged (seed ${seed})`, () => new Subject(seed).run());
  }
});
