/**
 * Builds a projection from the log: applies records to a connection of its own, by the identity of rows, with user
 * triggers and foreign key actions off (what they did is in the log as changes of its own).
 *
 * Within a record the touched rows are deleted first, then the images after are written, so that two rows may swap a
 * unique value. Kept: applying a record leaves the same rows, rowids, types and sqlite_sequence that the writer left.
 */
import { createHash } from "node:crypto";
import { kimberliteError } from "../errors.ts";
import type { Change, LogRecord } from "../log/record.ts";
import type { LogHead } from "../log/tenant-log.ts";
import { Bookkeeping, RESERVED_PREFIX } from "./bookkeeping.ts";
import type { Connection } from "./connection.ts";
import { documentsOf, externalContentTables, type FullTextTable, settingsOf } from "./full-text.ts";
import type { SqliteStatement } from "./sqlite.ts";
import { fromSqlite, isSqliteError } from "./sqlite-error.ts";
import {
  columnsByTable,
  keyCondition,
  listTables,
  narrowedTables,
  quoteName,
  readTable,
  type TableShape,
} from "./tables.ts";

type RowChange = Extract<Change, { kind: "row" }>;

interface Appliers {
  readonly remove: SqliteStatement;
  readonly write: SqliteStatement;
  readonly keyed: boolean;
}

const ALTER = /\balter\b/i;
/** The text of a schema change that says: from here to the end of the record they were made without foreign keys. */
export const FOREIGN_KEYS_OFF = "-- foreign keys are off from here";

export class Replayer {
  readonly #connection: Connection;
  readonly #bookkeeping: Bookkeeping;
  readonly #appliers: Map<number, Appliers> = new Map();
  readonly #names: Map<number, string> = new Map();
  #nextStream: number;
  /** False within a record once it says that its schema changes were made without them. */
  #foreignKeys = true;
  changes = 0;

