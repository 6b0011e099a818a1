/** Time travel over HTTP: exact values, what was and nothing else, by the tenant's own alone. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { type Api, apiOf } from "./api.ts";
import { type Served, startServed } from "./served.ts";

const A = TenantId(1);
const PATH = "/v1/tenants/1/history/query";
let served: Served;
let reader: Api;

beforeAll(async () => {
  served = await startServed();
  reader = apiOf(served, "1:reader");
  for (const id of ["1", "2"]) {
    await apiOf(served, "operator")("POST", "/v1/tenants", { id, name: `Hospital ${id}` });
  }
  await served.db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
});
afterAll(async () => served[Symbol.asyncDispose]());

const sizeOfLog = async (): Promise<bigint> => (await served.db.describeTenant(A)).size;

it("gives every value as it was, with its type; a whole REAL as an integer, as the library does", async () => {
  const values = [
    null,
    2n ** 62n,
    1.5,
    2.0,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    "ä\u0000",
    Buffer.from([0, 255]),
  ];
  await served.db.insert(
    A,
    "t",
    values.map((v) => ({ v })),
  );
  const at = String((await sizeOfLog()) - 1n);
  await served.db.execute(A, "DELETE FROM t");
  const typed = [
    { type: "null" },
    { type: "integer", value: "4611686018427387904" },
    { type: "float", value: 1.5 },
    { type: "integer", value: "2" },
    { type: "float", value: "Infinity" },
    { type: "float", value: "-Infinity" },
    { type: "text", value: "ä\u0000" },
    { type: "blob", base64: "AP8=" },
  ];
  const { status, body } = await reader("POST", PATH, { sql: "SELECT v FROM t ORDER BY id", at });
  expect([status, body]).toEqual([200, { columns: ["v"], rows: typed.map((value) => [value]) }]);
  const given = await reader("POST", PATH, { sql: "SELECT ?, ?, ?, ?, ?, ?, ?, ?", params: typed, at });
  expect(given.body["rows"]).toEqual([typed]);
  const real = await reader("POST", PATH, { sql: "SELECT 2.0 AS r, typeof(2.0) AS t", at });
  expect(real.body["rows"]).toEqual([
    [
      { type: "integer", value: "2" },
      { type: "text", value: "real" },
    ],
  ]);
  const named = await reader("POST", PATH, { sql: "SELECT :a AS a", params: { a: typed[4] }, at });
  expect(named.body).toEqual({ columns: ["a"], rows: [[typed[4]]] });
});

it("writes nothing, and refuses what is no moment of the tenant's", async () => {
  const before = await sizeOfLog();
  const ask = async (body: object, api = reader) => (await api("POST", PATH, body)).body.code;
  const sql = "SELECT count(*) FROM t";
  expect(await ask({ sql: "INSERT INTO t (v) VALUES (1)", at: "2" })).toBe("read_only");
  expect(await ask({ sql: "INSERT INTO t (v) VALUES (1)", at: "2" }, apiOf(served, "1:admin"))).toBe(
    "read_only",
  );
  expect(await ask({ sql, at: String(before) })).toBe("offset_out_of_range");
  expect(await ask({ sql, at: "1999-01-01T00:00:00Z" })).toBe("offset_out_of_range");
  for (const at of ["-1", "now", "", "2026-13-01T00:00:00Z", "2026-01-01", "9".repeat(20), 3, undefined]) {
    expect([at, await ask({ sql, at })]).toEqual([at, "invalid_argument"]);
  }
  expect(await ask({ sql: "SELECT", at: "2" })).toBe("invalid_sql");
  expect(await ask({ sql: "ATTACH ':memory:' AS m", at: "2" })).toBe("unsupported_sql");
  expect(await ask({ sql, at: "2" }, apiOf(served, "2:admin"))).toBe("not_authorized");
  expect(await ask({ sql, at: "2" }, apiOf(served, "operator"))).toBe("not_authorized");
  await served.db.suspendTenant(A);
  expect(await ask({ sql, at: "2" })).toBe("tenant_suspended");
  await served.db.resumeTenant(A);
  const { size } = await served.db.describeTenant(A);
  expect(size).toBe(before);
});

it("is counted by the tenant's quota as any query is", async () => {
  await served.db.setQuota(A, { maxOpsPerSec: 1 });
  const ask = () => reader("POST", PATH, { sql: "SELECT 1", at: "2" });
  const answers = await Promise.all(Array.from({ length: 20 }, ask));
  expect(answers.filter(({ body }) => body.code === "rate_limited").length).toBeGreaterThan(0);
  await served.db.setQuota(A, {});
});
