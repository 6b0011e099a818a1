/**
 * I-7: a quota is never exceeded: log bytes to the byte, projection bytes to the page, the rate to the token, operations
 * at once to the one; also right after a restart and a rebuild. A tenant at its limit still reads, and slows no other.
 */
import * as fs from "node:fs";
import { describe, expect, it } from "vitest";
import { type Clock, type Kimberlite, KimberliteError, TenantId, type TenantQuota } from "../../src/index.ts";
import { filesBelow, Scratch } from "../isolation/scratch.ts";
import { failureOf } from "../tamper/expectations.ts";

const A = TenantId(1);
const B = TenantId(2);

/** A clock that moves when the test says so. */
function handClock(): Clock & { nowMs: number } {
  const clock = { nowMs: 1_000, wallTimeUs: () => 1_700_000_000_000_000n, monotonicMs: () => clock.nowMs };
  return clock;
}

async function tenants(db: Kimberlite): Promise<void> {
  for (const id of [A, B]) {
    await db.createTenant({ id, name: `tenant ${id}` });
    await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
  }
}

const bytesOnDisk = (folder: string): number =>
  filesBelow(folder).reduce((sum, path) => sum + fs.statSync(path).size, 0);
const projectionFile = (scratch: Scratch): number =>
  filesBelow(scratch.projection(A))
    .filter((path) => path.endsWith(".db"))
    .reduce((sum, path) => sum + fs.statSync(path).size, 0);

async function expectOver(policy: keyof TenantQuota, work: () => Promise<unknown>): Promise<KimberliteError> {
  const failure = await failureOf(work);
  expect(failure).toMatchObject({ code: "quota_exceeded", detail: { policy } });
  return failure;
}

/** Bytes that one more insert of a blob of this length adds to the log. */
async function costOf(db: Kimberlite, length: number): Promise<number> {
  const before = (await db.describeTenant(A)).logBytes;
  await db.insert(A, "t", { v: Buffer.alloc(length) });
  return (await db.describeTenant(A)).logBytes - before;
}

describe("maxLogBytes", () => {
  it("is reached to the byte, and not passed by one", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await tenants(db);
    for (const length of [100, 1_000, 5_000]) {
      const cost = await costOf(db, length);
      const used = (await db.describeTenant(A)).logBytes;
      const same = (): Promise<unknown> => db.insert(A, "t", { v: Buffer.alloc(length) });
      await db.setQuota(A, { maxLogBytes: used + cost - 1 });
      const failure = await expectOver("maxLogBytes", same);
      expect(failure.detail).toMatchObject({ tenant: A, limit: used + cost - 1 });
      expect((await db.describeTenant(A)).logBytes).toBe(used);
      await db.setQuota(A, { maxLogBytes: used + cost });
      await same();
      expect((await db.describeTenant(A)).logBytes).toBe(used + cost);
      expect(bytesOnDisk(scratch.logFolder(A))).toBe(used + cost);
      await expectOver("maxLogBytes", () => db.execute(A, "DELETE FROM t WHERE id = 1"));
      await db.setQuota(A, {});
    }
  });

  it("holds for every way to write, many at once, across segments and a restart, and nobody else is refused", async () => {
    await using scratch = new Scratch();
    const maxLogBytes = 60_000;
    let db = await scratch.open({ logSegmentBytes: 8_192 });
    await tenants(db);
    const stream = await db.createStream(A, "events");
    await db.setQuota(A, { maxLogBytes });
    const write = async (round: number): Promise<unknown[]> => {
      const work = [
        ...Array.from({ length: 20 }, (_, index) =>
          db.insert(A, "t", { v: Buffer.alloc(1 + ((round * 37 + index * 53) % 700)) }),
        ),
        db.append(A, stream, [Buffer.alloc(round % 300)]),
        db.transaction(A, ["INSERT INTO t (v) VALUES (1)", "INSERT INTO t (v) VALUES (zeroblob(50))"]),
        db.transaction(
          A,
          async (held) => void (await held.execute("INSERT INTO t (v) VALUES (zeroblob(60))")),
        ),
        db.execute(A, `CREATE TABLE more${round} (a)`),
        db.createStream(A, `events ${round}`),
      ];
      const outcomes = await Promise.allSettled<unknown>(work);
      expect(bytesOnDisk(scratch.logFolder(A))).toBeLessThanOrEqual(maxLogBytes);
      return outcomes.flatMap((outcome) =>
        outcome.status === "rejected" ? [outcome.reason as unknown] : [],
      );
    };
    let refused: unknown[] = [];
    for (let round = 0; round < 40 && refused.length < 20; round += 1) {
      refused = await write(round);
      await db.insert(B, "t", { v: "never refused" });
    }
    expect(refused.length).toBeGreaterThanOrEqual(20);
    for (const reason of refused)
      expect(reason).toMatchObject({ code: "quota_exceeded", detail: { policy: "maxLogBytes" } });
    const { logBytes, size } = await db.describeTenant(A);
    expect(logBytes).toBe(bytesOnDisk(scratch.logFolder(A)));
    for (const again of ["restart", "rebuild"] as const) {
      await db.close();
      if (again === "rebuild") fs.rmSync(scratch.projection(A), { recursive: true });
      db = await scratch.open({ logSegmentBytes: 8_192 });
      await expectOver("maxLogBytes", () => db.insert(A, "t", { v: Buffer.alloc(800) }));
      expect(await db.describeTenant(A)).toMatchObject({ logBytes, size });
    }
    expect((await db.query(A, "SELECT count(*) > 10 AS many FROM t"))[0]).toEqual({ many: 1 });
    expect((await db.verifyTenant(A)).ok).toBe(true);
  });

  it("below what is used refuses writes, and loses and hides nothing", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await tenants(db);
    const stream = await db.createStream(A, "events");
    await db.append(A, stream, [1]);
    await db.setQuota(A, { maxLogBytes: 1, maxProjectionBytes: 1 });
    await expectOver("maxLogBytes", () => db.insert(A, "t", { v: 1 }));
    await expectOver("maxLogBytes", () => db.append(A, stream, [2]));
    expect(await db.query(A, "SELECT * FROM t")).toEqual([]);
    expect(await db.query(A, "SELECT * FROM t", [], { at: 1 })).toEqual([]);
    expect((await db.read(A, stream).next()).value).toMatchObject({ data: 1 });
    expect((await db.verifyTenant(A)).ok).toBe(true);
    await db.checkpoint(A);
    await db.setQuota(A, {});
    await db.insert(A, "t", { v: 1 });
  });
});