  /** Takes over the connection: nothing else may use it. */
  constructor(connection: Connection) {
    this.#connection = connection;
    this.#bookkeeping = new Bookkeeping(connection.db);
    this.#bookkeeping.initialise();
    for (const what of ["triggers", "foreign_keys", "defensive"] as const)
      connection.guard.configure(what, false);
    // The rows passed their checks when they were written; a check that calls random() need not pass again.
    connection.db.pragma("ignore_check_constraints=ON");
    this.#nextStream = this.#bookkeeping.readMeta().nextStream;
    for (const row of this.#bookkeeping.streams())
      if (row.kind === "table") this.#names.set(row.id, row.name);
  }

  get bookkeeping(): Bookkeeping {
    return this.#bookkeeping;
  }

  begin(): void {
    this.#connection.db.exec("BEGIN IMMEDIATE");
  }

  /** Ends the transaction, noting where in the log the projection now is. */
  commit(head: LogHead, dek: { readonly version: number; readonly blocksSealed: number }): void {
    this.#bookkeeping.writeMeta({
      ...head,
      dekVersion: dek.version,
      blocksSealed: dek.blocksSealed,
      nextStream: this.#nextStream,
    });
    this.#connection.db.exec("COMMIT");
  }

  /**
   * Applies one record inside the transaction that is open.
   *
   * @throws `log_damaged` if the record does not fit the state before it.
   */
  apply(record: LogRecord): void {
    this.#foreignKeys = true;
    try {
      for (let at = 0; at < record.changes.length; ) at = this.#applyFrom(record, at);
    } catch (error) {
      const cause = fromSqlite(error, undefined);
      throw kimberliteError("log_damaged", `the record at offset ${record.offset} cannot be applied`, {
        detail: { offset: record.offset },
        cause,
      });
    }
  }

  close(): void {
    this.#connection.db.close();
  }

  #applyFrom(record: LogRecord, at: number): number {
    const change = record.changes[at] as Change;
    if (isRow(change)) {
      let end = at;
      while (isRow(record.changes[end])) end += 1;
      this.#applyRows(record.changes.slice(at, end).filter((one) => one.kind === "row"));
      return end;
    }
    this.#applyOther(record, change);
    return at + 1;
  }

  #applyRows(changes: readonly RowChange[]): void {
    for (const change of changes) {
      if (change.before !== null) this.#appliersOf(change.stream).remove.run({ key: change.key });
    }
    for (const change of changes) {
      if (change.after === null) continue;
      const { keyed, write } = this.#appliersOf(change.stream);
      write.run(keyed ? { key: change.key, image: change.after } : { image: change.after });
    }
    this.changes += changes.length;
  }

  #applyOther(record: LogRecord, change: Change): void {
    switch (change.kind) {
      case "ddl":
        return this.#applyDdl(change);
      case "sequence":
        return this.#applySequence(change.table, change.value);
      case "create-stream":
        this.#noteStream(change.stream);
        return this.#bookkeeping.putStream(change.stream, "events", change.name);
      case "events":
        return noteEvents(this.#bookkeeping, record, change);
      case "declare-subject":
      case "erase-subject":
        return noteSubject(this.#bookkeeping, record.offset, change);
    }
  }

  #applyDdl(change: Extract<Change, { kind: "ddl" }>): void {
    if (change.sql === FOREIGN_KEYS_OFF) {
      this.#foreignKeys = false;
      return;
    }
    // DROP TABLE of a parent acts on its children without firing triggers: the same happens here.
    const { db, guard } = this.#connection;
    const columns = ALTER.test(change.sql) ? columnsByTable(db) : undefined;
    guard.configure("foreign_keys", this.#foreignKeys);
    db.exec(change.sql);
    guard.configure("foreign_keys", false);
    if (columns !== undefined)
      for (const name of narrowedTables(columns, columnsByTable(db))) this.#bookkeeping.narrowTable(name);
    if (/\banalyze\b/i.test(change.sql)) this.#forgetOwnStatistics();
    this.#appliers.clear();
    this.changes += 1;
    for (const { stream, name } of change.bindings) {
      this.#noteStream(stream);
      if (name === null) {
        this.#bookkeeping.dropStream(stream);
        this.#names.delete(stream);
      } else {
        this.#bookkeeping.putStream(stream, "table", name);
        this.#names.set(stream, name);
      }
    }
  }

  /** The tenant's ANALYZE passed over our tables. */
  #forgetOwnStatistics(): void {
    const { db } = this.#connection;
    const made = db
      .prepare("SELECT name FROM main.sqlite_master WHERE name GLOB 'sqlite_stat[0-9]'")
      .pluck()
      .all();
    for (const table of made as string[])
      db.exec(`DELETE FROM main.${table} WHERE tbl GLOB '${RESERVED_PREFIX}*'`);
  }

  #applySequence(table: string, value: bigint | null): void {
    const { db } = this.#connection;
    db.prepare("DELETE FROM main.sqlite_sequence WHERE name = ?").run(table);
    if (value !== null)
      db.prepare("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?, ?)").run(table, value);
  }

  #noteStream(stream: number): void {
    this.#nextStream = Math.max(this.#nextStream, stream + 1);
  }

  #appliersOf(stream: number): Appliers {
    let appliers = this.#appliers.get(stream);
    if (appliers === undefined) {
      appliers = this.#prepareAppliers(stream);
      this.#appliers.set(stream, appliers);
    }
    return appliers;
  }

  /** Makes the indexes over other tables' content agree with it again, where that content can be read. */
  rebuildExternalIndexes(): void {
    const { db } = this.#connection;
    for (const name of externalContentTables(db)) {
      try {
        db.exec(`INSERT INTO main.${quoteName(name)} (${quoteName(name)}) VALUES ('rebuild')`);
      } catch (error) {
        if (!isSqliteError(error) || error.code !== "SQLITE_ERROR") throw error;
        // The content table or a column of it is gone: a search of the index fails as it does in the live projection.
      }
    }
  }

  #prepareDocuments(documents: FullTextTable): Appliers {
    const { db } = this.#connection;
    return {
      keyed: true,
      remove: db.prepare(
        `DELETE FROM main.${quoteName(documents.name)} WHERE rowid = @key`,
      ) as SqliteStatement,
      write: db.prepare(documentSql(documents)) as SqliteStatement,
    };
  }

  /** FTS5 keeps the row `version` itself. */
  #prepareSettings(name: string, table: string): Appliers {
    const { db } = this.#connection;
    const own = quoteName(name);
    const [setting, value] = [0, 1].map((index) => `kimberlite_col(@image, ${index})`);
    return {
      keyed: false,
      remove: db.prepare(
        `DELETE FROM main.${quoteName(table)} WHERE k = kimberlite_col(@key, 0) AND k <> 'version'`,
      ) as SqliteStatement,
      write: db.prepare(
        `INSERT INTO main.${own} (${own}, rank) SELECT ${setting}, ${value} WHERE ${setting} <> 'version'`,
      ) as SqliteStatement,
    };
  }

  #prepareAppliers(stream: number): Appliers {
    const { db } = this.#connection;
    const name = this.#names.get(stream);
    const item = listTables(db).find((table) => table.name === name);
    if (item === undefined) throw kimberliteError("log_damaged", `stream ${stream} has no table`);
    const documents = documentsOf(db, item.name);
    if (documents !== undefined) return this.#prepareDocuments(documents);
    const settings = settingsOf(db, item.name);
    if (settings !== undefined) return this.#prepareSettings(settings, item.name);
    const shape = readTable(db, item);
    const keyed = shape.rowid !== undefined && !shape.rowidIsColumn;
    return {
      keyed,
      remove: db.prepare(
        `DELETE FROM main.${quoteName(shape.name)} WHERE ${keyCondition(shape)}`,
      ) as SqliteStatement,
      write: db.prepare(writeSql(shape, keyed)) as SqliteStatement,
    };
  }
}

