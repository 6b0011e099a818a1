/**
 * The memory that a tenant's statement may take: past what all may hold together the one that has run longest is stopped,
 * what it held is given back, and others go on being served.
 */
import { describe, expect, it } from "vitest";
import { TenantId } from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";

const A = TenantId(1);
const B = TenantId(2);
const MIB = 1024 * 1024;
/** Ways to take memory without end. */
const GREEDY = [
  "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x, randomblob(100000) AS b FROM c ORDER BY b LIMIT 1 OFFSET 10000000",
  "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM (SELECT DISTINCT zeroblob(100000) || x FROM c)",
];
const residentMib = (): number => process.memoryUsage().rss / MIB;

describe.skipIf(process.platform !== "linux")("a statement that takes memory without end", () => {
  it("is stopped past the bound, and others are served meanwhile", async () => {
    await using scratch = new Scratch();
    const before = residentMib();
    const db = await scratch.open({ limits: { maxMemoryBytes: 600 * MIB } });
    for (const id of [A, B]) {
      await db.createTenant({ id, name: `tenant ${id}` });
      await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
      await db.insert(id, "t", { id: 1, v: "row" });
    }
    for (const sql of GREEDY) {
      let peak = 0;
      let served = 0;
      let over = false;
      const refused = expect(db.query(A, sql).finally(() => (over = true))).rejects.toMatchObject({
        code: "result_too_large",
      });
      while (!over) {
        expect(await db.query(B, "SELECT v FROM t WHERE id = 1")).toEqual([{ v: "row" }]);
        served += 1;
        peak = Math.max(peak, residentMib());
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await refused;
      expect(served).toBeGreaterThan(3);
      expect(peak - before).toBeLessThan(1_500);
    }
    await expect(
      db.execute(
        A,
        `INSERT INTO t ${(GREEDY[0] as string).replace("SELECT x, randomblob", "SELECT x + 1, randomblob")}`,
      ),
    ).rejects.toMatchObject({ code: "result_too_large" });
    expect(await db.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 1 }]);
    await db.insert(A, "t", { id: 2, v: "goes on" });
    expect((await db.verifyTenant(A)).ok).toBe(true);
  });
});
