/**
 * I-2 on a disk that refuses: short writes, failed writes and syncs, a full disk, a failed rename, failed reads, and
 * seeded sequences of them. A caller learns `disk_full` or `disk_failed`; nothing that was refused is there, also after
 * a restart; nothing acknowledged is lost; the same process serves again once the disk does; other tenants go on.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { diskError, systemDisk } from "../../src/host/disk.ts";
import { type Failpoint, onFailpoint } from "../../src/host/failpoint.ts";
import {
  createMasterKeyFile,
  Kimberlite,
  KimberliteError,
  masterKeyFile,
  TenantId,
} from "../../src/index.ts";
import { type DiskCall, faultyDisk, type Interruption, refusing } from "../../src/testing/faulty-disk.ts";
import { seeded } from "../../src/testing/seeded.ts";

const SOAK = process.env["KIMBERLITE_SOAK"] !== undefined;
const FIRST_SEED = Number(process.env["KIMBERLITE_SEED"] ?? (SOAK ? Date.now() % 1_000_000 : 1));
const TENANTS = [1, 2, 3].map((id) => TenantId(id));
const [ONE, TWO, THREE] = TENANTS as [TenantId, TenantId, TenantId];

let folder: string;
let fault: ((call: DiskCall) => Interruption | undefined) | undefined;
let db: Kimberlite;

function open(): Promise<Kimberlite> {
  return Kimberlite.open({
    dataDir: join(folder, "data"),
    masterKey: masterKeyFile(join(folder, "master.key")),
    disk: faultyDisk(systemDisk, (call) => fault?.(call)),
    logSegmentBytes: 8 * 1024,
    journalFileBytes: 8 * 1024,
  });
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "kimberlite-faults-"));
  createMasterKeyFile(join(folder, "master.key"));
  fault = undefined;
  db = await open();
  for (const id of TENANTS) {
    await db.createTenant({ id, name: `tenant ${id}` });
    await db.execute(id, "CREATE TABLE rows (n INTEGER PRIMARY KEY, body TEXT)");
  }
});

afterEach(async () => {
  fault = undefined;
  onFailpoint(undefined);
  await db.close().catch(() => undefined);
  rmSync(folder, { recursive: true, force: true });
});

const DISK_CODES = ["disk_full", "disk_failed"];

/** @returns "done", or the error's code */
async function insert(id: TenantId, n: number, bytes = 10): Promise<string> {
  try {
    await db.insert(id, "rows", { n, body: "z".repeat(bytes) });
    return "done";
  } catch (error) {
    if (!(error instanceof KimberliteError)) throw error;
    return error.code;
  }
}

async function rowsOf(id: TenantId): Promise<number[]> {
  return (await db.query(id, "SELECT n FROM rows ORDER BY n")).map((row) => row["n"] as number);
}

/** The disk serves again: so does the process, and a later one finds the same. */
async function expectRows(expected: ReadonlyMap<TenantId, readonly number[]>): Promise<void> {
  fault = undefined;
  for (const [id, rows] of expected) {
    expect(await insert(id, 1_000_000)).toBe("done");
    expect(await rowsOf(id)).toEqual([...rows, 1_000_000]);
  }
  await db.close();
  db = await open();
  for (const [id, rows] of expected) {
    expect(await rowsOf(id)).toEqual([...rows, 1_000_000]);
    expect((await db.verifyTenant(id)).reason).toBeUndefined();
  }
}

function at(operation: DiskCall["operation"], path: string, interruption: (call: DiskCall) => Interruption) {
  return (call: DiskCall): Interruption | undefined =>
    call.operation === operation && call.path.includes(path) ? interruption(call) : undefined;
}

const SHORT_AND_FULL = (call: DiskCall): Interruption =>
  refusing("ENOSPC", Math.floor((call.bytes ?? 0) / 2));

