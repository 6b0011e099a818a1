import Database from "better-sqlite3-multiple-ciphers";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { argumentsFor, parseParams, placesOf, requireFewNames } from "./parameters.ts";
import type { SqlInput } from "./values.ts";

const db = new Database(":memory:");

/** The columns that a statement gives for a list of parameters. */
function select(sql: string, values: readonly SqlInput[]): unknown[] {
  const statement = db.prepare(sql).raw();
  return statement.get(...argumentsFor(parseParams(values), placesOf(sql))) as unknown[];
}

describe("places for parameters", () => {
  it.each<[sql: string, values: SqlInput[], columns: unknown[]]>([
    ["SELECT ?, ?", [1, 2], [1, 2]],
    ["SELECT ?3, ?1, ?3", [1, 2, 3], [3, 1, 3]],
    ["SELECT ?1, ?, ?2", [1, 2], [1, 2, 2]],
    ["SELECT ?, ?1, ?", [1, 2], [1, 1, 2]],
    ["SELECT ?2, ?, ?1", [1, 2, 3], [2, 3, 1]],
    ["SELECT ?01, ?1, ?001", [7], [7, 7, 7]],
    ["SELECT :a, @b, $c, :a", [1, 2, 3], [1, 2, 3, 1]],
    ["SELECT :a, ?, ?5", [1, 2, 3, 4, 5], [1, 2, 5]],
    ['SELECT \'?9\', "a""?8", ?1 FROM (SELECT 1 AS "a""?8") -- ?7', [5], ["?9", 1, 5]],
    ["SELECT ?1 /* ?2 */, [?3] FROM (SELECT 2 AS [?3])", [5], [5, 2]],
    ["SELECT ?2 /* not closed ?3", [1, 2], [2]],
  ])("fills %s", (sql, values, columns) => {
    expect(select(sql, values)).toEqual(columns);
  });

  it("fills any mix of places as SQLite numbers them", () => {
    const place = fc.constantFrom("?", "?1", "?2", "?3", "?7", ":a", "@b", "$c");
    fc.assert(
      fc.property(fc.array(place, { minLength: 1, maxLength: 8 }), (places) => {
        const sql = `SELECT ${places.join(", ")}`;
        const count = placesOf(sql)?.count ?? places.length;
        const values = Array.from({ length: count }, (_, index) => index + 1);
        expect(select(sql, values)).toEqual(numbered(places));
      }),
      { numRuns: 300 },
    );
  });

  it("refuses lists of another length, and two places that the binding cannot tell apart", () => {
    expect(() => select("SELECT ?3, ?1", [1, 2])).toThrow(/takes 3 parameters, and got 2/);
    expect(() => select("SELECT ?3, ?1", [1, 2, 3, 4])).toThrow(/takes 3 parameters, and got 4/);
    expect(() => select("SELECT :a, @a", [1, 2])).toThrow(/two places are called a/);
    expect(() => parseParams(Object.assign([1], { 2: 3 }) as SqlInput[])).toThrow(/parameter 2 is not/);
  });

  it("reads texts of half a megabyte in one pass, whatever is left open", () => {
    const startedMs = performance.now();
    for (const open of ["[", "/*", "'", '"', "`", "?1 ", "--"]) {
      const sql = `SELECT ?1 ${open.repeat(500_000 / open.length)}`;
      placesOf(sql);
      requireFewNames(sql);
    }
    expect(performance.now() - startedMs).toBeLessThan(5_000);
  });

  it("refuses thousands of names and numbers, and takes as many bare places as SQLite does", () => {
    const some = (count: number, place: (index: number) => string): string =>
      `SELECT ${Array.from({ length: count }, (_, index) => place(index + 1)).join()}`;
    expect(() => requireFewNames(some(32_000, () => "?"))).not.toThrow();
    expect(() => requireFewNames(some(5_000, () => ":same"))).not.toThrow();
    expect(() => requireFewNames(some(1_000, (index) => `?${index}`))).not.toThrow();
    for (const sign of ["?", ":p", "@p", "$p"])
      expect(() => requireFewNames(some(1_001, (index) => `${sign}${index}`))).toThrow(/write \? for each/);
  });
});

/** The number of each place, by the rules of SQLite's documentation. */
function numbered(places: readonly string[]): number[] {
  const names = new Map<string, number>();
  let highest = 0;
  return places.map((text) => {
    const number = /^\?\d/.test(text) ? Number(text.slice(1)) : (names.get(text) ?? highest + 1);
    if (text !== "?") names.set(text, number);
    highest = Math.max(highest, number);
    return number;
  });
}
