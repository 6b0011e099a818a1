/** How a text begins, as SQLite sees it, whatever comes before; and that no text takes longer than its length. */
import { describe, expect, it } from "vitest";
import { isExplain, mayRead, parseControl } from "./sql-text.ts";

const PREFIXES = [
  "",
  " \t\r\n\f",
  "-- x\n",
  "/* ; */",
  "/**//*/*/",
  ";;",
  "\ufeff",
  "\ufeff;/* */\n-- explain\n",
];

describe("the beginning of a text", () => {
  it.each(PREFIXES)("is found behind %j", (prefix) => {
    expect(isExplain(`${prefix}EXPLAIN SELECT 1`)).toBe(true);
    expect(isExplain(`${prefix}explain query plan SELECT 1`)).toBe(true);
    expect(isExplain(`${prefix}SELECT 1 AS explain`)).toBe(false);
    expect(mayRead(`${prefix}select 1`)).toBe(true);
    expect(mayRead(`${prefix}WITH a AS (SELECT 1) SELECT * FROM a`)).toBe(true);
    expect(mayRead(`${prefix}WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a`)).toBe(false);
    expect(mayRead(`${prefix}DELETE FROM t`)).toBe(false);
  });

  it("is none of a comment that does not end, or of nothing", () => {
    for (const text of ["/* explain", "-- explain", "", ";", "/*/ explain", "explained"]) {
      expect(isExplain(text)).toBe(false);
    }
  });

  it.each([
    ["comments", "/**/".repeat(500_000)],
    ["comments that do not end", "/*".repeat(1_000_000)],
    ["comments of a line", "\n--".repeat(1_000_000)],
    ["blanks", " \n".repeat(1_000_000)],
    ["semicolons", ";".repeat(1_000_000)],
  ])("takes no longer than the text: %s", (_, prefix) => {
    const startedMs = performance.now();
    for (const sql of [prefix, `${prefix} SELECT 1`]) {
      isExplain(sql);
      mayRead(sql);
      parseControl(sql.slice(0, 1_000));
    }
    expect(performance.now() - startedMs).toBeLessThan(5_000);
  });
});
