/** SQL texts that are made to hold up others or to fill memory: each is answered soon, and nobody else waits for it. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TenantId } from "../../src/index.ts";
import { TestNode } from "../sim/test-node.ts";

/** Generous, for machines that are busy; what is guarded against here takes minutes or ends the process. */
const SOON_MS = 5_000;

async function soon<T>(work: Promise<T>): Promise<T> {
  const startedMs = performance.now();
  try {
    return await work;
  } finally {
    expect(performance.now() - startedMs).toBeLessThan(SOON_MS);
  }
}

describe("texts that are made to be heavy", () => {
  let node: TestNode;
  let tenant: TenantId;

  const run = (sql: string): Promise<unknown> => soon(node.db.execute(tenant, sql));
  const query = (sql: string): Promise<unknown> => soon(node.db.query(tenant, sql));
  const fails = (work: Promise<unknown>, ...codes: string[]): Promise<void> =>
    work.then(
      () => expect.fail("refused"),
      (error: { code: string }) => expect(codes).toContain(error.code),
    );

  beforeAll(async () => {
    node = await TestNode.open();
    tenant = await node.createTenant();
    await run("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
  });

  afterAll(() => node[Symbol.asyncDispose]());

  it("views of views, each naming the one below twice", async () => {
    await run("CREATE VIEW v0 AS SELECT id, v FROM t");
    let depth = 0;
    const next = (): Promise<unknown> => {
      depth += 1;
      return run(
        `CREATE VIEW v${depth} AS SELECT a.id, b.v FROM v${depth - 1} a JOIN v${depth - 1} b USING (id)`,
      );
    };
    for (let at = 1; at <= 8; at += 1) await next();
    await fails(next(), "unsupported_sql");
    expect(await query("SELECT count(*) AS n FROM v5")).toEqual([{ n: 0 }]);
    for (const sql of [
      "SELECT * FROM v8",
      "SELECT * FROM v8, v8",
      "SELECT (SELECT count(*) FROM v8), v8.* FROM v7",
    ])
      await fails(query(sql), "invalid_sql", "unsupported_sql");
    await query("SELECT * FROM pragma_table_info('v8')");
    await run("ALTER TABLE t ADD COLUMN w");
    // A view that is below them only now.
    for (const [at, below] of [
      ["x2", "x1"],
      ["x1", "x0"],
    ] as const)
      await run(`CREATE VIEW ${at} AS SELECT 1 AS id FROM ${`${below}, `.repeat(40)} ${below}`);
    await fails(run("CREATE VIEW x0 AS SELECT 1 AS id FROM v3"), "unsupported_sql");
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });

  it("schema texts that the main thread could not read, made at once or by and by", async () => {
    const text = (bytes: number): string => `'${"x".repeat(bytes)}'`;
    for (const sql of [
      `CREATE VIEW long AS SELECT ${text(65_000)} AS x`,
      `CREATE VIEW long AS SELECT ${text(200_000)} AS x`,
      `CREATE TABLE long (x DEFAULT ${text(70_000)})`,
      `CREATE TRIGGER long AFTER INSERT ON t BEGIN SELECT ${text(70_000)}; END`,
      `CREATE INDEX long ON t (v) WHERE v <> ${text(70_000)}`,
    ])
      await fails(run(sql), "unsupported_sql");
    await run(`CREATE TABLE grows (x DEFAULT ${text(50_000)})`);
    await fails(run(`ALTER TABLE grows ADD COLUMN y DEFAULT ${text(20_000)}`), "unsupported_sql");
    await run(`CREATE VIEW allowed AS SELECT ${text(50_000)} AS x`);
    await run("INSERT INTO grows DEFAULT VALUES");
    expect(await query("SELECT length(x) AS n FROM grows UNION ALL SELECT length(x) FROM allowed")).toEqual([
      { n: 50_000 },
      { n: 50_000 },
    ]);
    await run("DROP TABLE grows");
    await run("DROP VIEW allowed");
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });

  it("texts that are only to be described, to read or to write", async () => {
    await run("CREATE VIEW d0 AS SELECT id, v FROM t");
    for (let at = 1; at <= 8; at += 1)
      await run(`CREATE VIEW d${at} AS SELECT a.id, b.v FROM d${at - 1} a JOIN d${at - 1} b USING (id)`);
    const session = node.db.session(tenant);
    const texts = [
      "SELECT id FROM d7",
      "SELECT id FROM d8",
      "INSERT INTO t (v) SELECT v FROM d7",
      `SELECT 1 ${" ".repeat(40_000)} AS n`,
    ];
    let longestMs = 0;
    for (const sql of texts) {
      const before = process.threadCpuUsage();
      const described = await soon(session.describe(sql).catch(({ code }: { code: string }) => code));
      const { user, system } = process.threadCpuUsage(before);
      longestMs = Math.max(longestMs, (user + system) / 1000);
      if (typeof described === "string") expect(described).toMatch(/^(unsupported|invalid)_sql$/);
      else expect(described.columns).toHaveLength(sql.startsWith("INSERT") ? 0 : 1);
    }
    await session.close();
    // All that this thread did for one text, however many turns it took.
    expect(longestMs).toBeLessThan(250);
  });

  it("common table expressions, each naming the one before twice", async () => {
    const text = (depth: number): string =>
      `WITH c0 AS (SELECT 1 AS x)${Array.from({ length: depth }, (_, at) => `, c${at + 1} AS (SELECT a.x FROM c${at} a, c${at} b)`).join("")} SELECT count(*) AS n FROM c${depth}`;
    expect(await query(text(4))).toEqual([{ n: 1 }]);
    for (const depth of [12, 40]) {
      await fails(query(text(depth)), "unsupported_sql");
      await fails(run(text(depth)), "unsupported_sql");
    }
  });

  it("generated columns, each naming the one before twice", async () => {
    const table = (depth: number): string =>
      `CREATE TABLE g (c0 INTEGER, ${Array.from({ length: depth }, (_, at) => `c${at + 1} AS (c${at} + c${at})`).join(", ")})`;
    await fails(run(table(40)), "result_too_large");
    await run(table(14));
    await run("INSERT INTO g (c0) VALUES (1)");
    expect(await query("SELECT c14 FROM g")).toEqual([{ c14: 16_384 }]);
    await fails(query(`SELECT ${"c14 + ".repeat(200)} c14 FROM g`), "result_too_large");
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });

  it("a name that is never closed, half a megabyte of it", async () => {
    for (const open of ["[", "'", '"', "/*"])
      await soon(
        node.db.query(tenant, `SELECT ?1 ${open.repeat(250_000)}`, [1]).then(
          () => undefined,
          (error: { code: string; message: string }) => {
            expect(error.code).toBe("invalid_sql");
            expect(error.message.length).toBeLessThan(400);
          },
        ),
      );
  });

  it("thousands of parameters with names and numbers, and 32,000 bare ones", async () => {
    const many = (place: (at: number) => string): string =>
      `SELECT count(*) AS n FROM t WHERE id IN (${Array.from({ length: 32_000 }, (_, at) => place(at + 1)).join()})`;
    const values = Array.from({ length: 32_000 }, (_, at) => at);
    for (const sign of ["?", ":p"])
      await fails(
        soon(
          node.db.query(
            tenant,
            many((at) => `${sign}${at}`),
            values,
          ),
        ),
        "invalid_parameter",
      );
    expect(
      await soon(
        node.db.query(
          tenant,
          many(() => "?"),
          values,
        ),
      ),
    ).toEqual([{ n: 0 }]);
  });

  it("slow reads without end: as many as wait are bounded", async () => {
    const endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
    const slow = await TestNode.open({ limits: { timeLimitMs: 15 } });
    try {
      const one = await slow.createTenant();
      await slow.db.query(one, "SELECT 1");
      const outcomes = await Promise.allSettled(
        Array.from({ length: 150 }, () => slow.db.query(one, endless)),
      );
      const codes = outcomes.map((outcome) => (outcome as PromiseRejectedResult).reason.code as string);
      expect(codes.filter((code) => code === "overloaded")).toHaveLength(50);
      expect(codes.filter((code) => code === "statement_timeout")).toHaveLength(100);
      expect(await slow.db.query(one, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
    } finally {
      await slow[Symbol.asyncDispose]();
    }
  });
});