describe("the journal's disk refuses", () => {
  it.each<[string, string, (call: DiskCall) => Interruption]>([
    ["a write", "disk_failed", () => refusing("EIO")],
    ["a write, for it is full", "disk_full", () => refusing("ENOSPC")],
    ["a write, for its quota is full", "disk_full", () => refusing("EDQUOT")],
    ["the rest of a write", "disk_full", SHORT_AND_FULL],
    ["a sync, after the whole write", "disk_failed", (call) => refusing("EIO", call.bytes)],
  ])("%s", async (_, code, interruption) => {
    expect(await insert(ONE, 1)).toBe("done");
    fault = at("write", ".jnl", interruption);
    expect(await insert(ONE, 2)).toBe(code);
    expect(await Promise.all([insert(ONE, 3), insert(TWO, 3)])).toEqual([code, code]);
    expect(await rowsOf(ONE)).toEqual([1]);
    await expectRows(
      new Map([
        [ONE, [1]],
        [TWO, []],
      ]),
    );
  });

  it("a write that is the last before a close", async () => {
    fault = at("write", ".jnl", (call) => refusing("EIO", call.bytes));
    expect(await insert(ONE, 1)).toBe("disk_failed");
    fault = undefined;
    await db.close();
    db = await open();
    expect(await rowsOf(ONE)).toEqual([]);
  });

  it("the frame of a schema change, which is undone with its rows", async () => {
    fault = at("write", ".jnl", () => refusing("EIO"));
    await expect(
      db.transaction(ONE, ["CREATE TABLE more (x)", "INSERT INTO more VALUES (1)"]),
    ).rejects.toMatchObject({ code: "disk_failed" });
    fault = undefined;
    await expect(db.query(ONE, "SELECT * FROM more")).rejects.toMatchObject({ code: "invalid_sql" });
    await db.transaction(ONE, ["CREATE TABLE more (x)", "INSERT INTO more VALUES (2)"]);
    expect(await db.query(ONE, "SELECT x FROM more")).toEqual([{ x: 2 }]);
  });

  it("the syncs of segments, when it is the other file's turn", async () => {
    fault = at("sync", ".seg", () => refusing("EIO"));
    const done: number[] = [];
    const codes = new Set<string>();
    for (let n = 1; n <= 40; n += 1) {
      const outcome = await insert(ONE, n, 700);
      if (outcome === "done") done.push(n);
      else codes.add(outcome);
    }
    expect(done.length).toBeGreaterThan(4);
    expect([...codes]).toEqual(["disk_failed"]);
    await expectRows(new Map([[ONE, done]]));
  });
});

