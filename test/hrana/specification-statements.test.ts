/**
 * The parts of Hrana's specifications (HRANA_1_SPEC to HRANA_3_SPEC, HTTP_V2_SPEC) that are about statements, batches and
 * pipelines, sentence by sentence on the wire.
 */
import { beforeAll, describe, expect, it } from "vitest";
import { TenantId } from "../../src/index.ts";
import { Asker, execute, firstValue, manyRows, type Result } from "./asking.ts";
import { type Served, serve } from "./served.ts";

const TENANT = TenantId(1);
const text = (value: string): object => ({ type: "text", value });
let served: Served;
let asker: Asker;
beforeAll(async () => {
  served = await serve();
  asker = new Asker(served);
  await served.db.execute(TENANT, "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)");
  // The first transaction waits for a thread to start.
  await served.db.transaction(TENANT, async (transaction) => transaction.query("SELECT 1"));
});

async function count(where: string): Promise<number> {
  return Number((await served.db.query(TENANT, `SELECT count(*) AS n FROM t WHERE ${where}`))[0]?.["n"]);
}

describe("statements", () => {
  it("take arguments by place and by name, and no other than those they have", async () => {
    const named = (name: string, given: string): object => ({ name, value: text(given) });
    const cases: [string, object, string[] | string][] = [
      ["SELECT ?, ?", { args: [text("a"), text("b")] }, ["a", "b"]],
      ["SELECT ?2, ?1", { args: [text("a"), text("b")] }, ["b", "a"]],
      [
        "SELECT :a, @b, $c",
        { named_args: [named("a", "1"), named("b", "2"), named("c", "3")] },
        ["1", "2", "3"],
      ],
      // The binding knows a name without its sign: what would take another value is refused.
      ["SELECT :a, @a", { named_args: [named("@a", "1"), named(":a", "1")] }, ["1", "1"]],
      ["SELECT :a, @a", { named_args: [named("@a", "1"), named(":a", "2")] }, "SQLITE_RANGE"],
      ["SELECT ?, :a", { args: [text("1"), text("2")], named_args: [named("a", "3")] }, ["1", "3"]],
      ["SELECT ?, :a", { args: [text("1")], named_args: [named(":a", "3")] }, ["1", "3"]],
      ["SELECT :a, :a", { named_args: [named("a", "1")] }, ["1", "1"]],
      ["SELECT ?", { args: [text("a"), text("b")] }, "SQLITE_RANGE"],
      ["SELECT ?, ?", { args: [text("a")] }, "SQLITE_RANGE"],
      ["SELECT :a", { named_args: [named("b", "1")] }, "SQLITE_RANGE"],
      ["SELECT :a", {}, "SQLITE_RANGE"],
      ["SELECT 1; SELECT 2", {}, "SQLITE_ERROR"],
      ["", {}, "SQLITE_ERROR"],
    ];
    const results = await asker.ask(...cases.map(([sql, given]) => execute(sql, given)));
    for (const [index, [sql, , expected]] of cases.entries()) {
      const { response, error } = results[index] as Result;
      const found = response?.result?.rows[0]?.map((cell) => cell.value) ?? error?.code;
      expect([sql, found]).toEqual([sql, expected]);
    }
  });

  it("give columns, counts and row ids as the structures say", async () => {
    const [inserted, read, changed, described] = await asker.ask(
      execute("INSERT INTO t VALUES (60, 'a'), (61, 'b')"),
      execute("SELECT id, s AS name, 1 + 1 FROM t WHERE id = 60"),
      execute("UPDATE t SET s = 'c' WHERE id IN (60, 61)"),
      { type: "describe", sql: "SELECT ?3, :a, ?, @b" },
    );
    expect(inserted?.response?.result).toMatchObject({ cols: [], rows: [], affected_row_count: 2 });
    expect(inserted?.response?.result?.last_insert_rowid).toBe("61");
    expect(read?.response?.result).toEqual({
      cols: [
        { name: "id", decltype: "INTEGER" },
        { name: "name", decltype: "TEXT" },
        { name: "1 + 1", decltype: null },
      ],
      rows: [
        [
          { type: "integer", value: "60" },
          { type: "text", value: "a" },
          { type: "integer", value: "2" },
        ],
      ],
      affected_row_count: 0,
      last_insert_rowid: null,
    });
    expect(changed?.response?.result?.affected_row_count).toBe(2);
    // Parameters that the text does not name have no name.
    expect(described?.response?.result?.params.map(({ name }) => name)).toEqual([
      null,
      null,
      "?3",
      ":a",
      null,
      "@b",
    ]);
  });

  it("whose rows are not wanted give none, however many they find", async () => {
    const large = manyRows(30_000);
    const [wanted, unwanted, written, nulls, sequence] = await asker.ask(
      execute(large),
      execute(large, { want_rows: false }),
      execute(`INSERT INTO t SELECT i + 1000, s FROM (SELECT 1 AS i, 'x' AS s) RETURNING *`, {
        want_rows: false,
      }),
      execute("SELECT 1", { want_rows: null }),
      { type: "sequence", sql: `${large}; INSERT INTO t VALUES (70, 'x')` },
    );
    expect(wanted?.error?.code).toBe("result_too_large");
    expect(unwanted?.response?.result).toMatchObject({ rows: [], cols: [{ name: "i" }, {}] });
    expect(written?.response?.result).toMatchObject({ rows: [], affected_row_count: 1 });
    expect(firstValue(nulls)).toBe("1");
    expect([sequence?.type, await count("id IN (70, 1001)")]).toEqual(["ok", 2]);
  });

  it("carry blobs with and without padding, and nothing that is none", async () => {
    const blob = (base64: string): object => execute("SELECT hex(?)", { args: [{ type: "blob", base64 }] });
    expect((await asker.ask(blob("AP8="), blob("AP8"), blob(""))).map(firstValue)).toEqual([
      "00FF",
      "00FF",
      "",
    ]);
    for (const wrong of ["A", "AP8=A", "AP8===", "A P8", "AP-_"]) {
      const { status, code } = await asker.pipeline([blob(wrong)]);
      expect([wrong, status, code]).toEqual([wrong, 400, "invalid_argument"]);
    }
  });
});

