/**
 * Builds a projection from the log: applies records to a connection of its own, by the identity of rows, with user
 * triggers and foreign key actions off (what they did is in the log as changes of its own).
 *
 * Within a record the touched rows are deleted first, then the images after are written, so that two rows may swap a
 * unique value. Kept: applying a record leaves the same rows, rowids, types and sqlite_sequence that the writer left.
 */
import { createHash } from "node:crypto";
import { assert, type ErrorCode, KimberliteError, kimberliteError } from "../errors.ts";
import type { Change, LogRecord } from "../log/record.ts";
import type { LogHead } from "../log/tenant-log.ts";
import { Bookkeeping, type ProjectionMeta, RESERVED_PREFIX } from "./bookkeeping.ts";
import type { Connection } from "./connection.ts";
import { documentsOf, externalContentTables, type FullTextTable, settingsOf } from "./full-text.ts";
import type { GuardSwitch } from "./guard.ts";
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

/** A replay writes all over the file. */
export const REPLAY_CACHE_KIB: number = 16_000;

/** Where in the log a projection is once its transaction is committed. */
export interface ReplayEnd {
  readonly head: LogHead;
  readonly dek: { readonly version: number; readonly blocksSealed: number };
  /** True if nothing is left to apply. */
  readonly isLast: boolean;
}

/** What fails for another reason than what the log holds. */
const NOT_THE_LOGS: ReadonlySet<ErrorCode> = new Set([
  "disk_full",
  "disk_failed",
  "projection_damaged",
  "value_too_large",
  "aborted",
]);

export class Replayer {
  /** What the projection said of itself before. */
  readonly meta: ProjectionMeta;
  readonly #connection: Connection;
  readonly #bookkeeping: Bookkeeping;
  readonly #appliers: Map<number, Appliers> = new Map();
  readonly #names: Map<number, string> = new Map();
  #nextStream: number;
  /** False within a record once it says that its schema changes were made without them. */
  #foreignKeys = true;
  /** When the deadline comes that is in force. */
  #untilMs: number | undefined;
  #expired = false;
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
    this.meta = this.#bookkeeping.readMeta();
    this.#nextStream = this.meta.nextStream;
    for (const row of this.#bookkeeping.streams())
      if (row.kind === "table") this.#names.set(row.id, row.name);
  }

  begin(): void {
    this.#connection.db.exec("BEGIN IMMEDIATE");
  }

  /**
   * Ends the transaction, noting where in the log the projection now is.
   *
   * @returns full-text indexes over other tables' content that do not agree with it yet: each is to be made by
   * `makeIndex`, and then `settle` called. Until that the projection says that its replay was interrupted.
   */
  commit(end: ReplayEnd): string[] {
    const stale = end.isLast && this.#mayBeStale() ? externalContentTables(this.#connection.db) : [];
    this.#write(stale.length === 0 ? end.head : { ...end.head, position: 0 }, end);
    this.#connection.db.exec("COMMIT");
    return stale;
  }

  /** Notes that the replay is whole. */
  settle(end: ReplayEnd): void {
    this.begin();
    this.#write(end.head, end);
    this.#connection.db.exec("COMMIT");
  }

  #write(head: LogHead, { dek }: ReplayEnd): void {
    this.#bookkeeping.writeMeta({
      ...head,
      dekVersion: dek.version,
      blocksSealed: dek.blocksSealed,
      nextStream: this.#nextStream,
    });
  }

  #mayBeStale(): boolean {
    return this.changes > 0 || wasInterrupted(this.meta);
  }

  /**
   * Runs work of this replayer under a deadline, which interrupts what runs then.
   *
   * @returns false if the deadline passed, or a value is too large for the connection: the transaction is lost then,
   * with all that was applied in it
   */
  within(limitMs: number, work: () => void): boolean {
    this.#expired = false;
    this.#untilMs = performance.now() + limitMs;
    this.#arm();
    let failure: unknown;
    try {
      work();
    } catch (error) {
      failure = error;
    }
    this.#disarm();
    this.#untilMs = undefined;
    // Asked before what was thrown: an interrupt may have been taken for something else on its way, or for nothing.
    if (this.#expired || isTooLarge(failure)) return false;
    if (failure !== undefined) throw failure;
    return true;
  }

  #arm(): void {
    if (this.#untilMs === undefined) return;
    const leftMs = Math.max(1, Math.ceil(this.#untilMs - performance.now()));
    this.#connection.guard.enter("replay", leftMs);
  }

  #disarm(): void {
    if (this.#untilMs !== undefined && this.#connection.guard.leave().deadlineFired) this.#expired = true;
  }

  /** Switches are for trusted work: no deadline is in force meanwhile. */
  #configure(what: GuardSwitch, on: boolean): void {
    this.#disarm();
    try {
      this.#connection.guard.configure(what, on);
    } finally {
      this.#arm();
    }
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
      if (cause instanceof KimberliteError && NOT_THE_LOGS.has(cause.code)) throw cause;
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
      default:
        assert(change.kind !== "sealed-row", "rows of subjects are opened before they are applied");
    }
  }

  #applyDdl(change: Extract<Change, { kind: "ddl" }>): void {
    if (change.sql === FOREIGN_KEYS_OFF) {
      this.#foreignKeys = false;
      return;
    }
    // DROP TABLE of a parent acts on its children without firing triggers: the same happens here.
    const { db } = this.#connection;
    const columns = ALTER.test(change.sql) ? columnsByTable(db) : undefined;
    this.#configure("foreign_keys", this.#foreignKeys);
    db.exec(change.sql);
    this.#configure("foreign_keys", false);
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

  /** Makes an index over another table's content agree with it again, if that content can be read; in a transaction. */
  makeIndex(name: string): void {
    const { db } = this.#connection;
    this.begin();
    try {
      db.exec(`INSERT INTO main.${quoteName(name)} (${quoteName(name)}) VALUES ('rebuild')`);
      db.exec("COMMIT");
    } catch (error) {
      // An interrupt has ended it already.
      if (db.inTransaction) db.exec("ROLLBACK");
      if (!isSqliteError(error) || error.code !== "SQLITE_ERROR") throw error;
      // The content table or a column of it is gone: a search of the index fails as it does in the live projection.
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

/** True for a projection that is between the ends of its log: its place in the segments is not known. */
export function wasInterrupted(meta: ProjectionMeta): boolean {
  return meta.position === 0 && meta.nextOffset > 0n;
}

function isTooLarge(error: unknown): boolean {
  if (error === undefined) return false;
  const known = fromSqlite(error, undefined);
  return known instanceof KimberliteError && known.code === "value_too_large";
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
