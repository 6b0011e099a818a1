/**
 * A projection file without the rows of subjects that have no key any more, and without what SQLite keeps of them in free
 * pages and free places of pages: for a file that cannot be built anew from the log, because its records were trimmed.
 */
import Database from "better-sqlite3-multiple-ciphers";
import { Bookkeeping } from "./bookkeeping.ts";
import { externalContentTables } from "./full-text.ts";
import type { SqliteDatabase } from "./sqlite.ts";
import { fromSqlite } from "./sqlite-error.ts";
import { subjectOf } from "./subject-value.ts";
import { quoteName } from "./tables.ts";
import type { SqlValue } from "./values.ts";

/**
 * Writes the file anew at `to`; `from` is changed on the way and is then to be thrown away. Rowids stay.
 *
 * @param isAlive says whether a subject, in the form of `subjectOf`, has a key
 * @throws `disk_full`, `disk_failed`, `projection_damaged`
 */
export function scrubSubjects(
  files: { readonly from: string; readonly to: string; readonly key: Buffer },
  isAlive: (subject: Uint8Array) => boolean,
): void {
  let db: SqliteDatabase | undefined;
  try {
    db = new Database(files.from, { fileMustExist: true }) as SqliteDatabase;
    db.pragma("cipher='aegis'");
    db.pragma(`key='raw:${files.key.toString("hex")}'`);
    db.pragma("temp_store=MEMORY");
    db.pragma("foreign_keys=OFF");
    db.pragma("journal_mode=DELETE");
    db.pragma("secure_delete=ON");
    db.exec("BEGIN");
    for (const table of declaredTables(db)) deleteErased(db, table, isAlive);
    db.exec("COMMIT");
    for (const name of externalContentTables(db))
      db.exec(`INSERT INTO main.${quoteName(name)} (${quoteName(name)}) VALUES ('rebuild')`);
    db.prepare("VACUUM INTO ?").run(files.to);
  } catch (error) {
    throw fromSqlite(error, undefined);
  } finally {
    db?.close();
  }
}

interface DeclaredTable {
  readonly name: string;
  readonly column: string;
}

function declaredTables(db: SqliteDatabase): DeclaredTable[] {
  const bookkeeping = new Bookkeeping(db);
  return bookkeeping.subjectColumns().map(({ stream, column }) => ({
    name: bookkeeping.stream(stream)?.name ?? "",
    column,
  }));
}

function deleteErased(
  db: SqliteDatabase,
  { name, column }: DeclaredTable,
  isAlive: (subject: Uint8Array) => boolean,
): void {
  const [table, of] = [quoteName(name), quoteName(column)];
  const values = db
    .prepare(`SELECT DISTINCT ${of} COLLATE BINARY FROM main.${table} WHERE ${of} IS NOT NULL`)
    .pluck()
    .safeIntegers(true)
    .all() as SqlValue[];
  const triggers = db
    .prepare(
      "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE",
    )
    .all(name) as { name: string; sql: string }[];
  for (const trigger of triggers) db.exec(`DROP TRIGGER main.${quoteName(trigger.name)}`);
  for (const value of values) {
    const subject = subjectOf(value);
    if (subject === undefined || isAlive(subject)) continue;
    db.prepare(`DELETE FROM main.${table} WHERE ${subjectCondition(column)}`).run({ 1: value });
  }
  for (const trigger of triggers) db.exec(trigger.sql);
}

/** SQL condition for the rows of exactly the subject that is bound to its one place, whatever affinity and collation. */
export function subjectCondition(column: string): string {
  const of = quoteName(column);
  return `${of} = ?1 COLLATE BINARY AND (typeof(${of}) = typeof(?1) OR (typeof(${of}) IN ('integer', 'real') AND typeof(?1) IN ('integer', 'real')))`;
}