describe("a segment's disk refuses", () => {
  it.each<[string, (call: DiskCall) => Interruption | undefined]>([
    ["a write", at("write", "/tenants/1/log/", () => refusing("EIO"))],
    ["half of a write", at("write", "/tenants/1/log/", SHORT_AND_FULL)],
    ["every opening of it", at("open", "/tenants/1/log/", () => refusing("EMFILE"))],
  ])("%s: the commit stands, for the journal has it, and the others do not notice", async (_, refusal) => {
    fault = refusal;
    const done: number[] = [];
    // Until the journal would have to forget what the segment does not have: from then on the node waits for the disk.
    for (let n = 1; n <= 5; n += 1) {
      const outcome = await insert(ONE, n, 900);
      if (outcome === "done") done.push(n);
      else expect([...DISK_CODES, "overloaded"]).toContain(outcome);
      expect(await insert(TWO, n)).toBe("done");
    }
    expect(await rowsOf(TWO)).toHaveLength(5);
    await expectRows(
      new Map([
        [ONE, done],
        [TWO, await rowsOf(TWO)],
      ]),
    );
  });

  it.each([
    ["syncs", at("sync", "/tenants/1/log/", () => refusing("EIO"))],
    ["writes", at("write", "/tenants/1/log/", () => refusing("EIO"))],
    ["openings", at("open", "/tenants/1/log/", () => refusing("EMFILE"))],
  ] as const)(
    "%s for good, over many turns of the journal and restarts: no other tenant is stopped",
    async (_, refusal) => {
      const done = new Map<TenantId, number[]>([
        [ONE, []],
        [TWO, []],
      ]);
      let n = 0;
      const writeBoth = async (): Promise<void> => {
        n += 1;
        const first = insert(ONE, n, 900);
        expect(await insert(TWO, n, 900)).toBe("done");
        done.get(TWO)?.push(n);
        const outcome = await first;
        if (outcome === "done") done.get(ONE)?.push(n);
        else expect([...DISK_CODES, "overloaded"]).toContain(outcome);
      };
      await writeBoth();
      fault = refusal;
      for (let round = 0; round < 3; round += 1) {
        for (let each = 0; each < 25; each += 1) await writeBoth();
        await db.close();
        db = await open();
      }
      expect(done.get(ONE)?.length).toBeLessThan(40);
      expect(await rowsOf(TWO)).toEqual(done.get(TWO));
      await expectRows(done);
    },
  );

  it("a write, and the process ends before it served again", async () => {
    fault = at("write", "/tenants/1/log/", SHORT_AND_FULL);
    expect(await insert(ONE, 1)).toBe("done");
    await db.close().catch(() => undefined);
    fault = undefined;
    db = await open();
    await expectRows(new Map([[ONE, [1]]]));
  });

  it("the first of a new tenant", async () => {
    const FOUR = TenantId(4);
    await db.createTenant({ id: FOUR, name: "four" });
    const make = () => db.execute(FOUR, "CREATE TABLE rows (n INTEGER PRIMARY KEY, body TEXT)");
    fault = at("replaceFile", "/tenants/4/log/", () => refusing("ENOSPC"));
    await expect(make()).rejects.toMatchObject({ code: "disk_full" });
    fault = at("write", ".jnl", () => refusing("ENOSPC"));
    await expect(make()).rejects.toMatchObject({ code: "disk_full" });
    fault = undefined;
    await db.close();
    db = await open();
    await make();
    await expectRows(new Map([[FOUR, []]]));
  });

  it("the catalogue's, which is opened anew for the next change", async () => {
    fault = at("write", "/tenants/0/log/", SHORT_AND_FULL);
    await db.createTenant({ id: TenantId(4), name: "four" });
    await expect(db.createTenant({ id: TenantId(5), name: "five" })).rejects.toMatchObject({
      code: "disk_full",
    });
    expect(await insert(ONE, 1)).toBe("done");
    expect(db.verifierKey()).toContain("kimberlite/");
    fault = undefined;
    await db.createTenant({ id: TenantId(5), name: "five" });
    await db.close();
    db = await open();
    expect((await db.listTenants()).map((tenant) => Number(tenant.id))).toEqual([1, 2, 3, 4, 5]);
  });

  it("a read", async () => {
    expect(await insert(ONE, 1)).toBe("done");
    fault = at("read", "/tenants/1/log/", () => refusing("EIO"));
    await expect(db.verifyTenant(ONE)).rejects.toMatchObject({ code: "disk_failed" });
    expect(await insert(TWO, 1)).toBe("done");
    await expectRows(
      new Map([
        [ONE, [1]],
        [TWO, [1]],
      ]),
    );
  });
});

