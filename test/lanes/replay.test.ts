/**
 * Replays that take long by what their tenant made: they go on in a lane, with the same rows, and hold nobody else; what
 * ends them loses nothing.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import type { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, it, type MockInstance, vi } from "vitest";
import { onFailpoint } from "../../src/host/failpoint.ts";
import type { TenantId } from "../../src/index.ts";
import { Lanes } from "../../src/projection/lanes.ts";
import { differences } from "../sim/compare-databases.ts";
import { TestNode } from "../sim/test-node.ts";

/** What an index over it costs: milliseconds a row, with values small enough for any thread. */
const COSTLY = "length(replace(hex(zeroblob(30000 + id % 100)), '0', '1'))";
const fill = (rows: number): string =>
  `INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ${rows}) SELECT x, x'00ff' FROM c`;

describe("a replay that takes long", () => {
  let node: TestNode;
  let a: TenantId;
  let b: TenantId;
  let leased: MockInstance<Lanes["lease"]>;

  /** How often a replay went to a lane since that was last forgotten. */
  const leases = (): number => leased.mock.calls.filter(([, , use]) => use === "replay").length;

  beforeEach(async () => {
    node = await TestNode.open({ limits: { timeLimitMs: 60_000 } });
    [a, b] = [await node.createTenant(), await node.createTenant()];
    await node.db.execute(b, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    await node.db.execute(a, "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v)");
    leased = vi.spyOn(Lanes.prototype, "lease");
  });

  afterEach(async () => {
    onFailpoint(undefined);
    vi.restoreAllMocks();
    await node[Symbol.asyncDispose]();
  });

  /** A block that no moment is enough for, in the middle of small ones. */
  const makeCostly = async (rows: number): Promise<void> => {
    await node.db.execute(a, fill(rows));
    await node.db.execute(a, "CREATE VIRTUAL TABLE f USING fts5(body)");
    await node.db.execute(a, "INSERT INTO f VALUES ('a found word'), ('another')");
    await node.db.execute(a, `CREATE INDEX costly ON t (${COSTLY})`);
    await node.db.execute(a, "UPDATE t SET v = 1.0 WHERE id = 30");
    await node.db.transaction(a, ["UPDATE t SET id = -id WHERE id < 4", "DELETE FROM t WHERE id = 5"]);
    await node.db.insert(a, "t", { v: "x".repeat(100_000) });
  };

  it("gives the same rows, while another tenant reads and no turn of this thread is long", async () => {
    await makeCostly(400);
    const rows = "SELECT rowid, id, typeof(v) AS t, hex(v) AS h FROM t ORDER BY id";
    const before = await node.db.query(a, rows);
    await node.loseProjection(a);
    await node.db.query(b, "SELECT 1");
    let running = true;
    const replayed = node.db.query(a, rows).finally(() => {
      running = false;
    });
    let served = 0;
    let longestMs = 0;
    while (running) {
      const before = process.threadCpuUsage();
      await node.db.query(b, "SELECT count(*) AS n FROM t");
      await new Promise((resolve) => setImmediate(resolve));
      const { user, system } = process.threadCpuUsage(before);
      longestMs = Math.max(longestMs, (user + system) / 1000);
      served += 1;
    }
    expect(await replayed).toEqual(before);
    expect(leases()).toBeGreaterThan(0);
    expect(served).toBeGreaterThan(300);
    expect(longestMs).toBeLessThan(200);
    expect(await node.db.query(a, "SELECT rowid FROM f WHERE f MATCH 'found'")).toEqual([{ rowid: 1 }]);
  });

  it("reads former moments through a lane, one after the other, and no more of them than are kept", async () => {
    await makeCostly(60);
    const { size } = await node.db.describeTenant(a);
    const at = (offset: bigint, sql: string): Promise<unknown> => node.db.query(a, sql, [], { at: offset });
    const index = "SELECT count(*) AS n FROM sqlite_master WHERE name = 'costly'";
    expect(await at(size - 4n, index)).toEqual([{ n: 1 }]);
    expect(leases()).toBe(1);
    expect(await at(size - 5n, index)).toEqual([{ n: 0 }]);
    expect(await at(size - 5n, "SELECT rowid FROM f WHERE f MATCH 'found'")).toEqual([{ rowid: 1 }]);
    expect(leases()).toBe(1);

    await node.db.execute(a, "DROP INDEX costly");
    for (let id = 1_000; id < 1_018; id += 1) await node.db.insert(b, "t", { id });
    const all = (await node.db.describeTenant(b)).size;
    const outcomes = await Promise.allSettled(
      Array.from({ length: 18 }, (_, back) =>
        node.db.query(b, "SELECT count(*) AS n FROM t", [], { at: all - 1n - BigInt(back) }),
      ),
    );
    const refused = outcomes.filter(({ status }) => status === "rejected");
    expect(refused).toHaveLength(2);
    for (const [back, outcome] of outcomes.entries()) {
      if (outcome.status === "fulfilled") expect(outcome.value).toEqual([{ n: 18 - back }]);
      else expect(outcome.reason).toMatchObject({ code: "overloaded" });
    }
    expect(await node.db.query(b, "SELECT count(*) AS n FROM t", [], { at: all - 18n })).toEqual([{ n: 1 }]);
  });

  /** What is done here at first, and then, from a large block on, in a lane: a replay of two transactions. */
  const makeLong = async (): Promise<void> => {
    await node.db.execute(a, fill(30));
    await node.db.insert(a, "t", { v: "x".repeat(1_500_000) });
    await node.db.execute(a, `CREATE INDEX costly ON t (${COSTLY})`);
    for (let count = 0; count < 10; count += 1) await node.db.insert(a, "t", { v: count });
  };

  it("goes on where it was after its lane was ended, the node closed, or the tenant suspended", async () => {
    await makeLong();
    const before = await node.liveImage(a);
    const workers: Worker[] = [];
    process.on("worker", (worker) => workers.push(worker));
    await node.loseProjection(a);
    const ended = node.db.query(a, "SELECT 1");
    while (leases() === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await Promise.all([
      expect(ended).rejects.toMatchObject({ code: "overloaded" }),
      workers.at(-1)?.terminate(),
    ]);
    process.removeAllListeners("worker");

    leased.mockClear();
    const closed = node.db.query(a, "SELECT 1");
    while (leases() === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await Promise.all([expect(closed).rejects.toMatchObject({ code: "closed" }), node.reopen()]);

    leased.mockClear();
    const admitted = node.db.query(a, "SELECT count(*) AS n FROM t");
    while (leases() === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await node.db.suspendTenant(a);
    expect(await admitted).toEqual([{ n: 41 }]);
    await expect(node.db.query(a, "SELECT 1")).rejects.toMatchObject({ code: "tenant_suspended" });
    await node.db.resumeTenant(a);
    expect(differences(before, await node.liveImage(a))).toEqual([]);
  });

  it("ends when its tenant is erased, and leaves no file", async () => {
    await makeLong();
    await node.loseProjection(a);
    const opening = node.db
      .query(a, "SELECT count(*) AS n FROM t")
      .catch(({ code }: { code: string }) => code);
    while (leases() === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await node.db.eraseTenant(a, { reason: "contract ended", overrideRetention: true });
    expect([[{ n: 41 }], "tenant_erased", "tenant_erasing"]).toContainEqual(await opening);
    await expect(node.db.query(a, "SELECT 1")).rejects.toMatchObject({ code: "tenant_erased" });
    expect(node.filesOf(a)).toEqual([]);
    expect(await node.db.query(b, "SELECT count(*) AS n FROM t")).toEqual([{ n: 0 }]);
  });

  it.each(["catch-up-before-commit", "catch-up-after-commit"])(
    "is whole after its process was killed at its first %s",
    async (failpoint) => {
      await makeLong();
      const before = await node.liveImage(a);
      const dir = await node.leaveWithout(a);
      const victim = join(import.meta.dirname, "replay-victim.ts");
      const args = [victim, join(dir, "data"), join(dir, "master.key"), failpoint];
      expect(spawnSync(process.execPath, args, { stdio: "inherit" }).signal).toBe("SIGKILL");
      await node.reopen();
      expect(differences(before, await node.liveImage(a))).toEqual([]);
    },
  );

  it("makes full-text indexes over other tables again, also after an interruption with nothing left to apply", async () => {
    // Its content has values too large for this thread, if only on their way.
    await node.db.execute(
      a,
      "CREATE VIEW w AS SELECT id AS rowid, v || substr(hex(zeroblob(40000)), 1, 0) AS v FROM t",
    );
    await node.db.execute(a, "CREATE VIRTUAL TABLE found USING fts5(v, content='w')");
    await node.db.execute(a, "INSERT INTO t VALUES (1, 'a found word'), (2, 'another')");
    await node.db.execute(a, "INSERT INTO found (found) VALUES ('rebuild')");
    const search = "SELECT rowid FROM found WHERE found MATCH 'found'";
    expect(await node.db.query(a, search)).toEqual([{ rowid: 1 }]);
    await node.loseProjection(a);
    onFailpoint((name) => {
      if (name === "catch-up-after-commit") throw new Error("interrupted");
    });
    await expect(node.db.query(a, search)).rejects.toThrow("interrupted");
    onFailpoint(undefined);
    await node.reopen();
    expect(await node.db.query(a, search)).toEqual([{ rowid: 1 }]);
    expect(leases()).toBe(1);
  });

  it("lets nothing be written on a projection that it could not bring back", async () => {
    await node.db.execute(a, "CREATE TABLE u (v)");
    await node.db.execute(
      a,
      "CREATE TRIGGER bomb BEFORE INSERT ON u WHEN NEW.v = 'bomb' BEGIN SELECT RAISE(ROLLBACK, 'bomb'); END",
    );
    // Past the time in which each batch is committed at once because of a read.
    await new Promise((resolve) => setTimeout(resolve, 150));
    for (let n = 0; n < 5; n += 1) await node.db.insert(a, "u", { v: n });
    onFailpoint((name) => {
      if (name === "catch-up-before-commit") throw new Error("interrupted");
    });
    const together = ["good", "bomb", "good"].map((v) => node.db.insert(a, "u", { v }));
    await Promise.allSettled(together);
    onFailpoint(undefined);
    await expect(Promise.all(together)).rejects.toThrow();
    await vi.waitFor(() => node.db.insert(a, "u", { v: "last" }), 60_000);
    expect(await node.db.query(a, "SELECT count(*) AS n, max(v) AS v FROM u")).toEqual([{ n: 6, v: "last" }]);
    expect(await node.rebuildDifferences(a)).toEqual([]);
  });

  it("is not held up by a full-text index whose content has no end", async () => {
    await node[Symbol.asyncDispose]();
    node = await TestNode.open({ limits: { timeLimitMs: 700 } });
    [a, b] = [await node.createTenant(), await node.createTenant()];
    await node.db.execute(a, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    await node.db.execute(
      a,
      "CREATE VIEW endless AS WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM c) SELECT id AS rowid, 'word' AS v FROM c",
    );
    await node.db.execute(a, "CREATE VIRTUAL TABLE f USING fts5(v, content='endless')");
    await node.db.insert(a, "t", { v: "kept" });
    await node.loseProjection(a);
    let running = true;
    const opened = node.db.query(a, "SELECT v FROM t").finally(() => {
      running = false;
    });
    let served = 0;
    for (; running; served += 1) {
      await node.db.query(b, "SELECT 1");
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await opened).toEqual([{ v: "kept" }]);
    expect(served).toBeGreaterThan(100);
  });
});
