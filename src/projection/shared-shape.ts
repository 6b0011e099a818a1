/** Reads what is granted of a table from its projection, and whether a row predicate is one that may be granted. */
import Database from "better-sqlite3-multiple-ciphers";
import { kimberliteError } from "../errors.ts";
import type { StreamRow } from "./bookkeeping.ts";
import type { Connection } from "./connection.ts";
import { declarationOf, type SharedShape } from "./shared-table.ts";
import type { SqliteDatabase } from "./sqlite.ts";
import { isSqliteError } from "./sqlite-error.ts";
import { isVirtual, listTables, quoteName, readTable } from "./tables.ts";

interface ColumnRow {
  readonly name: string;
  readonly type: string;
  readonly hidden: number;
}

/**
 * Reads a table as it is now.
 *
 * @param stream the table's, whose count of what it lost is part of its shape
 * While trusted.
 *
 * @returns the shape of an ordinary table; undefined for one that is not there, or is a virtual table or part of one
 */
export function readShape(
  connection: Pick<Connection, "db" | "guard">,
  { name: table, nextOffset: narrowed }: Pick<StreamRow, "name" | "nextOffset">,
): SharedShape | undefined {
  const { db, guard } = connection;
  const item = listTables(db).find(({ name }) => name === table);
  if (item === undefined || isVirtual(item)) return undefined;
  const { shadow, withoutRowid, rowid, keyColumns } = readTable(db, item);
  if (shadow) return undefined;
  const listed = db.pragma(`main.table_list(${quoteName(table)})`) as { schema: string; strict: number }[];
  const columns = db.pragma(`main.table_xinfo(${quoteName(table)})`) as ColumnRow[];
  return {
    strict: listed.find(({ schema }) => schema === "main")?.strict === 1,
    withoutRowid,
    rowid: rowid ?? null,
    key: keyColumns,
    ...(narrowed === 0n ? {} : { narrowed: Number(narrowed) }),
    columns: columns.map(({ name, type, hidden }) => ({
      name,
      type,
      collation: guard.collation(table, name),
      hidden,
    })),
  };
}

/**
 * Functions that give an answer to whatever they are given: a predicate that could fail on a row that is not shared would
 * tell that there is one.
 */
const TOTAL_FUNCTIONS: ReadonlySet<string> = new Set(
  "coalesce glob iif if ifnull instr length like likelihood likely lower ltrim max min nullif octet_length round rtrim sign substr substring trim typeof unicode unlikely upper".split(
    " ",
  ),
);

/**
 * Refuses a predicate that is not an expression over the table's own columns alone, with one answer for one row.
 *
 * SQLite decides: it is compiled as the condition of a partial index of a table of the same columns in an empty database.
 * There it allows no subquery, no parameter, no other table and no function whose answer may change; and all functions
 * but total ones are made such here.
 *
 * @throws `invalid_sql`
 */
export function requirePredicate(shape: SharedShape, table: string, where: string): void {
  const db = new Database(":memory:") as unknown as SqliteDatabase;
  try {
    for (const name of otherFunctions(db)) {
      const options = { deterministic: false, varargs: true };
      db.function(name, options, () => null);
    }
    // With a third argument that a row gives, LIKE may fail on it.
    db.function("like", { deterministic: false }, (_text, _pattern, _escape) => null);
    db.exec(declarationOf(table, shape.columns, shape.strict));
    const first = quoteName(shape.columns[0]?.name ?? "");
    db.prepare(`CREATE INDEX shared ON ${quoteName(table)} (${first}) WHERE ${where}`).run();
    // As it will stand in the query: it must end where its text does.
    db.prepare(`SELECT 1 FROM ${quoteName(table)} WHERE (\n${where}\n)`);
  } catch (error) {
    const why =
      error instanceof Error && (isSqliteError(error) || error instanceof RangeError) ? error.message : "";
    const rule = "`where` is an expression over the table's own columns, with simple functions only";
    throw kimberliteError("invalid_sql", `${rule} (${why})`);
  } finally {
    db.close();
  }
}

function otherFunctions(db: SqliteDatabase): Set<string> {
  const rows = db.prepare("SELECT DISTINCT name FROM pragma_function_list").all() as { name: string }[];
  return new Set(rows.map(({ name }) => name).filter((name) => !TOTAL_FUNCTIONS.has(name.toLowerCase())));
}
