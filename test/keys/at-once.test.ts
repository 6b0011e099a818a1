/**
 * I-5 and I-2 for what operators do at once: pairs of operations on one tenant, the second begun some turns of the event
 * loop after the first. Whatever the order, what was acknowledged is in the catalogue, now and after a restart; what an
 * erasure has ended leaves nothing; what is refused is refused by a code.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { restoreKeys } from "../../src/backup/backup-keys.ts";
import { directoryTarget } from "../../src/backup/target.ts";
import { systemDisk } from "../../src/host/disk.ts";
import {
  createMasterKeyFile,
  Duration,
  type Kimberlite,
  KimberliteError,
  type MasterKeyProvider,
  masterKeyFile,
  TenantId,
} from "../../src/index.ts";
import { filesBelow, Scratch } from "../isolation/scratch.ts";

const WHY = { reason: "at once", actor: "tester" };
/** Turns of the event loop that the second operation waits. */
const HEAD_STARTS = process.env["KIMBERLITE_SOAK"] === undefined ? [0, 5] : [0, 1, 2, 5, 10, 20, 50];

type Work = () => Promise<unknown>;

/** "done", or the code of a refusal; anything else than a refusal of the family is a bug. */
async function outcome(work: Work): Promise<string> {
  try {
    await work();
    return "done";
  } catch (error) {
    if (error instanceof KimberliteError) return error.code;
    throw error;
  }
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** Both at once, the second with a delay. */
function atOnce(first: Work, second: Work, delay: number): Promise<[string, string]> {
  return Promise.all([outcome(first), turns(delay).then(() => outcome(second))]);
}

let nextId = 0;

async function newTenant(db: Kimberlite, rows = 20): Promise<TenantId> {
  nextId += 1;
  const id = TenantId(nextId);
  await db.createTenant({ id, name: `tenant ${id}` });
  await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
  for (let n = 0; n < rows; n += 5)
    await db.insert(
      id,
      "t",
      Array.from({ length: 5 }, (_, index) => ({ id: n + index, v: `row of ${id}` })),
    );
  return id;
}

const catalogue = async (db: Kimberlite): Promise<unknown> => {
  const entries = await db.listTenants();
  // What the node last saw of a tenant's own master key is of the process.
  return entries.map((entry) => ({ ...entry, keyAccess: undefined, legalHolds: [...entry.legalHolds] }));
};

/** What is in memory is what a restart finds, and no tenant that lives lost its rows or keys. */
async function expectSameAfterRestart(
  scratch: Scratch,
  db: Kimberlite,
  options: Parameters<Scratch["open"]>[0] = {},
): Promise<Kimberlite> {
  const before = await catalogue(db);
  await db.close();
  const again = await scratch.open(options);
  expect(await catalogue(again)).toEqual(before);
  for (const { id, state } of await again.listTenants()) {
    if (state === "active") expect((await again.verifyTenant(id)).ok).toBe(true);
    if (state === "erased") expectNothingOf(scratch, id);
  }
  return again;
}

function expectNothingOf(scratch: Scratch, id: TenantId): void {
  expect(fs.existsSync(scratch.path("tenants", id.toString()))).toBe(false);
  expect(fs.existsSync(scratch.keys(id))).toBe(false);
}

function keyUri(scratch: Scratch, name: string): string {
  const path = join(scratch.folder, name);
  createMasterKeyFile(path);
  return `file:${path}`;
}

describe("an erasure and", () => {
  const erase = (db: Kimberlite, id: TenantId) => (): Promise<unknown> => db.eraseTenant(id, WHY);

  it("what forbids it: one of the two is refused, whichever was first", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    const year = Duration.days(365);
    for (const delay of HEAD_STARTS) {
      const forbidding: ((id: TenantId) => Promise<unknown>)[] = [
        (id) => db.placeLegalHold(id, { ...WHY, name: "case" }),
        (id) => db.setRetention(id, year, { mode: "compliance" }),
      ];
      for (const forbid of forbidding) {
        for (const erasureFirst of [true, false]) {
          const id = await newTenant(db, 5);
          const works: [Work, Work] = [erase(db, id), () => forbid(id)];
          const found = await atOnce(...(erasureFirst ? works : (works.reverse() as [Work, Work])), delay);
          const [erased, forbidden] = erasureFirst ? found : found.reverse();
          const refusal = erased === "done" ? forbidden : erased;
          expect([erased, forbidden]).toContain("done");
          expect(["tenant_erasing", "tenant_erased", "legal_hold", "retention_not_over"]).toContain(refusal);
          const { state } = (await db.listTenants({ limit: 10_000 })).find((one) => one.id === id) ?? {};
          expect(state).toBe(erased === "done" ? "erased" : "active");
          if (erased !== "done") expect(await db.refusedErasures(id)).toHaveLength(1);
        }
      }
    }
    await expectSameAfterRestart(scratch, db);
  });

  it("whatever else is done to the tenant: it ends, and nothing of the tenant is left or comes back", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open({ logSegmentBytes: 4_096 });
    const place = {
      to: `file:${join(scratch.folder, "backups")}`,
      keysTo: `file:${join(scratch.folder, "kept")}`,
    };
    const own = keyUri(scratch, "own.key");
    const others: ((id: TenantId, n: number) => Promise<unknown>)[] = [
      (id) => db.suspendTenant(id, WHY),
      (id) => db.setQuota(id, { maxOpsPerSec: 1_000 }),
      (id) => db.rotateDek(id),
      (id) => db.rotateKek(id),
      (id) => db.setTenantMasterKey(id, own),
      (id) => db.reencryptTenant(id, { destroyFormerKeys: true }),
      (id) => db.trimTenant(id, { ...WHY }),
      (id, n) => db.exportTenant(id, join(scratch.folder, `export-${id}-${n}`)),
      () => db.backup(place),
      (id) => db.verifyTenant(id),
      (id) => db.rebuildProjection(id),
      (id) => db.insert(id, "t", { id: 1_000, v: "late" }),
      (id) => db.query(id, "SELECT count(*) FROM t", [], { at: 2 }),
      (id) => db.transaction(id, async (tx) => tx.execute("DELETE FROM t")),
      (id) => Array.fromAsync(db.audit(id)),
      (id) => db.eraseTenant(id, WHY),
    ];
    for (const [n, other] of others.entries()) {
      const delay = [0, 1, 4, 12][n % 4] as number;
      const id = await newTenant(db, 10);
      const found = await atOnce(() => other(id, n), erase(db, id), delay);
      expect([n, found]).toEqual([n, expect.toSatisfy((both: string[]) => both.includes("done"))]);
      const allowed = ["done", "tenant_erasing", "tenant_erased", "operation_running", "overloaded"];
      expect([n, found.filter((one) => !allowed.includes(one))]).toEqual([n, []]);
      expectNothingOf(scratch, id);
    }
    const again = await expectSameAfterRestart(scratch, db);
    for (const { state } of await again.listTenants()) expect(state).toBe("erased");
    // A backup that ended after an erasure has neither the tenant nor its keys.
    expect(
      filesBelow(join(scratch.folder, "kept", "keys")).map((path) => path.split("/").at(-1)?.split("-")[0]),
    ).toEqual(["0"]);
    const [last] = (await again.backups(place.to)).slice(-1);
    expect(last).toBeDefined();
  });

  it("says in its certificate which versions of the DEK it destroyed, also one that was made meanwhile", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    for (const delay of HEAD_STARTS) {
      const id = await newTenant(db, 5);
      let version = 1;
      await atOnce(
        erase(db, id),
        async () => {
          version = await db.rotateDek(id);
        },
        delay,
      );
      const { keysDestroyed } = await db.erasureCertificate(id);
      expect(keysDestroyed.deks).toContain(version);
      expect([[1], [1, 2]]).toContainEqual(keysDestroyed.deks);
    }
  });

  it("a restore of the tenant under another id: the copy is not made once the erasure has begun", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    const to = `file:${join(scratch.folder, "backups")}`;
    for (const delay of [0, 4, 40]) {
      const id = await newTenant(db, 5);
      await db.backup({ to, tenants: [id] });
      nextId += 1;
      const as = TenantId(nextId);
      const [restored, erased] = await atOnce(
        () => db.restoreTenant({ from: to, tenant: id, as, name: "copy" }),
        () => db.eraseTenant(id, WHY),
        delay,
      );
      expect(erased).toBe("done");
      if (restored !== "done") {
        expect(["tenant_erasing", "tenant_erased"]).toContain(restored);
        expectNothingOf(scratch, as);
        expect(fs.existsSync(scratch.path("imports", as.toString()))).toBe(false);
        await db.createTenant({ id: as, name: "the id is free" });
      } else expect(await db.query(as, "SELECT count(*) AS n FROM t")).toEqual([{ n: 5 }]);
    }
  });
});

