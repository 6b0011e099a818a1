/** No value that was typed reaches the history file. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { loadHistory, saveHistory, withoutValues } from "./shell-history.ts";

const folder = mkdtempSync(join(tmpdir(), "kimberlite-history-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("withoutValues", () => {
  it.each([
    ["SELECT * FROM t WHERE id = 12 AND n = 'it''s';", "SELECT * FROM t WHERE id = ? AND n = ?;"],
    [
      "INSERT INTO t1 VALUES (1, -2.5e-3, .5, 0xff, x'00ff', NULL);",
      "INSERT INTO t1 VALUES (?, -?, ?, ?, ?, NULL);",
    ],
    ["SELECT a -- Alice\n FROM t /* Bob */ LIMIT 3;", "SELECT a FROM t LIMIT ?;"],
    ['SELECT "a 1", [b 2], `c 3` FROM t2;', 'SELECT "a 1", [b 2], `c 3` FROM t2;'],
    ["SELECT 'a\nb',\n\n 1;", "SELECT ?, ?;"],
    ["SELECT 'unterminated", "SELECT ?"],
    ["SELECT /* unterminated", "SELECT"],
  ])("%j", (sql, kept) => {
    expect(withoutValues(sql)).toBe(kept);
  });

  it("keeps no string, wherever it stands", () => {
    const around = fc.string({ unit: fc.constantFrom(..."ab1 (),=-/*;\n") });
    fc.assert(
      fc.property(around, (before) => {
        const sql = `${before.replaceAll("/*", "").replaceAll("--", "")} = 'SECRET''S' `;
        expect(withoutValues(sql)).not.toContain("SECRET");
      }),
    );
  });
});

describe("the history file", () => {
  it("holds statements without their values, for its owner alone, the latest first", () => {
    const path = join(folder, "history");
    writeFileSync(path, "", { mode: 0o644 });
    saveHistory(path, ["SELECT 1;", "SELECT name FROM p WHERE name = 'Alice Smith';"]);
    saveHistory(path, ["SELECT name FROM p WHERE name = 'Bob';", "SELECT 2\n, 3;"]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readFileSync(path, "utf8")).not.toMatch(/Alice|Bob/);
    expect(loadHistory(path)).toEqual(["SELECT ? , ?;", "SELECT name FROM p WHERE name = ?;", "SELECT ?;"]);
  });

  it("is bounded, and does without a file that cannot be used", () => {
    const path = join(folder, "long");
    saveHistory(
      path,
      Array.from({ length: 700 }, (_, index) => `SELECT c${index};`),
    );
    expect(loadHistory(path)).toHaveLength(500);
    expect(loadHistory(path)[0]).toBe("SELECT c699;");
    expect(loadHistory(join(folder, "absent"))).toEqual([]);
    expect(() => saveHistory(join(folder, "no-folder", "history"), ["SELECT 1;"])).not.toThrow();
  });
});
