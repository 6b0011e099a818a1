/** Values cross in and out as they are, and are rebuilt with their storage class, sign and bytes. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { SqlParams, TenantId } from "../../src/index.ts";
import { TestNode } from "../sim/test-node.ts";

let node: TestNode;
let tenant: TenantId;

beforeAll(async () => {
  node = await TestNode.open({ limits: { maxValueBytes: 1_000_000, maxSqlBytes: 400_000 } });
  tenant = await node.createTenant();
  await node.db.execute(tenant, "CREATE TABLE v (id INTEGER PRIMARY KEY, v, t TEXT, r REAL, n NUMERIC)");
});

afterAll(async () => {
  expect(await node.rebuildDifferences(tenant)).toEqual([]);
  await node[Symbol.asyncDispose]();
});

const KEPT: readonly (readonly [name: string, value: unknown, type: string, out?: unknown])[] = [
  ["null", null, "null"],
  ["zero", 0, "integer"],
  ["a negative integer", -1, "integer"],
  ["the largest safe integer", Number.MAX_SAFE_INTEGER, "integer"],
  ["the first unsafe integer", 2n ** 53n, "integer"],
  ["the largest integer", 2n ** 63n - 1n, "integer"],
  ["the smallest integer", -(2n ** 63n), "integer"],
  ["a small bigint", 7n, "integer", 7],
  ["a fraction", 0.1, "real"],
  ["negative zero", -0, "real"],
  ["the smallest double", Number.MIN_VALUE, "real"],
  ["a double past the integers", 1e300, "real"],
  ["infinity", Number.POSITIVE_INFINITY, "real"],
  ["negative infinity", Number.NEGATIVE_INFINITY, "real"],
  ["true", true, "integer", 1],
  ["false", false, "integer", 0],
  ["empty text", "", "text"],
  ["text beyond the basic plane", "naïve 🙂 日本", "text"],
  ["text that looks like a number", "007", "text"],
  ["text that holds a NUL", "a\0b", "text"],
  ["an empty blob", new Uint8Array(0), "blob"],
  ["bytes", new Uint8Array([0, 255, 128]), "blob"],
  [
    "a view into a larger buffer",
    new Uint8Array([1, 2, 3, 4]).subarray(1, 3),
    "blob",
    new Uint8Array([2, 3]),
  ],
  ["an ArrayBuffer", new Uint8Array([9]).buffer, "blob", new Uint8Array([9])],
  ["a large blob", new Uint8Array(900_000).fill(7), "blob"],
];

describe("kept", () => {
  test.for(KEPT)("%s", async ([, value, type, out]) => {
    const { lastInsertRowid } = await node.db.execute(tenant, "INSERT INTO v (v) VALUES (?)", [
      value,
    ] as SqlParams);
    const [row] = await node.db.query(tenant, "SELECT v, typeof(v) AS type FROM v WHERE id = ?", [
      lastInsertRowid as number,
    ]);
    expect(row?.["type"]).toBe(type);
    const got = row?.["v"];
    expect(got instanceof Uint8Array ? new Uint8Array(got) : got).toStrictEqual(
      out === undefined ? value : out,
    );
  });

  test("text that is not UTF-8 keeps its bytes", async () => {
    await node.db.execute(tenant, "INSERT INTO v (id, t) VALUES (1000, CAST(x'61ff00c3' AS TEXT))");
    await node.db.execute(tenant, "UPDATE v SET v = 1 WHERE id = 1000");
    expect(await node.db.query(tenant, "SELECT hex(t) AS h, typeof(t) AS t FROM v WHERE id = 1000")).toEqual([
      { h: "61FF00C3", t: "text" },
    ]);
  });

  test("affinities convert as in SQLite", async () => {
    await node.db.execute(
      tenant,
      "INSERT INTO v (id, t, r, n) VALUES (1001, 5, 5, '5.0'), (1002, 1.5, 'x', 9e999)",
    );
    const rows = await node.db.query(
      tenant,
      "SELECT typeof(t) AS t, typeof(r) AS r, typeof(n) AS n FROM v WHERE id > 1000",
    );
    expect(rows).toEqual([
      { t: "text", r: "real", n: "integer" },
      { t: "text", r: "text", n: "real" },
    ]);
  });

  test("safe and unsafe integers in one row", async () => {
    const rows = await node.db.query(
      tenant,
      "SELECT 1 AS a, 9007199254740993 AS b, -9223372036854775808 AS c",
    );
    expect(rows).toEqual([{ a: 1, b: 9007199254740993n, c: -(2n ** 63n) }]);
  });
});

const REFUSED: readonly (readonly [name: string, params: unknown])[] = [
  ["NaN", [Number.NaN]],
  ["undefined", [undefined]],
  ["a lone surrogate", ["\ud800"]],
  ["an integer past 64 bits", [2n ** 63n]],
  ["an integer below 64 bits", [-(2n ** 63n) - 1n]],
  ["an object", [{}]],
  ["an array", [[1]]],
  ["a Date", [new Date(0)]],
  ["a symbol", [Symbol("x")]],
  ["too few", []],
  ["too many", [1, 2]],
  ["a name that is not there", { other: 1 }],
  ["something that is no list", 7],
];

describe("refused with invalid_parameter", () => {
  test.for(REFUSED)("%s", async ([, params]) => {
    await expect(
      node.db.execute(tenant, "INSERT INTO v (v) VALUES (?)", params as SqlParams),
    ).rejects.toMatchObject({ code: "invalid_parameter" });
    await expect(node.db.query(tenant, "SELECT ?", params as SqlParams)).rejects.toMatchObject({
      code: "invalid_parameter",
    });
  });
});

describe("parameters", () => {
  test("by name with every prefix, and by number", async () => {
    expect(await node.db.query(tenant, "SELECT :a AS a, @b AS b, $c AS c", { a: 1, b: 2, c: 3 })).toEqual([
      { a: 1, b: 2, c: 3 },
    ]);
    expect(await node.db.query(tenant, "SELECT :a AS a, @b AS b", { ":a": 1, "@b": 2 })).toEqual([
      { a: 1, b: 2 },
    ]);
    expect(await node.db.query(tenant, "SELECT ?2 AS a, ?1 AS b", [1, 2])).toEqual([{ a: 2, b: 1 }]);
  });

  test("by number, whatever looks like one", async () => {
    expect(
      await node.db.query(tenant, "SELECT ?1 AS a, ? AS b, ?1 AS c, '?9' AS d /* ?8 */ -- ?7", [1, 2]),
    ).toEqual([{ a: 1, b: 2, c: 1, d: "?9" }]);
    expect(await node.db.query(tenant, "SELECT '?1' AS a, ? AS b", [1])).toEqual([{ a: "?1", b: 1 }]);
    for (const params of [[1], [1, 2, 3]]) {
      await expect(node.db.query(tenant, "SELECT ?2 AS a, ?1 AS b", params)).rejects.toMatchObject({
        code: "invalid_parameter",
      });
    }
  });

  test("32,766 of them, and one more", async () => {
    const list = (count: number): string =>
      `SELECT count(*) AS n FROM json_each('[1]') WHERE 1 IN (${"?,".repeat(count - 1)}?)`;
    const values = (count: number): number[] => Array.from({ length: count }, () => 1);
    expect(await node.db.query(tenant, list(32_766), values(32_766))).toEqual([{ n: 1 }]);
    await expect(node.db.query(tenant, list(32_767), values(32_767))).rejects.toMatchObject({
      code: "invalid_parameter",
    });
  });

  test("a value, a row and a text past their limits", async () => {
    const refused = { code: "value_too_large" };
    await expect(
      node.db.execute(tenant, "INSERT INTO v (v) VALUES (?)", [new Uint8Array(1_000_001)]),
    ).rejects.toMatchObject(refused);
    await expect(
      node.db.execute(tenant, "INSERT INTO v (v, t) VALUES (?, ?)", [
        new Uint8Array(600_000),
        "x".repeat(600_000),
      ]),
    ).rejects.toMatchObject(refused);
    await expect(node.db.execute(tenant, `SELECT '${"x".repeat(400_001)}'`)).rejects.toMatchObject(refused);
  });
});
