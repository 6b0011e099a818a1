import { describe, expect, it } from "vitest";
import { Views } from "./expansion.ts";

/** `verdict` of a text among views: may be compiled here, in a lane, or nowhere. */
function verdict(sql: string, views: Readonly<Record<string, string>> = {}): "here" | "lane" | "nowhere" {
  try {
    return new Views(new Map(Object.entries(views))).require(sql) ? "here" : "lane";
  } catch {
    return "nowhere";
  }
}

/** Views v0 … v<depth>, each naming the one below twice, in a way of its own. */
function doubling(depth: number, name: (below: string) => string = (below) => below): Record<string, string> {
  const views: Record<string, string> = { v0: "CREATE VIEW v0 AS SELECT id FROM t" };
  for (let at = 1; at <= depth; at += 1) {
    const below = name(`v${at - 1}`);
    views[`v${at}`] = `CREATE VIEW v${at} AS SELECT a.id FROM ${below} a, ${below} AS b`;
  }
  return views;
}

function doublingExpressions(depth: number): string {
  const parts = ["c0 AS (SELECT 1 AS x)"];
  for (let at = 1; at <= depth; at += 1)
    parts.push(`c${at}(x) AS NOT MATERIALIZED (SELECT a.x FROM c${at - 1} a, c${at - 1} b)`);
  return `WITH ${parts.join(", ")} SELECT count(*) FROM c${depth}`;
}

describe("how far a text grows", () => {
  it("lets pass what people write", () => {
    const views = doubling(3);
    for (const sql of [
      "SELECT * FROM v3 JOIN v2 USING (id) WHERE v3.id IN v1",
      "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 9) SELECT * FROM c",
      "SELECT (WITH c AS (SELECT 1 x) SELECT x FROM c), (WITH c AS (SELECT 2 x) SELECT x FROM c)",
      `INSERT INTO t VALUES ${"(1, 'v3'),".repeat(3)} (1, 2)`,
      doublingExpressions(4),
    ])
      expect(verdict(sql, views), sql).toBe("here");
  });

  it.each<[string, (below: string) => string]>([
    ["bare", (below) => below],
    ["in capitals", (below) => below.toUpperCase()],
    ["quoted", (below) => `"${below}"`],
    ["bracketed", (below) => `[${below}]`],
    ["in back quotes", (below) => `\`${below}\``],
    ["as a string", (below) => `'${below}'`],
    ["qualified", (below) => `main . ${below}`],
    ["qualified and quoted", (below) => `"MAIN"."${below}"`],
    ["behind a comment", (below) => `/* . */ ${below} -- as\n`],
  ])("sees views that double when they are named %s", (_how, name) => {
    expect(verdict("SELECT * FROM v7", doubling(7, name))).toBe("lane");
    expect(verdict("SELECT * FROM v30", doubling(30, name))).toBe("nowhere");
  });

  it("sees common table expressions that double, also under one name in several places", () => {
    expect(verdict(doublingExpressions(7))).toBe("lane");
    expect(verdict(doublingExpressions(30))).toBe("nowhere");
    let nested = "SELECT 1 AS x";
    for (let at = 0; at < 20; at += 1) {
      const name = at % 2 === 0 ? "a" : "b";
      nested = `WITH ${name} AS (${nested}) SELECT p.x FROM ${name} p, ${name} q`;
    }
    expect(verdict(nested)).toBe("nowhere");
  });

  it("weighs what a function over the schema may be given", () => {
    const views = doubling(8);
    expect(verdict("SELECT * FROM pragma_table_info(?)", views)).toBe("lane");
    expect(verdict("SELECT * FROM t WHERE id = ?", views)).toBe("here");
  });

  it("counts large bodies, not only many", () => {
    const views = { big: `CREATE VIEW big AS SELECT ${"id + ".repeat(20_000)} 1 FROM t` };
    expect(verdict("SELECT * FROM big", views)).toBe("lane");
    expect(verdict(`SELECT 1 ${", (SELECT 1 FROM big)".repeat(20)}`, views)).toBe("nowhere");
  });

  it("ends for views that are defined by each other", () => {
    const views = { a: "CREATE VIEW a AS SELECT * FROM b, b", b: "CREATE VIEW b AS SELECT * FROM a, a" };
    expect(verdict("SELECT * FROM a", views)).toBe("here");
  });
});