describe("the key store's disk refuses", () => {
  it.each<[string, string, (call: DiskCall) => Interruption | undefined]>([
    ["a new tenant's keys", "disk_full", at("replaceFile", "/keys/", () => refusing("ENOSPC"))],
    ["a rotation's", "disk_failed", at("replaceFile", "/keys/", () => refusing("EIO"))],
  ])("%s", async (_, code, refusal) => {
    expect(await insert(ONE, 1)).toBe("done");
    fault = refusal;
    await expect(db.createTenant({ id: TenantId(4), name: "four" })).rejects.toMatchObject({ code });
    await expect(db.rotateDek(ONE)).rejects.toMatchObject({ code });
    expect(await insert(ONE, 2)).toBe("done");
    fault = undefined;
    expect(await db.rotateDek(ONE)).toBe(2);
    await db.createTenant({ id: TenantId(4), name: "four" });
    await expectRows(new Map([[ONE, [1, 2]]]));
  });

  it.each<Failpoint>([
    "replace-before-link",
    "replace-before-rename",
    "replace-after-rename",
    "replace-after-overwrite",
  ])("a rotation at %s", async (where) => {
    expect(await insert(ONE, 1)).toBe("done");
    onFailpoint((name) => {
      if (name === where) throw diskError(Object.assign(new Error("planned by a test"), { code: "EIO" }));
    });
    await expect(db.rotateDek(ONE)).rejects.toMatchObject({ code: "disk_failed" });
    expect(await insert(ONE, 2)).toBe("done");
    onFailpoint(undefined);
    await db.rotateDek(ONE);
    expect(await insert(ONE, 3)).toBe("done");
    await expectRows(new Map([[ONE, [1, 2, 3]]]));
    expect(systemDisk.list(join(folder, "data", "keys")).filter((name) => !name.endsWith(".keys"))).toEqual(
      [],
    );
  });
});

describe("a disk that refuses now and then", () => {
  const OPERATIONS: readonly DiskCall["operation"][] = [
    "write",
    "write",
    "write",
    "sync",
    "open",
    "read",
    "replaceFile",
    "syncFolder",
    "makeFolder",
  ];
  const PLACES = [".jnl", ".seg", "/tenants/1/", "/tenants/2/", "/tenants/0/", "/keys/", "/"];

  for (let index = 0; index < (SOAK ? 300 : 10); index += 1) {
    const seed = FIRST_SEED + index;
    it(`loses nothing and invents nothing (seed ${seed})`, async () => {
      const chance = seeded(seed);
      const done = new Map<TenantId, number[]>([
        [ONE, []],
        [TWO, []],
        [THREE, []],
      ]);
      for (let n = 1; n <= 150; n += 1) {
        if (chance.oneIn(12)) {
          const operation = OPERATIONS[chance.below(OPERATIONS.length)] as DiskCall["operation"];
          const place = PLACES[chance.below(PLACES.length)] as string;
          const errno = chance.oneIn(2) ? "ENOSPC" : "EIO";
          let left = 1 + chance.below(6);
          fault = (call) => {
            if (call.operation !== operation || !call.path.includes(place) || left === 0) return undefined;
            left -= 1;
            return refusing(errno, operation === "write" ? chance.below((call.bytes ?? 0) + 1) : undefined);
          };
        }
        const several = Array.from({ length: 1 + chance.below(3) }, async (_, part) => {
          const id = TENANTS[chance.below(3)] as TenantId;
          const outcome = await insert(id, n * 10 + part, chance.below(900));
          if (outcome === "done") done.get(id)?.push(n * 10 + part);
          else expect([...DISK_CODES, "overloaded"], `seed ${seed}`).toContain(outcome);
        });
        await Promise.all(several);
        if (chance.oneIn(25))
          await db
            .rotateDek(TENANTS[chance.below(3)] as TenantId)
            .catch((error: KimberliteError) => expect(DISK_CODES).toContain(error.code));
        if (chance.oneIn(40)) {
          await db.close().catch(() => undefined);
          fault = undefined;
          db = await open();
        }
      }
      fault = undefined;
      // A tenant that could not follow is opened anew by its next call.
      for (const id of TENANTS) await expect.poll(() => rowsOf(id).catch(() => undefined)).toBeDefined();
      await expectRows(new Map([...done].map(([id, rows]) => [id, rows.toSorted((a, b) => a - b)])));
    });
  }
});
