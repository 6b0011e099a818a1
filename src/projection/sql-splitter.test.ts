/** Statements end where SQLite ends them, however the text arrives. */
import Database from "better-sqlite3-multiple-ciphers";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SqlSplitter, splitSql } from "./sql-splitter.ts";

const TRIGGER = `CREATE TRIGGER t AFTER INSERT ON a BEGIN
  UPDATE a SET x = CASE WHEN x > 1 THEN 'a;b' ELSE 'END;' END;
  INSERT INTO b VALUES (1); -- END;
END`;

describe("splitSql", () => {
  it.each([
    ["", []],
    [" ; ;; \n;", []],
    ["-- only a comment;", []],
    ["/* one; */ -- two;\n", []],
    ["SELECT 1", ["SELECT 1"]],
    ["SELECT 1;", ["SELECT 1"]],
    ["SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]],
    ["SELECT ';'; SELECT 'it''s; '';'", ["SELECT ';'", "SELECT 'it''s; '';'"]],
    [
      'SELECT 1 AS "a;b"; SELECT 2 AS `c;d`; SELECT 3 AS [e;f]',
      ['SELECT 1 AS "a;b"', "SELECT 2 AS `c;d`", "SELECT 3 AS [e;f]"],
    ],
    ["SELECT 1 -- ; '\n; SELECT 2", ["SELECT 1 -- ; '", "SELECT 2"]],
    ["SELECT 1 /* ; ' */ + 1; SELECT 2", ["SELECT 1 /* ; ' */ + 1", "SELECT 2"]],
    ["SELECT 4 / 2; SELECT 4 - 2; SELECT 1--;\n", ["SELECT 4 / 2", "SELECT 4 - 2", "SELECT 1--;"]],
    ["SELECT 1 /**/; SELECT /***/ 2; SELECT /*/*/ 3", ["SELECT 1 /**/", "SELECT /***/ 2", "SELECT /*/*/ 3"]],
    ["/* a; */ SELECT 1; -- b;\nSELECT 2", ["SELECT 1", "SELECT 2"]],
    [`${TRIGGER}; SELECT 1`, [TRIGGER, "SELECT 1"]],
    [`create temporary${TRIGGER.slice(6)};SELECT 1;`, [`create temporary${TRIGGER.slice(6)}`, "SELECT 1"]],
    [`EXPLAIN QUERY PLAN ${TRIGGER}; SELECT 1`, [`EXPLAIN QUERY PLAN ${TRIGGER}`, "SELECT 1"]],
    ["CREATE TABLE trigger_log (x); SELECT 1", ["CREATE TABLE trigger_log (x)", "SELECT 1"]],
    [
      "CREATE /* c */ TEMP -- d\n TRIGGER t BEGIN SELECT 1; END; SELECT 2",
      ["CREATE /* c */ TEMP -- d\n TRIGGER t BEGIN SELECT 1; END", "SELECT 2"],
    ],
    [
      "CREATE TRIGGER t BEGIN SELECT 1; endless; END /* x */ ; SELECT 2",
      ["CREATE TRIGGER t BEGIN SELECT 1; endless; END /* x */", "SELECT 2"],
    ],
    ["SELECT 'unterminated; ", ["SELECT 'unterminated;"]],
    ["SELECT 1; /* unterminated; ", ["SELECT 1"]],
    ["SELECT 1; /* unterminated *", ["SELECT 1"]],
    ["-", ["-"]],
    ["\ufeffSELECT 1;", ["SELECT 1"]],
    ["SELECT 'é😀;'; SELECT größe", ["SELECT 'é😀;'", "SELECT größe"]],
    ["CREATE TRIGGERS (x); SELECT 1", ["CREATE TRIGGERS (x)", "SELECT 1"]],
  ])("%j", (text, expected) => {
    expect(splitSql(text)).toEqual(expected);
  });

  it("gives the same however the text is cut", () => {
    const piece = fc.constantFrom(
      ..."'\"`[]-/*;\n x",
      "--",
      "/*",
      "*/",
      "CREATE ",
      "TEMP ",
      "TRIGGER ",
      "BEGIN ",
      ";END;",
      "END ",
      "EXPLAIN ",
      "SELECT ",
      "1",
    );
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 40 }),
        fc.array(fc.nat(6), { minLength: 1 }),
        (pieces, cuts) => {
          const text = pieces.join("");
          const splitter = new SqlSplitter();
          const statements: string[] = [];
          for (let at = 0, turn = 0; at < text.length; turn += 1) {
            const length = (cuts[turn % cuts.length] ?? 0) + 1;
            statements.push(...splitter.push(text.slice(at, at + length)));
            at += length;
          }
          const last = splitter.finish();
          expect(last === undefined ? statements : [...statements, last]).toEqual(splitSql(text));
        },
      ),
    );
  });

  it("cuts where SQLite itself ends a statement", () => {
    const statement = fc.constantFrom(
      "SELECT 'a;''b'",
      'SELECT 1 AS "x;y"',
      "SELECT [z].a FROM (SELECT 1 AS a) [z]",
      "SELECT 1 -- c;'\n",
      "SELECT /* ; */ 2",
      "CREATE TABLE IF NOT EXISTS a (x)",
      "CREATE TEMP TRIGGER IF NOT EXISTS t AFTER INSERT ON a BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; SELECT ';END;'; END",
      "EXPLAIN SELECT 1",
      "SELECT 3 - -1 / 2",
    );
    const db = new Database(":memory:");
    db.exec("CREATE TABLE a (x)");
    fc.assert(
      fc.property(fc.array(statement, { minLength: 1, maxLength: 8 }), (statements) => {
        const split = splitSql(statements.join(" ;\n"));
        expect(split).toEqual(statements.map((text) => text.trimEnd()));
        // SQLite compiles each, and finds nothing behind it: with more than one statement it would throw.
        for (const text of split) db.prepare(text);
      }),
    );
    db.close();
  });

  it("looks at each character once: a statement of many pieces costs what its length is", () => {
    const splitter = new SqlSplitter();
    splitter.push("INSERT INTO t VALUES ('");
    const startedMs = performance.now();
    for (let line = 0; line < 50_000; line += 1) splitter.push("some text that has no end; not here\n");
    expect(performance.now() - startedMs).toBeLessThan(5_000);
    expect(splitter.push("');")).toHaveLength(1);
  });

  it("is idle exactly between statements", () => {
    const splitter = new SqlSplitter();
    const idleAfter = (text: string): boolean => {
      splitter.push(text);
      return splitter.idle;
    };
    expect(["", "\n", "SELECT", " 1;", "/* ", " */", "-- x", "\n", "'"].map(idleAfter)).toEqual([
      true,
      true,
      false,
      true,
      false,
      true,
      false,
      true,
      false,
    ]);
    splitter.reset();
    expect(splitter.idle).toBe(true);
  });
});