describe("changes of one tenant at once", () => {
  it("are all there afterwards, and after a restart", async () => {
    await using scratch = new Scratch();
    let db = await scratch.open();
    const own = keyUri(scratch, "own.key");
    const id = await newTenant(db);
    for (let round = 0; round < 3; round += 1) {
      const [days, ops] = [round + 1, 100 + round];
      const found = await Promise.all(
        [
          () => db.setRetention(id, Duration.days(days)),
          () => db.setQuota(id, { maxOpsPerSec: ops }),
          () => db.setTenantMasterKey(id, round % 2 === 0 ? own : null),
          () => db.placeLegalHold(id, { ...WHY, name: `a${round}` }),
          () => db.placeLegalHold(id, { ...WHY, name: `b${round}` }),
          () => db.suspendTenant(id),
          () => db.insert(id, "t", { id: 1_000 + round }),
        ].map(outcome),
      );
      expect(found.slice(0, -1)).toEqual(Array(6).fill("done"));
      await db.resumeTenant(id);
      const entry = (await db.listTenants())[0];
      expect(entry).toMatchObject({ retentionMs: days * 86_400_000, quota: { maxOpsPerSec: ops } });
      expect(entry?.masterKey).toBe(round % 2 === 0 ? own : undefined);
      expect(entry?.legalHolds).toHaveLength(2 * (round + 1));
      db = await expectSameAfterRestart(scratch, db);
    }
  });

  it("of the same kind are one after the other: one hold of a name, one release of it", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    const id = await newTenant(db);
    const hold = { ...WHY, name: "case" };
    const placed = await Promise.all(Array.from({ length: 4 }, () => db.placeLegalHold(id, hold)));
    expect(new Set(placed.map(({ placedAtUs }) => placedAtUs)).size).toBe(1);
    const released = await Promise.all(
      Array.from({ length: 3 }, () => outcome(() => db.releaseLegalHold(id, hold))),
    );
    expect(released.sort()).toEqual(["done", "invalid_argument", "invalid_argument"]);
    const done = await Array.fromAsync(db.nodeAudit());
    const count = (action: string): number =>
      done.filter((event) => event.action === action && event.outcome === "done").length;
    expect([count("hold.place"), count("hold.release")]).toEqual([1, 1]);
    await expectSameAfterRestart(scratch, db);
  });

  it("to two master keys of its own end under the one that the catalogue names", async () => {
    await using scratch = new Scratch();
    let db = await scratch.open();
    const uris = [keyUri(scratch, "one.key"), keyUri(scratch, "two.key"), null];
    const id = await newTenant(db);
    for (let round = 0; round < 3; round += 1) {
      const found = await Promise.all(uris.map((uri) => outcome(() => db.setTenantMasterKey(id, uri))));
      expect(found).toEqual(["done", "done", "done"]);
      uris.push(uris.shift() as string | null);
      db = await expectSameAfterRestart(scratch, db);
      expect(await db.query(id, "SELECT count(*) AS n FROM t")).toEqual([{ n: 20 }]);
    }
  });
});