describe("batches", () => {
  const OK = "SELECT 1";
  const BAD = "SELECT * FROM nowhere";
  const run = async (steps: [string, object?][]): Promise<Result | undefined> =>
    (
      await asker.ask({
        type: "batch",
        batch: { steps: steps.map(([sql, condition]) => ({ stmt: { sql }, condition })) },
      })
    )[0];
  const on = (type: string, step: number): object => ({ type, step });
  const not = (cond: object): object => ({ type: "not", cond });

  it("run the steps whose conditions hold", async () => {
    const result = await run([
      [OK],
      [BAD],
      [OK, on("ok", 1)],
      [OK, on("ok", 0)],
      [OK, on("error", 1)],
      [OK, on("error", 0)],
      // Of a step that was skipped neither holds.
      [OK, on("ok", 2)],
      [OK, on("error", 2)],
      [OK, not(on("ok", 2))],
      [OK, { type: "and", conds: [] }],
      [OK, { type: "or", conds: [] }],
      [OK, { type: "and", conds: [on("ok", 0), on("error", 1)] }],
      [OK, { type: "and", conds: [on("ok", 0), on("ok", 1)] }],
      [OK, { type: "or", conds: [on("ok", 1), on("ok", 0)] }],
      [OK, { type: "is_autocommit" }],
      ["BEGIN"],
      [OK, { type: "is_autocommit" }],
      [OK, not({ type: "is_autocommit" })],
      ["ROLLBACK"],
    ]);
    const { step_results = [], step_errors = [] } = result?.response?.result ?? {};
    const outcome = step_results.map((each, index) =>
      each === null ? (step_errors[index] === null ? "-" : "!") : "+",
    );
    expect(outcome.join("")).toBe("+!-++---+" + "+-+-++" + "+-++");
    expect(step_errors.length).toBe(step_results.length);
  });

  it.each([
    ["itself", on("ok", 1)],
    ["a later step", on("error", 2)],
    [
      "none, deep within",
      { type: "or", conds: [on("ok", 0), not({ type: "and", conds: [on("ok", 2 ** 32 - 1)] })] },
    ],
  ])("with a condition on %s are refused whole", async (_, condition) => {
    const result = await run([["INSERT INTO t VALUES (80, 'x')"], [OK, condition], [OK]]);
    expect([result?.error?.code, await count("id = 80")]).toEqual(["invalid_argument", 0]);
  });
});