/** The image of a document's row begins with its id, which is the key. */
function documentSql({ name, columns }: FullTextTable): string {
  const names = ["rowid", ...columns.map(quoteName)].join(", ");
  const values = ["@key", ...columns.map((_, index) => `kimberlite_col(@image, ${index + 1})`)].join(", ");
  return `INSERT INTO main.${quoteName(name)} (${names}) VALUES (${values})`;
}

function writeSql(shape: TableShape, keyed: boolean): string {
  const names = shape.columns.map(quoteName);
  const values = shape.columns.map((_, index) => `kimberlite_col(@image, ${index})`);
  if (keyed) {
    names.unshift(shape.rowid as string);
    values.unshift("@key");
  }
  return `INSERT OR REPLACE INTO main.${quoteName(shape.name)} (${names.join(", ")}) VALUES (${values.join(", ")})`;
}

/** Rows of erased subjects are passed over. */
function isRow(change: Change | undefined): boolean {
  return change?.kind === "row" || change?.kind === "erased-row";
}

/** Notes what a record says of subjects: the same from the writer and from replay. */
export function noteSubject(
  bookkeeping: Bookkeeping,
  logOffset: bigint,
  change: Extract<Change, { kind: "declare-subject" | "erase-subject" }>,
): void {
  if (change.kind === "erase-subject") return bookkeeping.putErasedSubject(change, logOffset);
  bookkeeping.putSubjectColumn({ stream: change.stream, column: change.column, logOffset });
}

/** Notes where events lie and what an idempotency key gave: the same from the writer and from replay. */
export function noteEvents(
  bookkeeping: Bookkeeping,
  record: { readonly offset: bigint; readonly idempotencyKey?: string | undefined },
  change: Extract<Change, { kind: "events" }>,
): void {
  const { stream, firstOffset, events } = change;
  bookkeeping.putEvents(stream, { firstOffset, count: events.length, logOffset: record.offset });
  if (record.idempotencyKey === undefined) return;
  bookkeeping.putIdempotency(record.idempotencyKey, {
    request: appendFingerprint(stream, events),
    logOffset: record.offset,
    stream,
    firstOffset,
    count: events.length,
  });
}

/** What an idempotency key stands for: the stream and the exact events. */
export function appendFingerprint(stream: number, events: readonly Uint8Array[]): Buffer {
  const lengths = Buffer.alloc(8 + events.length * 4);
  lengths.writeUInt32LE(stream, 0);
  lengths.writeUInt32LE(events.length, 4);
  for (const [index, event] of events.entries()) lengths.writeUInt32LE(event.length, 8 + index * 4);
  const digest = createHash("sha256").update(lengths);
  for (const event of events) digest.update(event);
  return digest.digest();
}
