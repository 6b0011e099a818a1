/**
 * Full-text search (FTS5) in the log.
 *
 * A full-text table keeps its documents in a table of its own, `<name>_content`: their rows are captured like any
 * table's. Its index is not logged: replay writes the documents through FTS5, which indexes them again. An external
 * content table (`content='docs'`) has no documents; its index is built anew from the content after a replay. Settings
 * such as `rank` are rows of `<name>_config`: captured, and replayed as the commands that set them.
 * Triggers on the index's own tables are not an option: FTS5 flushes them from inside every statement's savepoint, and
 * a trigger makes such a statement, without end.
 */
import { kimberliteError } from "../errors.ts";
import type { SqliteDatabase } from "./sqlite.ts";
import { isVirtual, listTables, quoteName, type SchemaItem } from "./tables.ts";

const CONTENT_SUFFIX = "_content";
const SETTINGS_SUFFIX = "_config";
/** FTS5 takes an empty name, in any quotes or none, for a table without content. */
const EXTERNAL_CONTENT = /\bcontent\s*=\s*(?:'[^']|"[^"]|\[[^\]]|`[^`]|[^\s'"[`,)])/i;

/** The columns of a full-text table whose documents a table holds. */
export interface FullTextTable {
  readonly name: string;
  readonly columns: readonly string[];
}

/** The full-text table whose documents are in the table of that name; undefined if it is none of that kind. */
export function documentsOf(db: SqliteDatabase, table: string): FullTextTable | undefined {
  if (!table.endsWith(CONTENT_SUFFIX)) return undefined;
  const name = table.slice(0, -CONTENT_SUFFIX.length);
  const owner = listTables(db).find((item) => item.name === name && isVirtual(item));
  return owner === undefined ? undefined : { name, columns: columnsOf(db, name) };
}

/** Name of the full-text table whose settings are in the table of that name; undefined if it is none of that kind. */
export function settingsOf(db: SqliteDatabase, table: string): string | undefined {
  if (!table.endsWith(SETTINGS_SUFFIX)) return undefined;
  const name = table.slice(0, -SETTINGS_SUFFIX.length);
  return listTables(db).find((item) => item.name === name && isVirtual(item))?.name;
}

/** Full-text tables that index another table's rows. */
export function externalContentTables(db: SqliteDatabase): string[] {
  const tables = listTables(db);
  const names = new Set(tables.map((item) => item.name));
  return tables
    .filter((item) => isVirtual(item) && !names.has(item.name + CONTENT_SUFFIX))
    .map((item) => item.name);
}

/**
 * @throws `unsupported_sql` for a full-text table that cannot be made again from the log: one without content, or with
 * columns in its content that are not the documents'.
 */
export function requireReplayable(db: SqliteDatabase, item: SchemaItem): void {
  const content = listTables(db).find((table) => table.name === item.name + CONTENT_SUFFIX);
  if (content === undefined) {
    if (EXTERNAL_CONTENT.test(item.sql ?? "")) return;
    throw kimberliteError(
      "unsupported_sql",
      "a contentless full-text table cannot be rebuilt; leave `content` out",
    );
  }
  if (EXTERNAL_CONTENT.test(item.sql ?? "")) {
    throw kimberliteError(
      "unsupported_sql",
      `a table named ${CONTENT_SUFFIX} of a full-text table cannot be its content`,
    );
  }
  const stored = db.pragma(`main.table_xinfo(${quoteName(content.name)})`) as unknown[];
  if (stored.length !== columnsOf(db, item.name).length + 1) {
    throw kimberliteError(
      "unsupported_sql",
      "a full-text table with `locale` or unstored columns is not supported",
    );
  }
}

function columnsOf(db: SqliteDatabase, name: string): string[] {
  const columns = db.pragma(`main.table_xinfo(${quoteName(name)})`) as { name: string; hidden: number }[];
  return columns.filter((column) => column.hidden === 0).map((column) => column.name);
}
