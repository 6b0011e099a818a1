/** Slow statements and held transactions of one tenant leave the others alone, and are stopped at their limits. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  createMasterKeyFile,
  Kimberlite,
  masterKeyFile,
  type OpenOptions,
  TenantId,
  type Transaction,
} from "../../src/index.ts";

const A = TenantId(1);
const B = TenantId(2);
const ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
const MANY =
  "SELECT 'row ' || x FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 60000) SELECT x FROM c)";

describe("lanes", () => {
  let folder: string;
  let db: Kimberlite;

  const open = (limits: NonNullable<OpenOptions["limits"]> = {}): Promise<Kimberlite> =>
    Kimberlite.open({
      dataDir: join(folder, "data"),
      masterKey: masterKeyFile(join(folder, "key")),
      journalFileBytes: 1024 * 1024,
      limits,
    });

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "kimberlite-lanes-"));
    createMasterKeyFile(join(folder, "key"));
    db = await open({ timeLimitMs: 1_000 });
    for (const id of [A, B]) {
      await db.createTenant({ id, name: "t" });
      await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
    }
  });

  afterEach(async () => {
    await db.close();
    rmSync(folder, { recursive: true });
  });

  it.each(["closing", "erasing"] as const)(
    "%s waits for the slow read that runs, and for none that waits",
    async (how) => {
      const codes = Array.from({ length: 12 }, () =>
        db.query(A, ENDLESS).then(
          () => "done",
          ({ code }: { readonly code: string }) => code,
        ),
      );
      if (how === "closing") await db.close();
      else await db.eraseTenant(A, { reason: "asked" });
      const told = await Promise.all(codes);
      expect(told[0]).toBe("statement_timeout");
      for (const code of told.slice(1))
        expect(code).toMatch(/^(closed|overloaded|tenant_not_found|tenant_erased)$/);
    },
  );

  it("stops an endless read at its limit, while another tenant reads and writes hundreds of times", async () => {
    let running = true;
    const slow = db.query(A, ENDLESS).finally(() => {
      running = false;
    });
    const outcome = expect(slow).rejects.toMatchObject({ code: "statement_timeout" });
    let served = 0;
    while (running) {
      await db.insert(B, "t", { v: `${served}` });
      expect(await db.query(B, "SELECT count(*) AS n FROM t")).toEqual([{ n: served + 1 }]);
      served += 1;
    }
    await outcome;
    expect(served).toBeGreaterThan(20);
  });

  it.each([
    ["LIKE", "SELECT count(*) FROM t WHERE v LIKE ?", `%${"a".repeat(20_000)}b%`],
    ["GLOB", "SELECT count(*) FROM t WHERE v GLOB ?", `*${"a".repeat(10_000)}[b]*`],
  ])("stops one call of %s at its limit, while another tenant reads", async (_name, sql, pattern) => {
    await db.insert(A, "t", { v: "a".repeat(4 * 1024 * 1024) });
    let running = true;
    const slow = db.query(A, sql, [pattern]).finally(() => {
      running = false;
    });
    const outcome = expect(slow).rejects.toMatchObject({ code: "statement_timeout" });
    let served = 0;
    for (; running; served += 1) {
      await db.query(B, "SELECT count(*) AS n FROM t");
      await new Promise((resolve) => setImmediate(resolve));
    }
    await outcome;
    expect(served).toBeGreaterThan(20);
  });

  it.each([
    ["a function", "SELECT length(json_insert(v", ",'$[#]',1", "))"],
    ["an update", "UPDATE t SET v = json_insert(v", ",'$[#]',1", ")"],
  ])("runs %s over a large value where no other tenant waits for it", async (_name, head, part, tail) => {
    await db.insert(A, "t", { v: `[${"1,".repeat(400_000)}1]` });
    const sql = `${head}${part.repeat(100)}${tail} FROM t`.replace(/^(UPDATE .*) FROM t$/, "$1");
    let running = true;
    const slow = db.execute(A, sql).finally(() => {
      running = false;
    });
    // Watched from here on: it may fail while this waits for something else. Which limit it meets first depends on what
    // else the machine does: the statement's own, or the one for all of the transaction with its waiting.
    const outcome = slow.catch(({ code }: { code: string }) => code);
    // What this thread itself computes in a turn of the event loop: other programs of the machine do not count.
    let longestMs = 0;
    while (running) {
      const before = process.threadCpuUsage();
      await new Promise((resolve) => setImmediate(resolve));
      const { user, system } = process.threadCpuUsage(before);
      longestMs = Math.max(longestMs, (user + system) / 1000);
    }
    const ended = await outcome;
    if (typeof ended === "string") expect(ended).toMatch(/^(statement|transaction)_timeout$/);
    expect((await db.query(B, "SELECT 1 AS one"))[0]).toEqual({ one: 1 });
    // The call itself takes hundreds of milliseconds.
    expect(longestMs).toBeLessThan(250);
  });

  it("reads and writes values of any allowed size, on either side of what is run here", async () => {
    for (const size of [60_000, 70_000, 300_000, 5_000_000]) {
      const v = "x".repeat(size);
      await db.insert(A, "t", { id: size, v });
      expect(await db.query(A, "SELECT v FROM t WHERE id = ?", [size])).toEqual([{ v }]);
      await db.execute(A, "UPDATE t SET v = v || 'y' WHERE id = ?", [size]);
      expect(await db.query(A, "SELECT length(v) AS n FROM t WHERE v = ?", [`${v}y`])).toEqual([
        { n: size + 1 },
      ]);
    }
    await expect(db.insert(A, "t", { v: "x".repeat(17 * 1024 * 1024) })).rejects.toMatchObject({
      code: "value_too_large",
    });
    await db.rebuildProjection(A);
    expect(await db.query(A, "SELECT count(*) AS n, sum(length(v)) AS bytes FROM t")).toEqual([
      { n: 4, bytes: 5_430_004 },
    ]);
  });

  it("stops an endless write at its limit, and the tenant's other writes are all there", async () => {
    const slow = db.execute(A, `INSERT INTO t (v) ${ENDLESS}`);
    const others = Array.from({ length: 20 }, (_, index) => db.insert(A, "t", { v: `other ${index}` }));
    await expect(slow).rejects.toMatchObject({ code: "statement_timeout" });
    await Promise.all(others);
    expect(await db.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 20 }]);
    expect((await db.verifyTenant(A)).ok).toBe(true);
  });

  it("finishes a write that is only slow, with its rows in the log", async () => {
    db = await reopenWith(30_000);
    const result = await db.execute(A, `INSERT INTO t (v) ${MANY}`);
    expect(result.rowsAffected).toBe(60_000);
    await db.close();
    rmSync(join(folder, "data", "tenants", "1", "projection"), { recursive: true });
    db = await open();
    expect(await db.query(A, "SELECT count(*) AS n, max(v) AS v FROM t")).toEqual([
      { n: 60_000, v: "row 9999" },
    ]);
  });

  it("keeps this thread's view of the schema in step with what a held transaction made", async () => {
    await db.transaction(A, async (tx) => {
      await tx.execute("CREATE TABLE made (a)");
      await tx.execute("CREATE VIRTUAL TABLE words USING fts5(body)");
      await tx.execute("INSERT INTO made VALUES (1)");
    });
    await db.insert(A, "made", { a: 2 });
    await db.execute(A, "INSERT INTO words VALUES ('hello world')");
    await db.transaction(
      A,
      async (tx) => void (await tx.execute("INSERT INTO words VALUES ('hello again')")),
    );
    await db.close();
    rmSync(join(folder, "data", "tenants", "1", "projection"), { recursive: true });
    db = await open();
    expect(await db.query(A, "SELECT a FROM made ORDER BY a")).toEqual([{ a: 1 }, { a: 2 }]);
    expect(await db.query(A, "SELECT rowid FROM words WHERE words MATCH 'hello'")).toHaveLength(2);
  });

  it("rolls a held transaction back past its time, and refuses its later calls", async () => {
    // Not by clocks: what comes late comes after the rollback, however slow the machine is.
    const rolledBack = Promise.withResolvers<void>();
    const late = Promise.withResolvers<unknown>();
    const held = db.transaction(
      A,
      async (tx) => {
        // On a machine so busy that this alone takes the whole time it fails, and the transaction as well.
        await tx.execute("INSERT INTO t (v) VALUES ('never')").catch(() => undefined);
        await rolledBack.promise;
        late.resolve(tx.execute("INSERT INTO t (v) VALUES ('too late')"));
      },
      { timeLimitMs: 300 },
    );
    await expect(held).rejects.toMatchObject({ code: "transaction_timeout" });
    const outcome = expect(late.promise).rejects.toMatchObject({ code: "transaction_closed" });
    rolledBack.resolve();
    await outcome;
    expect(await db.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 0 }]);
  });

  it("serves more tenants' held transactions than there are lanes", async () => {
    const ids = Array.from({ length: 12 }, (_, index) => TenantId(100 + index));
    for (const id of ids) {
      await db.createTenant({ id, name: "t" });
      await db.execute(id, "CREATE TABLE t (v)");
    }
    const counts = await Promise.all(
      ids.map((id) =>
        db.transaction(id, async (tx) => {
          await tx.execute("INSERT INTO t VALUES (1)");
          await new Promise((resolve) => setTimeout(resolve, 30));
          return (await tx.query("SELECT count(*) AS n FROM t"))[0]?.["n"];
        }),
      ),
    );
    expect(counts).toEqual(ids.map(() => 1));
  });

  it("runs slow statements of one tenant while more tenants hold transactions than there are lanes for work", async () => {
    const ids = Array.from({ length: 7 }, (_, index) => TenantId(200 + index));
    const end = Promise.withResolvers<void>();
    const begun: Promise<void>[] = [];
    const held: Promise<unknown>[] = [];
    for (const id of ids) {
      await db.createTenant({ id, name: "t" });
      const begin = Promise.withResolvers<void>();
      begun.push(begin.promise);
      const hold = async (tx: Transaction): Promise<void> => {
        await tx.query("SELECT 1");
        begin.resolve();
        await end.promise;
      };
      held.push(db.transaction(id, hold, { timeLimitMs: 60_000 }));
    }
    await Promise.all(begun);
    const counting = (many: number): string =>
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${many}) SELECT count(*) AS n FROM n`;
    try {
      // Each takes longer than this thread gives it.
      expect(await db.query(A, counting(300_000))).toEqual([{ n: 300_000 }]);
      await db.execute(A, `INSERT INTO t (id) SELECT n FROM (${counting(300_001)})`);
    } finally {
      end.resolve();
      await Promise.all(held);
    }
  });

  it("gives a reader what was acknowledged before, also while the projection's commit lags", async () => {
    await new Promise((resolve) => setTimeout(resolve, 150));
    for (let round = 1; round <= 200; round += 1) {
      await db.insert(A, "t", { v: "x" });
      if (round % 7 === 0) expect(await db.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: round }]);
    }
    const writes = Array.from({ length: 50 }, () => db.insert(A, "t", { v: "y" }));
    const reads = Array.from({ length: 50 }, () => db.query(A, "SELECT count(*) AS n FROM t"));
    for (const [row] of await Promise.all(reads)) expect(Number(row?.["n"])).toBeGreaterThanOrEqual(200);
    await Promise.all(writes);
    expect(await db.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 250 }]);
  });

  it("brings durable batches back when a statement rolls the whole lagging transaction back", async () => {
    await db.execute(
      A,
      "CREATE TRIGGER bomb BEFORE INSERT ON t WHEN NEW.v = 'bomb' BEGIN SELECT RAISE(ROLLBACK, 'bomb'); END",
    );
    await new Promise((resolve) => setTimeout(resolve, 150));
    for (let index = 0; index < 10; index += 1) await db.insert(A, "t", { v: `before ${index}` });
    const together = await Promise.allSettled([
      db.insert(A, "t", { v: "good 1" }),
      db.insert(A, "t", { v: "bomb" }),
      db.insert(A, "t", { v: "good 2" }),
    ]);
    expect(together.map((outcome) => outcome.status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect(await db.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 12 }]);
    expect((await db.verifyTenant(A)).ok).toBe(true);
  });

  async function reopenWith(timeLimitMs: number): Promise<Kimberlite> {
    await db.close();
    return open({ timeLimitMs });
  }
});
