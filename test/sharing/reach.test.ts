/** What a reader can reach by SQL under a grant: the columns and rows that are shared, and nowhere else. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { KimberliteError, type Row, type SqlParams } from "../../src/index.ts";
import { ATTACKS } from "./attacks.ts";
import { HIDDEN, HIDDEN_NAMES, Hospitals, OWNER } from "./hospitals.ts";

let hospitals: Hospitals;

beforeAll(async () => {
  hospitals = await Hospitals.make();
  await hospitals.grant();
});

afterAll(() => hospitals[Symbol.asyncDispose]());

/** What a statement gives, or the error's text: neither may hold a word of what is not shared. */
async function attempt(sql: string, params?: SqlParams): Promise<string> {
  const given = await hospitals.query(sql, params).catch((error: unknown) => error);
  if (given instanceof Error && !(given instanceof KimberliteError)) throw given;
  const shown =
    given instanceof KimberliteError
      ? `${given.code} ${given.message} ${JSON.stringify(plain(given.detail))}`
      : plain(given);
  return typeof shown === "string" ? shown : JSON.stringify(shown);
}

function plain(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_, item: unknown) => (typeof item === "bigint" ? `${item}` : item)),
  );
}

function namesIn(text: string, sql: string): string[] {
  return [HIDDEN, ...HIDDEN_NAMES].filter((word) => text.includes(word) && !sql.includes(word));
}

describe("a reader under a grant", () => {
  it("sees the columns and rows that are shared, as the table has them", async () => {
    const rows = await hospitals.query("SELECT * FROM patients ORDER BY id LIMIT 2");
    expect(rows).toEqual([
      { id: 1, name: "Patient 1", dose: 0.5 },
      { id: 3, name: "Patient 3", dose: 1.5 },
    ]);
    expect(await hospitals.query("SELECT count(*) AS n, max(id) AS last FROM patients")).toEqual([
      { n: 50, last: 99 },
    ]);
    const like = await hospitals.query("SELECT id FROM patients WHERE name = 'PATIENT 7'");
    expect(like).toEqual([{ id: 7 }]);
  });

  it("sees what its owner writes, at once", async () => {
    await hospitals.db.insert(OWNER, "patients", { id: 1001, name: "New", ward: "A" });
    expect(await hospitals.query("SELECT name FROM patients WHERE id = 1001")).toEqual([{ name: "New" }]);
    await hospitals.db.execute(OWNER, "UPDATE patients SET ward = 'B' WHERE id = 1001");
    expect(await hospitals.query("SELECT name FROM patients WHERE id = 1001")).toEqual([]);
    await hospitals.db.execute(OWNER, "DELETE FROM patients WHERE id = 1001");
  });

  it.each(ATTACKS)("cannot reach %s", async (_, sql) => {
    const shown = await attempt(sql);
    expect(namesIn(shown, sql)).toEqual([]);
    expect(shown).not.toContain(HIDDEN);
  });

  it("gets the same answer for a name that its owner has and for one that nobody has", async () => {
    for (const sql of [
      (name: string) => `SELECT * FROM ${name}`,
      (name: string) => `SELECT * FROM main.${name}`,
      (name: string) => `SELECT * FROM pragma_table_info('${name}')`,
      (name: string) => `PRAGMA index_list(${name})`,
      (name: string) => `SELECT * FROM patients p JOIN ${name}`,
    ]) {
      const real = await attempt(sql("secrets"));
      expect(real.replaceAll("secrets", "nowhere")).toBe(await attempt(sql("nowhere")));
    }
    const column = await attempt("SELECT diagnosis FROM patients");
    expect(column.replaceAll("diagnosis", "nowhere")).toBe(await attempt("SELECT nowhere FROM patients"));
  });
});

describe("rows that are not shared", () => {
  it.each([
    ["by their key", "SELECT * FROM patients WHERE id = 2", []],
    ["by a range", "SELECT id FROM patients WHERE id BETWEEN 2 AND 4", [{ id: 3 }]],
    [
      "by OR",
      "SELECT id FROM patients WHERE id = 2 OR id = 3 OR dose < 0.6 ORDER BY id",
      [{ id: 1 }, { id: 3 }],
    ],
    [
      "by a predicate that is always true",
      "SELECT count(*) AS n FROM patients WHERE 1 OR ward_ IS NULL",
      undefined,
    ],
    ["by NOT", "SELECT count(*) AS n FROM patients WHERE NOT (id = 1)", [{ n: 49 }]],
    [
      "by a left join",
      "SELECT count(b.id) AS n FROM patients a LEFT JOIN patients b ON b.id = a.id + 1",
      [{ n: 0 }],
    ],
    [
      "by an aggregate",
      "SELECT count(*) AS n, sum(id) AS s, max(dose) AS d FROM patients",
      [{ n: 50, s: 2500, d: 49.5 }],
    ],
    ["by a window", "SELECT max(lead(id) OVER (ORDER BY id) - id) AS gap FROM patients", undefined],
    ["by LIMIT and OFFSET", "SELECT id FROM patients ORDER BY id DESC LIMIT 2 OFFSET 49", [{ id: 1 }]],
    ["by text that compares as a number", "SELECT id FROM patients WHERE id = '2'", []],
    ["by a collation", "SELECT id FROM patients WHERE name COLLATE RTRIM = 'hidden-value-7f3a 2  '", []],
  ] as [string, string, Row[] | undefined][])("are not found %s", async (_, sql, expected) => {
    if (expected === undefined) expect(await attempt(sql)).not.toContain(HIDDEN);
    else expect(await hospitals.query(sql)).toEqual(expected);
  });

  it("are not evaluated: an expression that fails on them fails on none", async () => {
    // Each would fail on a row that is not shared, and does not fail on those that are.
    for (const sql of [
      "SELECT count(*) AS n FROM patients WHERE CASE WHEN id % 2 = 0 THEN abs(-9223372036854775807 - 1) ELSE 1 END",
      "SELECT count(*) AS n FROM patients WHERE CASE WHEN name LIKE 'hidden%' THEN json('{') ELSE 1 END IS NOT NULL",
      "SELECT count(*) AS n FROM (SELECT CASE WHEN id = 2 THEN zeroblob(1000000000) END FROM patients)",
    ]) {
      expect(await hospitals.query(sql)).toEqual([{ n: 50 }]);
    }
    const failing =
      "SELECT count(*) FROM patients WHERE CASE WHEN id = 3 THEN abs(-9223372036854775807 - 1) ELSE 1 END";
    expect(await attempt(failing)).toContain("integer overflow");
  });

  it("do not show in rowids", async () => {
    const rows = await hospitals.query("SELECT rowid AS r FROM patients");
    const small = rows.filter(({ r }) => Math.abs(Number(r)) < 1_000_000);
    expect(small).toEqual([]);
    expect(new Set(rows.map(({ r }) => String(r))).size).toBe(50);
  });
});