describe("two that make a tenant of one id at once", () => {
  it("make one, whole; the other is refused", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    const source = await newTenant(db);
    const to = `file:${join(scratch.folder, "backups")}`;
    const dir = join(scratch.folder, "export");
    await db.exportTenant(source, dir);
    await db.backup({ to });
    const key = db.verifierKey();
    const makers: ((as: TenantId) => Promise<unknown>)[] = [
      (as) => db.createTenant({ id: as, name: "made" }),
      (as) => db.importTenant(dir, { key, as }),
      (as) => db.restoreTenant({ from: to, tenant: source, as, name: "restored" }),
    ];
    for (const [first, one] of makers.entries()) {
      for (const other of makers.slice(first)) {
        nextId += 1;
        const as = TenantId(nextId);
        const found = await Promise.all([outcome(() => one(as)), outcome(() => other(as))]);
        expect(found.sort()).toEqual(["done", "tenant_exists"]);
        await db.execute(as, "CREATE TABLE more (id INTEGER PRIMARY KEY)");
      }
    }
    await expectSameAfterRestart(scratch, db);
    expect(filesBelow(scratch.path("imports"))).toEqual([]);
    expect(fs.existsSync(scratch.path("staging"))).toBe(false);
  });
});

/** A master key in a file that answers after some turns, as one in a KMS does. */
function slowKey(path: string, wait: number): MasterKeyProvider {
  const inner = masterKeyFile(path);
  return {
    uri: `slow:${path}`,
    get keyId() {
      return inner.keyId;
    },
    wrap: async (key, context) => {
      const copy = Buffer.from(key);
      await turns(wait);
      return inner.wrap(copy, context);
    },
    unwrap: async (wrapped, context) => {
      await turns(wait);
      return inner.unwrap(wrapped, context);
    },
    close: () => inner.close(),
  };
}

