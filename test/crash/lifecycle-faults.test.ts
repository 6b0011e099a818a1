/**
 * What operators do with a tenant, on a disk that refuses in the middle of it, and in a process that is killed in the
 * middle of it. Each fault is told by its code; nothing of the tenant or of another is lost; what was half done is gone on
 * with, or is nothing, when it is asked for again and after a restart; an erasure that began is finished.
 */
import { type ChildProcess, spawn } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, it } from "vitest";
import { systemDisk } from "../../src/host/disk.ts";
import {
  createMasterKeyFile,
  Duration,
  Kimberlite,
  KimberliteError,
  masterKeyFile,
  TenantId,
  verifyExport,
} from "../../src/index.ts";
import { type DiskCall, faultyDisk, type Interruption, refusing } from "../../src/testing/faulty-disk.ts";
import { type Seeded, seeded } from "../../src/testing/seeded.ts";
import { Scratch } from "../isolation/scratch.ts";

const SOAK = process.env["KIMBERLITE_SOAK"] !== undefined;
const SEED = Number(process.env["KIMBERLITE_SEED"] ?? (SOAK ? Date.now() % 1_000_000 : 1));
/** Faults in each operation. */
const FAULTS = SOAK ? 40 : 4;
const KILLS = SOAK ? 60 : 5;
const WHY = { reason: "a fault", actor: "tester" };
const BYSTANDER = TenantId(1_000_000);

/** A disk on which one call of those that are counted fails. */
class Planned {
  /** Calls that changed something since the count began. */
  calls = 0;
  #failAt = -1;
  #chance: Seeded = seeded(0);
  failed: string | undefined;

