/**
 * Compares two databases as exactly as SQL can see them: schema, every row with its rowid, storage classes and bytes.
 *
 * Left out on purpose: names of Kimberlite's own, the order of rows in SQLite's own tables, and the segments of a
 * full-text index, which depend on how documents were grouped; what MATCH finds is for the caller to compare.
 */
import type { SqliteDatabase } from "../../src/projection/sqlite.ts";
import { quoteName } from "../../src/projection/tables.ts";

/** A database as lines of text by section, for comparison and for a readable difference. */
export type DatabaseImage = ReadonlyMap<string, readonly string[]>;

interface ListedTable {
  readonly name: string;
  readonly type: string;
  readonly wr: number;
}

interface Column {
  readonly name: string;
}

/** Everything that must be equal, of a connection that no guard restricts. Runs SQLite's own checks on the way. */
export function imageOf(db: SqliteDatabase): DatabaseImage {
  const image = new Map<string, string[]>();
  image.set("user_version", [String(db.pragma("user_version", { simple: true }))]);
  image.set("integrity_check", lines(db, "PRAGMA main.integrity_check"));
  image.set("foreign_key_check", foreignKeyCheck(db));
  image.set("schema", lines(db, SCHEMA_SQL).sort());
  for (const table of listTables(db)) image.set(`table ${table.name}`, rowsOf(db, table));
  for (const name of ["sqlite_sequence", "sqlite_stat1"]) image.set(name, ownRows(db, name));
  return image;
}

/** Sections and lines that differ, few of each: empty when the databases are equal. */
export function differences(left: DatabaseImage, right: DatabaseImage): string[] {
  const found: string[] = [];
  for (const section of new Set([...left.keys(), ...right.keys()])) {
    const a = left.get(section);
    const b = right.get(section);
    if (a === undefined || b === undefined)
      found.push(`${section}: only on the ${a === undefined ? "right" : "left"}`);
    else found.push(...differingLines(section, a, b));
  }
  return found;
}

const OURS = "LIKE '\\_kimberlite\\_%' ESCAPE '\\'";
const SCHEMA_SQL = `SELECT type, name, tbl_name, sql FROM main.sqlite_master
  WHERE name NOT ${OURS} AND tbl_name NOT ${OURS}`;
const MAX_LINES = 6;

function listTables(db: SqliteDatabase): ListedTable[] {
  const tables = db.pragma("main.table_list") as (ListedTable & { readonly schema: string })[];
  return tables
    .filter(({ schema, type }) => schema === "main" && (type === "table" || type === "shadow"))
    .filter(
      ({ name, type }) =>
        !/^(_kimberlite_|sqlite_)/i.test(name) && !(type === "shadow" && /_(data|idx|docsize)$/i.test(name)),
    )
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function rowsOf(db: SqliteDatabase, table: ListedTable): string[] {
  const columns = (db.pragma(`main.table_xinfo(${quoteName(table.name)})`) as Column[]).map(
    ({ name }) => name,
  );
  const taken = new Set(columns.map((name) => name.toLowerCase()));
  const rowid = table.wr === 1 ? undefined : ["rowid", "_rowid_", "oid"].find((name) => !taken.has(name));
  const shown = columns.map((name) => showSql(quoteName(name)));
  const all = rowid === undefined ? shown : [showSql(rowid), ...shown];
  // NOT INDEXED: the rows of the table itself, whatever an index holds.
  const sql = `SELECT concat_ws(' | ', '', ${nested(all)}) FROM main.${quoteName(table.name)} NOT INDEXED`;
  const rows = db.prepare(sql).pluck().all() as string[];
  return rows.sort();
}

/** A function takes 1,000 arguments at most. */
function nested(expressions: readonly string[]): string {
  const groups: string[] = [];
  for (let at = 0; at < expressions.length; at += 100)
    groups.push(`concat_ws(' | ', ${expressions.slice(at, at + 100).join(", ")})`);
  return groups.join(", ");
}

/** Storage class and exact value; a double by all its digits and its sign, text and blobs by their bytes. */
function showSql(expression: string): string {
  return `typeof(${expression}) || ' ' || CASE typeof(${expression})
    WHEN 'integer' THEN CAST(${expression} AS TEXT)
    WHEN 'real' THEN printf('%!.20g', ${expression}) || iif(${expression} = 0 AND atan2(${expression}, -1) < 0, ' negative', '')
    WHEN 'null' THEN '' ELSE hex(${expression}) END`;
}

/** A foreign key that names no key fails the check as a whole; of several, SQLite tells of any. */
function foreignKeyCheck(db: SqliteDatabase): string[] {
  try {
    return lines(db, "PRAGMA main.foreign_key_check").sort();
  } catch (error) {
    const { message } = error as Error;
    if (!message.startsWith("foreign key mismatch")) throw error;
    return ["foreign key mismatch"];
  }
}

function ownRows(db: SqliteDatabase, name: string): string[] {
  const exists = db.prepare("SELECT 1 FROM main.sqlite_master WHERE name = ?").get(name) !== undefined;
  return exists
    ? lines(db, `SELECT * FROM main.${name}`)
        .filter((line) => !/_(data|idx|docsize)" \|/.test(line))
        .sort()
    : [];
}

function lines(db: SqliteDatabase, sql: string): string[] {
  const rows = db.prepare(sql).raw().safeIntegers(true).all() as unknown[][];
  return rows.map((row) => row.map((value) => showValue(value)).join(" | "));
}

function showValue(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (value instanceof Uint8Array) return `x'${Buffer.from(value).toString("hex")}'`;
  return `${typeof value} ${String(value)}`;
}

function differingLines(section: string, left: readonly string[], right: readonly string[]): string[] {
  const rightOnly = subtract(right, left).map((line) => `${section}: only right: ${line}`);
  return [...subtract(left, right).map((line) => `${section}: only left: ${line}`), ...rightOnly];
}

/** Lines of `from` that `lines` does not hold as often. */
function subtract(from: readonly string[], lines: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const line of lines) counts.set(line, (counts.get(line) ?? 0) + 1);
  const rest = from.filter((line) => {
    const count = counts.get(line) ?? 0;
    counts.set(line, count - 1);
    return count <= 0;
  });
  return rest.slice(0, MAX_LINES);
}