describe("a rotation of the master key and", () => {
  it("whatever is done to tenants meanwhile: afterwards the former key opens nothing, the new one all", async () => {
    await using scratch = new Scratch();
    const own = keyUri(scratch, "own.key");
    let path = scratch.masterKeyPath;
    let db = await scratch.open({ masterKey: slowKey(path, 7), maxOpenTenants: 4 });
    const lasting = [];
    for (let n = 0; n < 5; n += 1) lasting.push(await newTenant(db, 5));
    const [a, b, c, d, e] = lasting as [TenantId, TenantId, TenantId, TenantId, TenantId];
    await db.setTenantMasterKey(d, own);
    for (const [round, delay] of [0, 12].entries()) {
      const doomed = await newTenant(db, 5);
      const made = [1, 2, 3].map((n) => TenantId(1_000 * (round + 1) + n));
      path = join(scratch.folder, `master-${round}.key`);
      createMasterKeyFile(path);
      const to = slowKey(path, 3);
      const meanwhile: Work[] = [
        () => db.rotateKek(a),
        () => db.rotateDek(b),
        () => db.setTenantMasterKey(c, round % 2 === 0 ? own : null),
        () => db.setTenantMasterKey(d, round % 2 === 0 ? null : own),
        () => db.eraseTenant(doomed, WHY),
        () => db.insert(e, "t", { id: 1_000 + round }),
        ...made.map((id) => () => db.createTenant({ id, name: "made meanwhile" })),
        async () => {
          await turns(3);
          await db.rotateKek(e);
        },
      ];
      const [rotated, ...others] = await Promise.all([
        outcome(() => db.rotateMasterKey(to, WHY)),
        ...meanwhile.map((work, index) => turns(delay + index).then(() => outcome(work))),
      ]);
      expect([rotated, ...others]).toEqual(Array(others.length + 1).fill("done"));
      const present = to.keyId;
      for (const { id, state } of await db.listTenants()) {
        if (state !== "active") continue;
        const held = (await db.describeTenant(id)).masterKey;
        const wanted = held === undefined ? present : masterKeyFile(held.slice("file:".length)).keyId;
        expect([id, (await db.keys(id)).masterKeyId]).toEqual([id, wanted]);
      }
      db = await expectSameAfterRestart(scratch, db, { masterKey: slowKey(path, 1), maxOpenTenants: 4 });
      for (const id of made) await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    }
  });

  it("a second one: it is refused while the first is under way", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    const id = await newTenant(db);
    const paths = ["x.key", "y.key"].map((name) => join(scratch.folder, name));
    for (const path of paths) createMasterKeyFile(path);
    const [x, y] = paths.map((path) => slowKey(path, 5)) as [MasterKeyProvider, MasterKeyProvider];
    const found = await atOnce(
      () => db.rotateMasterKey(x),
      () => db.rotateMasterKey(y),
      2,
    );
    expect(found).toEqual(["done", "operation_running"]);
    expect((await db.keys(id)).masterKeyId).toBe(x.keyId);
    await expectSameAfterRestart(scratch, db, { masterKey: masterKeyFile(paths[0] as string) });
  });
});

