/**
 * What SQLite knows of a tenant's tables, as capture and replay need it: which columns are stored, what identifies a
 * row, and the exact text that makes the table.
 */
import { kimberliteError } from "../errors.ts";
import { RESERVED_PREFIX } from "./bookkeeping.ts";
import type { SqliteDatabase } from "./sqlite.ts";

export interface TableShape {
  readonly name: string;
  readonly sql: string | null;
  readonly rootPage: number;
  readonly withoutRowid: boolean;
  /** Belongs to a virtual table and is written by it alone. */
  readonly shadow: boolean;
  /** How SQL names the rowid; undefined for WITHOUT ROWID. */
  readonly rowid: string | undefined;
  /** True if a column is the rowid. */
  readonly rowidIsColumn: boolean;
  /** Stored columns in order, generated ones left out. */
  readonly columns: readonly string[];
  /** Primary key columns of a WITHOUT ROWID table, in key order. */
  readonly keyColumns: readonly string[];
  /** False only if the table surely has no sequence. */
  readonly autoincrement: boolean;
}

/** One row of the schema: enough to see what a DDL statement changed. */
export interface SchemaItem {
  readonly type: string;
  readonly name: string;
  readonly sql: string | null;
  readonly rootPage: number;
}

interface ColumnInfo {
  readonly name: string;
  readonly pk: number;
  readonly hidden: number;
}

export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Every table of the tenant, ordinary and virtual; not ours, not SQLite's. */
export function listTables(db: SqliteDatabase): SchemaItem[] {
  const rows = db
    .prepare("SELECT type, name, sql, rootpage AS rootPage FROM main.sqlite_master WHERE type = 'table'")
    .all() as SchemaItem[];
  return rows.filter((row) => !isInternalName(row.name));
}

function isInternalName(name: string): boolean {
  const lower = name.toLowerCase();
  return lower.startsWith(RESERVED_PREFIX) || lower.startsWith("sqlite_");
}

/** The virtual tables proper have rows only in their shadow tables. */
export function isVirtual(item: SchemaItem): boolean {
  return item.rootPage === 0;
}

export function schemaVersion(db: SqliteDatabase): number {
  return db.pragma("main.schema_version", { simple: true }) as number;
}

/**
 * Reads the shape of a table with rows of its own.
 *
 * @throws `unsupported_sql` for a table whose rows cannot be named: all three rowid names are columns of it.
 */
export function readTable(db: SqliteDatabase, item: SchemaItem): TableShape {
  const listed = db.pragma(`main.table_list(${quoteName(item.name)})`) as {
    schema: string;
    type: string;
    wr: number;
  }[];
  const entry = listed.find((row) => row.schema === "main");
  const withoutRowid = entry?.wr === 1;
  const all = db.pragma(`main.table_xinfo(${quoteName(item.name)})`) as ColumnInfo[];
  const stored = all.filter((column) => column.hidden === 0);
  const rowidColumn = withoutRowid ? undefined : integerPrimaryKey(db, item.name, all);
  return {
    name: item.name,
    sql: item.sql,
    rootPage: item.rootPage,
    withoutRowid,
    shadow: entry?.type === "shadow",
    rowid: withoutRowid ? undefined : rowidName(all, rowidColumn),
    rowidIsColumn: rowidColumn !== undefined,
    columns: stored.map((column) => column.name),
    keyColumns: withoutRowid ? keyColumns(all) : [],
    autoincrement: rowidColumn !== undefined && /AUTOINCREMENT/i.test(item.sql ?? ""),
  };
}

function keyColumns(columns: readonly ColumnInfo[]): string[] {
  return columns
    .filter((column) => column.pk > 0)
    .sort((a, b) => a.pk - b.pk)
    .map((column) => column.name);
}

/** The column that is the rowid: the only primary key column, when no index of its own stands for the key. */
function integerPrimaryKey(
  db: SqliteDatabase,
  table: string,
  columns: readonly ColumnInfo[],
): string | undefined {
  const key = columns.filter((column) => column.pk > 0);
  if (key.length !== 1) return undefined;
  const indexes = db.pragma(`main.index_list(${quoteName(table)})`) as { origin: string }[];
  return indexes.some((index) => index.origin === "pk") ? undefined : (key[0] as ColumnInfo).name;
}

function rowidName(columns: readonly ColumnInfo[], rowidColumn: string | undefined): string {
  if (rowidColumn !== undefined) return quoteName(rowidColumn);
  const taken = new Set(columns.map((column) => column.name.toLowerCase()));
  const free = ["rowid", "_rowid_", "oid"].find((name) => !taken.has(name));
  if (free !== undefined) return free;
  throw kimberliteError(
    "unsupported_sql",
    "a table whose columns are named rowid, _rowid_ and oid needs an INTEGER PRIMARY KEY",
  );
}

/** SQL that makes the image of a row from the columns behind a prefix such as `NEW.`. */
export function imageExpression(columns: readonly string[], prefix = ""): string {
  return `kimberlite_row(${columns.map((column) => prefix + quoteName(column)).join(", ")})`;
}

/** SQL of a row's identity behind a prefix. */
export function keyExpression(table: TableShape, prefix = ""): string {
  return table.withoutRowid ? imageExpression(table.keyColumns, prefix) : prefix + (table.rowid as string);
}

/** SQL condition that finds the row of the key that is bound as `@key`. */
export function keyCondition(table: TableShape): string {
  if (!table.withoutRowid) return `${table.rowid} = @key`;
  return table.keyColumns
    .map((column, index) => `${quoteName(column)} = kimberlite_col(@key, ${index})`)
    .join(" AND ");
}

/** The columns of every ordinary table, in their order. */
export function columnsByTable(db: SqliteDatabase): ReadonlyMap<string, readonly string[]> {
  const tables = listTables(db).filter((item) => !isVirtual(item));
  return new Map(
    tables.map(({ name }) => {
      const columns = db.pragma(`main.table_xinfo(${quoteName(name)})`) as { readonly name: string }[];
      return [name, columns.map((column) => column.name)];
    }),
  );
}

/** Tables that a change left under their name, and that lost a column by it or call one otherwise. */
export function narrowedTables(
  before: ReadonlyMap<string, readonly string[]>,
  after: ReadonlyMap<string, readonly string[]>,
): string[] {
  return [...before].flatMap(([table, columns]) => {
    const now = after.get(table);
    return now === undefined || columns.every((column, index) => now[index] === column) ? [] : [table];
  });
}