describe("over HTTP", () => {
  it.each(["v2", "v3", "v3-protobuf"])("%s is said to be served", async (version) => {
    for (const prefix of ["", "/tenants/1"]) {
      expect((await fetch(`${served.url}${prefix}/${version}`)).status).toBe(200);
    }
  });

  it("every request of a pipeline is answered by its type, also after one that failed, and after the end", async () => {
    const { results, baton, base_url } = await asker.pipeline([
      execute("SELECT * FROM nowhere"),
      { type: "store_sql", sql_id: 1, sql: "SELECT 1" },
      { type: "describe", sql_id: 1 },
      { type: "batch", batch: { steps: [] } },
      { type: "sequence", sql: "" },
      { type: "close_sql", sql_id: 1 },
      { type: "get_autocommit" },
      { type: "close" },
      execute("SELECT 1"),
      { type: "get_autocommit" },
      { type: "close" },
    ]);
    expect(results.map(({ response, error }) => response?.type ?? error?.code)).toEqual([
      "SQLITE_ERROR",
      "store_sql",
      "describe",
      "batch",
      "sequence",
      "close_sql",
      "get_autocommit",
      "close",
      ...new Array(3).fill("invalid_argument"),
    ]);
    expect([baton, base_url]).toEqual([null, null]);
    expect(results[6]?.response).toEqual({ type: "get_autocommit", is_autocommit: true });
  });
});

describe("the offset of what was committed", () => {
  it("is told with the statement that committed it, and is one that time travel takes", async () => {
    const { results } = await asker.pipeline([
      execute("INSERT INTO t VALUES (90, 'first')"),
      execute("BEGIN"),
      execute("UPDATE t SET s = 'second' WHERE id = 90"),
      execute("COMMIT"),
      {
        type: "batch",
        batch: {
          steps: ["BEGIN", "UPDATE t SET s = 'third' WHERE id = 90", "COMMIT", "SELECT 1"].map((sql) => ({
            stmt: { sql },
          })),
        },
      },
      execute("SELECT s FROM t WHERE id = 90"),
      execute("DELETE FROM t WHERE id = 91"),
      execute("PRAGMA foreign_keys = off"),
      execute("UPDATE t SET s = 'fourth' WHERE id = 90"),
      { type: "close" },
    ]);
    const at = results.map(({ response }) => response?.result?.replication_index);
    const { size } = await served.db.describeTenant(TENANT);
    const last = size - 1n;
    expect(at).toEqual([
      ...[last - 3n, undefined, undefined, last - 2n, last - 1n, undefined, undefined, undefined, last].map(
        (offset) => offset?.toString(),
      ),
      undefined,
    ]);
    for (const [index, expected] of [
      [0, "first"],
      [3, "second"],
      [4, "third"],
      [8, "fourth"],
    ] as const) {
      const then = { at: BigInt(at[index] as string) };
      expect(await served.db.query(TENANT, "SELECT s FROM t WHERE id = 90", [], then)).toEqual([
        { s: expected },
      ]);
    }
  });
});