describe("maxProjectionBytes", () => {
  it("is never passed by the file, and what would pass it is undone", async () => {
    await using scratch = new Scratch();
    let db = await scratch.open();
    await tenants(db);
    const { projectionBytes } = await db.describeTenant(A);
    const maxProjectionBytes = projectionBytes + 10 * 4096;
    await db.setQuota(A, { maxProjectionBytes });
    let stored = 0;
    const fill = async (): Promise<void> => {
      for (;;) {
        await db.insert(A, "t", { v: Buffer.alloc(1_500) });
        stored += 1;
        expect((await db.describeTenant(A)).projectionBytes).toBeLessThanOrEqual(maxProjectionBytes);
      }
    };
    await expectOver("maxProjectionBytes", fill);
    expect(stored).toBeGreaterThan(10);
    await expectOver("maxProjectionBytes", () =>
      db.transaction(
        A,
        async (held) => void (await held.execute("INSERT INTO t (v) VALUES (zeroblob(9000))")),
      ),
    );
    await expectOver("maxProjectionBytes", () => db.execute(A, "CREATE TABLE u (a UNIQUE)"));
    await db.insert(B, "t", { v: Buffer.alloc(100_000) });
    for (const again of ["restart", "rebuild"] as const) {
      await db.close();
      expect(projectionFile(scratch)).toBeLessThanOrEqual(maxProjectionBytes);
      if (again === "rebuild") fs.rmSync(scratch.projection(A), { recursive: true });
      db = await scratch.open();
      expect(await db.query(A, "SELECT count(*) n FROM t")).toEqual([{ n: stored }]);
      await expectOver("maxProjectionBytes", () => db.insert(A, "t", { v: Buffer.alloc(50_000) }));
    }
  });
});

describe("maxOpsPerSec", () => {
  it("is exact over simulated time, with bursts and true waits, and is one tenant's", async () => {
    await using scratch = new Scratch();
    const clock = handClock();
    const db = await scratch.open({ clock });
    await tenants(db);
    await db.setQuota(A, { maxOpsPerSec: 5, burstOps: 8 });
    const attempt = async (): Promise<number> => {
      try {
        await db.query(A, "SELECT 1");
        return 0;
      } catch (error) {
        if (!(error instanceof KimberliteError)) throw error;
        expect(error).toMatchObject({
          code: "rate_limited",
          action: "retry",
          detail: { policy: "maxOpsPerSec", limit: 5 },
        });
        await db.query(B, "SELECT 1");
        return error.retryAfterMs ?? Number.NaN;
      }
    };
    const burst: number[] = [];
    for (let count = 0; count < 10; count += 1) burst.push(await attempt());
    expect(burst).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 200, 200]);
    let passed = 0;
    for (let step = 0; step < 600; step += 1) {
      clock.nowMs += 50;
      if ((await attempt()) === 0) passed += 1;
    }
    expect(passed).toBe(150);
    const wait = await attempt();
    clock.nowMs += wait - 1;
    expect(await attempt()).toBe(1);
    clock.nowMs += 1;
    expect(await attempt()).toBe(0);
    clock.nowMs += 3_600_000;
    const later: number[] = [];
    for (let count = 0; count < 9; count += 1) later.push(await attempt());
    expect(later.filter((waited) => waited === 0)).toHaveLength(8);
  });
});

describe("maxConcurrentOps", () => {
  it("counts operations and open iterations, and gives back what ended, however it ended", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await tenants(db);
    const stream = await db.createStream(A, "events");
    await db.append(A, stream, [1, 2, 3]);
    await db.setQuota(A, { maxConcurrentOps: 3 });
    const outcomes = await Promise.allSettled(
      Array.from({ length: 10 }, (_, id) => db.insert(A, "t", { id })),
    );
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(3);
    const readers = [0, 1, 2].map(() => db.read(A, stream));
    for (const reader of readers) await reader.next();
    await expectOver("maxConcurrentOps", () => db.query(A, "SELECT 1"));
    expect(await db.query(B, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
    await readers[0]?.return();
    await db.query(A, "SELECT 1");
    for (let count = 0; count < 20; count += 1) {
      await failureOf(() => db.execute(A, "NONSENSE"));
      await failureOf(() => db.query(A, "NONSENSE"));
      await failureOf(() => db.insert(A, "t", { id: 0 }));
      await db.transaction(A, () => Promise.reject(new Error("mine"))).catch(() => undefined);
    }
    for (const reader of readers) await reader.return();
    await Promise.all([0, 1, 2].map(() => db.query(A, "SELECT 1")));
    await Promise.all([0, 1, 2].map((id) => db.insert(A, "t", { id: 100 + id })));
  });
});
