/**
 * Hides Kimberlite's own tables from tenants that read SQLite's schema table.
 *
 * An authorizer cannot filter rows, and SQLite lets nothing stand before `sqlite_master` ("table sqlite_master already
 * exists", also for a temporary view). So the guard refuses the real table, and a statement that was refused it is
 * compiled once more with common table expressions named `sqlite_master` and `sqlite_schema`, which leave reserved
 * names out. The guard lets only the expression of a secret name read the real table.
 *
 * Invariant: safety rests on the guard alone. If the text is misread here, the statement fails; it cannot see more.
 */
import { randomInt } from "node:crypto";
import type { Denial, Guard } from "./guard.ts";

/** Hides the schema table of one connection, once, while trusted. Returns the number of the expression that may read it. */
export function hideSchemaTable(guard: Guard): number {
  const view = randomInt(1, 2 ** 31 - 1);
  guard.hideSchema(view);
  return view;
}

/** Whether a statement was refused because it reads the schema table, so that `filterSchemaTable` may help. */
export function isSchemaTableDenial(denied: Denial | undefined): boolean {
  return denied?.action === "READ" && /^sqlite_(master|schema)$/i.test(denied.object ?? "");
}

const BLANK = /(?:\s|--[^\n]*(?:\n|$)|\/\*[\s\S]*?(?:\*\/|$))/y;
const EXPLAIN = /explain(?:\s+query\s+plan)?\b/iy;
const WITH = /with(?:\s+recursive)?\b/iy;
const STATEMENT = /(?:select|values|insert|replace|update|delete)\b/iy;

/**
 * The statement with `sqlite_master` and `sqlite_schema` meaning the tenant's own part of the schema table.
 * `undefined` for statements that cannot have a WITH clause in front: DDL, PRAGMA. Those stay refused, as do names
 * qualified by `main.` and views of the tenant over the schema table.
 */
export function filterSchemaTable(sql: string, view: number): string | undefined {
  const start = skipBlanks(sql, skipWord(sql, skipBlanks(sql, 0), EXPLAIN));
  const afterWith = skipWord(sql, start, WITH);
  const expressions = schemaExpressions(view);
  if (afterWith > start) return `${sql.slice(0, afterWith)} ${expressions}, ${sql.slice(afterWith)}`;
  if (skipWord(sql, start, STATEMENT) === start) return undefined;
  return `${sql.slice(0, start)}WITH ${expressions} ${sql.slice(start)}`;
}

function schemaExpressions(view: number): string {
  const own = (column: string): string => `${column} LIKE '\\_kimberlite\\_%' ESCAPE '\\'`;
  const source = `_kimberlite_schema_${view}`;
  const filtered = `SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_master`;
  return [
    `${source} AS (${filtered} WHERE NOT (${own("name")} OR ${own("tbl_name")}))`,
    `sqlite_master AS (SELECT * FROM ${source})`,
    `sqlite_schema AS (SELECT * FROM ${source})`,
  ].join(", ");
}

function skipBlanks(sql: string, from: number): number {
  let at = from;
  for (let next = skipWord(sql, at, BLANK); next > at; next = skipWord(sql, at, BLANK)) at = next;
  return at;
}

/** Where `pattern` ends if it stands at `at`, else `at`. */
function skipWord(sql: string, at: number, pattern: RegExp): number {
  pattern.lastIndex = at;
  return pattern.test(sql) ? pattern.lastIndex : at;
}