  readonly judge = (call: DiskCall): Interruption | undefined => {
    if (["read", "readFile", "list"].includes(call.operation)) return undefined;
    if (call.operation === "open" && call.mode === "read") return undefined;
    this.calls += 1;
    if (this.calls - 1 !== this.#failAt) return undefined;
    const errno = this.#chance.oneIn(2) ? "ENOSPC" : "EIO";
    this.failed = `${errno} in ${call.operation} of ${call.path}`;
    if (call.operation === "write" && call.bytes !== undefined && this.#chance.oneIn(2))
      return refusing(errno, this.#chance.below(call.bytes));
    return refusing(errno);
  };

  count(): void {
    this.calls = 0;
    this.#failAt = -1;
    this.failed = undefined;
  }

  fail(at: number, chance: Seeded): void {
    this.count();
    this.#failAt = at;
    this.#chance = chance;
  }
}

interface Place {
  readonly db: Kimberlite;
  readonly scratch: Scratch;
  readonly id: TenantId;
  /** An export and a backup of a tenant that is there. */
  readonly source: TenantId;
  readonly round: string;
}

type Operation = (place: Place) => Promise<unknown>;

const OPERATIONS: Readonly<Record<string, Operation>> = {
  createTenant: ({ db, id }) => db.createTenant({ id: fresh(id), name: "made" }),
  setRetention: ({ db, id }) => db.setRetention(id, Duration.days(1), WHY),
  placeLegalHold: ({ db, id }) => db.placeLegalHold(id, { ...WHY, name: "case" }),
  rotateDek: ({ db, id }) => db.rotateDek(id),
  rotateKek: ({ db, id }) => db.rotateKek(id),
  setTenantMasterKey: ({ db, id, scratch }) =>
    db.setTenantMasterKey(id, `file:${join(scratch.folder, "own.key")}`),
  reencryptTenant: ({ db, id }) => db.reencryptTenant(id, { destroyFormerKeys: true }),
  trimTenant: ({ db, id }) => db.trimTenant(id, WHY),
  exportTenant: ({ db, id, scratch, round }) => db.exportTenant(id, join(scratch.folder, `export-${round}`)),
  importTenant: ({ db, id, scratch }) =>
    db.importTenant(join(scratch.folder, "export"), { key: db.verifierKey(), as: fresh(id) }),
  backup: ({ db, id, scratch, round }) =>
    db.backup({
      to: `file:${join(scratch.folder, `backup-${round}`)}`,
      keysTo: `file:${join(scratch.folder, `kept-${round}`)}`,
      tenants: [id],
    }),
  restoreTenant: ({ db, id, source, scratch }) =>
    db.restoreTenant({ from: `file:${join(scratch.folder, "backup")}`, tenant: source, as: fresh(id) }),
  eraseTenant: ({ db, id }) => db.eraseTenant(id, WHY),
};

/** Operations that make a tenant make it beside. */
const fresh = (id: TenantId): TenantId => TenantId(id + 10_000n);

async function fill(db: Kimberlite, id: TenantId): Promise<void> {
  await db.createTenant({ id, name: `tenant ${id}` });
  await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
  for (let n = 0; n < 12; n += 1) await db.insert(id, "t", { id: n, v: `row ${n} of ${id}`.repeat(20) });
}

const rows = async (db: Kimberlite, id: TenantId): Promise<unknown> =>
  (await db.query(id, "SELECT count(*) AS n FROM t"))[0]?.["n"];

async function codeOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
    return "done";
  } catch (error) {
    if (error instanceof KimberliteError) return error.code;
    throw error;
  }
}

/** Until the tenant has reopened after what broke under it. */
async function eventually(work: () => Promise<unknown>): Promise<string> {
  for (let tries = 0; ; tries += 1) {
    const code = await codeOf(work);
    if (code !== "overloaded" || tries === 20) return code;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function expectWhole(db: Kimberlite, id: TenantId): Promise<void> {
  expect(await rows(db, id)).toBe(12);
  expect((await db.verifyTenant(id)).ok).toBe(true);
}

describe("a disk that refuses in the middle of", () => {
  it.each(Object.keys(OPERATIONS))(
    "%s: it is told, nothing is lost, and asked again it is done",
    async (name) => {
      await using scratch = new Scratch();
      const planned = new Planned();
      createMasterKeyFile(join(scratch.folder, "own.key"));
      const disk = faultyDisk(systemDisk, planned.judge);
      const open = (): Promise<Kimberlite> => scratch.open({ disk, logSegmentBytes: 4_096 });
      let db = await open();
      const source = TenantId(9_000);
      for (const id of [BYSTANDER, source]) await fill(db, id);
      await db.exportTenant(source, join(scratch.folder, "export"));
      await db.backup({ to: `file:${join(scratch.folder, "backup")}` });
      const operation = OPERATIONS[name] as Operation;
      const chance = seeded(SEED);
      let calls = 0;
      for (let round = 0; round <= FAULTS; round += 1) {
        const id = TenantId(round + 1);
        await fill(db, id);
        const place = { db, scratch, id, source, round: `${round}` };
        if (round === 0) {
          // How many calls there are to fail.
          planned.count();
          await operation(place);
          calls = planned.calls;
          expect(calls).toBeGreaterThan(0);
          continue;
        }
        planned.fail(chance.below(calls), chance);
        const first = await codeOf(() => operation(place));
        const what = `seed ${SEED}, round ${round}: ${planned.failed ?? "nothing failed"}`;
        planned.count();
        expect([what, ["done", "disk_full", "disk_failed", "overloaded"]]).toEqual([
          what,
          expect.arrayContaining([first]),
        ]);
        expect([what, await rows(db, BYSTANDER)]).toEqual([what, 12]);
        if (round % 2 === 0) {
          await db.close();
          db = await open();
        }
        await expectAskedAgain({ ...place, db }, name, first, what);
      }
      await expectWhole(db, BYSTANDER);
      await db.close();
      db = await open();
      for (const { id, state } of await db.listTenants()) {
        if (state === "active" && id < 10_000n) await expectWhole(db, id);
        if (state !== "erased") continue;
        expect(fs.existsSync(scratch.path("tenants", id.toString()))).toBe(false);
        expect(fs.existsSync(scratch.keys(id))).toBe(false);
      }
      expect(systemDisk.list(scratch.path("imports"))).toEqual([]);
      expect(systemDisk.has(scratch.path("staging"))).toBe(false);
    },
    240_000,
  );

  async function expectAskedAgain(place: Place, name: string, first: string, what: string): Promise<void> {
    const { db, id, scratch, round } = place;
    const again = await eventually(() => (OPERATIONS[name] as Operation)(place));
    const doneAlready: Readonly<Record<string, string>> = {
      createTenant: "tenant_exists",
      importTenant: "tenant_exists",
      restoreTenant: "tenant_exists",
      eraseTenant: "tenant_erased",
      exportTenant: "destination_exists",
    };
    expect([what, ["done", doneAlready[name]]]).toEqual([what, expect.arrayContaining([again])]);
    if (
      first !== "done" &&
      name.endsWith("Tenant") &&
      ["createTenant", "importTenant", "restoreTenant"].includes(name)
    )
      expect([what, again]).toEqual([what, "done"]);
    if (name === "eraseTenant") {
      expect(await codeOf(() => db.query(id, "SELECT 1"))).toBe("tenant_erased");
      expect(fs.existsSync(scratch.path("tenants", id.toString()))).toBe(false);
      return;
    }
    await expectWhole(db, id);
    if (name === "importTenant" || name === "restoreTenant") expect(await rows(db, fresh(id))).toBe(12);
    if (name === "exportTenant") {
      const found = await verifyExport(join(scratch.folder, `export-${round}`), { key: db.verifierKey() });
      expect(found.tenant).toBe(id.toString());
    }
  }
});

describe("a process that is killed in the middle of the work of operators", () => {
  it("loses no tenant and no key, finishes what it had begun to erase, and leaves nothing half made", async () => {
    const folder = fs.mkdtempSync(join(tmpdir(), "kimberlite-lifecycle-"));
    try {
      createMasterKeyFile(join(folder, "a.key"));
      createMasterKeyFile(join(folder, "b.key"));
      const chance = seeded(SEED);
      const erased = new Set<string>();
      const made = new Set<string>();
      for (let life = 0; life < KILLS; life += 1) {
        const victim = new Victim(folder, `${life}`);
        for (const line of await victim.liveFor(200 + chance.below(2_500))) {
          const [what, id = ""] = line.split(" ");
          if (what === "made") made.add(id);
          if (what === "erased") erased.add(id);
        }
        await expectLeft(folder, { made, erased, seed: `seed ${SEED}, life ${life}` });
      }
    } finally {
      fs.rmSync(folder, { recursive: true, force: true });
    }
  });

  async function expectLeft(
    folder: string,
    wanted: {
      readonly made: ReadonlySet<string>;
      readonly erased: ReadonlySet<string>;
      readonly seed: string;
    },
  ): Promise<void> {
    const { made, erased, seed } = wanted;
    const dataDir = join(folder, "data");
    if (!fs.existsSync(join(dataDir, "kimberlite.json"))) return;
    const db = await openWithEither(folder);
    try {
      for (const { id, state } of await db.listTenants({ limit: 10_000 })) {
        const name = id.toString();
        if (erased.has(name)) expect([seed, id, state]).toEqual([seed, id, "erased"]);
        if (state === "erased") {
          expect([seed, fs.existsSync(join(dataDir, "tenants", name))]).toEqual([seed, false]);
          expect([seed, fs.existsSync(join(dataDir, "keys", `${name}.keys`))]).toEqual([seed, false]);
          continue;
        }
        expect([seed, id, state]).toEqual([seed, id, "active"]);
        const report = await db.verifyTenant(id);
        expect([seed, id, report.ok]).toEqual([seed, id, true]);
        if (made.has(name)) expect([seed, id, await rows(db, id)]).toEqual([seed, id, 12]);
      }
      const present = new Set((await db.listTenants({ limit: 10_000 })).map(({ id }) => id.toString()));
      for (const id of [...made, ...erased]) expect([seed, id, present.has(id)]).toEqual([seed, id, true]);
      for (const name of fs.readdirSync(join(dataDir, "tenants")))
        expect([seed, name, name === "0" || present.has(name)]).toEqual([seed, name, true]);
      expect(systemDisk.list(join(dataDir, "imports"))).toEqual([]);
    } finally {
      await db.close();
    }
  }
});

async function openWithEither(folder: string): Promise<Kimberlite> {
  const [a, b] = ["a.key", "b.key"].map((name) => masterKeyFile(join(folder, name)));
  const dataDir = join(folder, "data");
  return Kimberlite.open({
    dataDir,
    masterKey: a as never,
    otherMasterKeys: [b as never],
    journalFileBytes: 64 * 1024,
  });
}

class Victim {
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];

  constructor(folder: string, life: string) {
    const script = join(import.meta.dirname, "lifecycle-victim.ts");
    this.#process = spawn(process.execPath, ["--no-warnings", script, folder, life], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    createInterface({ input: this.#process.stdout as NodeJS.ReadableStream }).on("line", (line) =>
      this.#lines.push(line),
    );
  }

  /** Lets it work so long after it has opened, then kills it. @returns what it said */
  async liveFor(ms: number): Promise<readonly string[]> {
    const ended = new Promise<void>((resolve) => this.#process.once("close", () => resolve()));
    for (let waited = 0; this.#lines.length === 0 && waited < 60_000; waited += 20)
      await new Promise((resolve) => setTimeout(resolve, 20));
    await new Promise((resolve) => setTimeout(resolve, ms));
    this.#process.kill("SIGKILL");
    await ended;
    return this.#lines;
  }
}