describe("work on one tenant's files at once", () => {
  it("is one after the other, and what a hold or a longer retention forbids is not trimmed", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open({ logSegmentBytes: 4_096 });
    for (const delay of HEAD_STARTS) {
      const id = await newTenant(db, 40);
      const works: Work[] = [
        () => db.trimTenant(id, WHY),
        () => db.reencryptTenant(id, { destroyFormerKeys: true }),
        () => db.rotateDek(id),
        () => db.reencryptTenant(id),
        () => db.rebuildProjection(id),
        () => db.backup({ to: `file:${join(scratch.folder, "backups")}`, tenants: [id] }),
      ];
      const found = await Promise.all(
        works.map((work, index) => turns(index * delay).then(() => outcome(work))),
      );
      for (const one of found) expect(["done", "overloaded"]).toContain(one);
      expect((await db.verifyTenant(id)).ok).toBe(true);
      expect(await db.query(id, "SELECT count(*) AS n FROM t")).toEqual([{ n: 40 }]);

      const held = await newTenant(db, 40);
      const [trimmed, placed] = await atOnce(
        () => db.trimTenant(held, WHY),
        () => db.placeLegalHold(held, { ...WHY, name: "case" }),
        delay,
      );
      expect(placed).toBe("done");
      expect(["done", "legal_hold"]).toContain(trimmed);
      const { firstOffset } = await db.describeTenant(held);
      // Either all of it was before the hold, or none: with a hold, no key that opens copies is destroyed any more.
      const versions = (await db.keys(held)).deks.map(({ version }) => version);
      if (trimmed === "legal_hold") expect(versions[0]).toBe(1);
      else expect(firstOffset).toBeGreaterThan(0n);
    }
    await expectSameAfterRestart(scratch, db);
  });

  it("two backups of the keys into one place leave an index that restores", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    const id = await newTenant(db);
    const [to, keysTo] = ["backups", "kept"].map((name) => join(scratch.folder, name)) as [string, string];
    const backUp = (): Promise<unknown> => db.backup({ to: `file:${to}`, keysTo: `file:${keysTo}` });
    for (const delay of HEAD_STARTS) {
      const found = await Promise.all([
        outcome(backUp),
        turns(delay).then(() => outcome(() => db.rotateKek(id))),
        turns(2 * delay).then(() => outcome(backUp)),
      ]);
      expect(found).toEqual(["done", "done", "done"]);
      const into = join(scratch.folder, `keys-${delay}`);
      fs.mkdirSync(into);
      const pathOf = (file: string): string => join(into, file);
      await restoreKeys(directoryTarget(keysTo, systemDisk), () => true, { disk: systemDisk, pathOf });
      expect(fs.readFileSync(pathOf(`${id}.keys`))).toEqual(fs.readFileSync(scratch.keys(id)));
    }
  });
});
