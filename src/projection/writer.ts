/**
 * The one writer of a tenant's projection: runs callers' work inside one SQLite transaction, a savepoint each, and
 * says what each changed, as the log will record it.
 *
 * Kept: a caller that fails is rolled back to its own savepoint and fails alone; if SQLite rolled the whole transaction
 * back (RAISE(ROLLBACK), an interrupt, a full disk), the outcome says so and the innocent are run again. Schema and
 * capture triggers always agree when a caller begins.
 *
 * Over 500 lines because a caller's savepoint, what was captured in it and its undoing are one state.
 */
import { assert, kimberliteError } from "../errors.ts";
import type { Change } from "../log/record.ts";
import { Bookkeeping, FIRST_USER_STREAM, type StreamKind } from "./bookkeeping.ts";
import { Capture } from "./capture.ts";
import type { Connection, StatementLimits } from "./connection.ts";
import { NO_ROWID } from "./guard.ts";
import { OwedKeys } from "./owed-keys.ts";
import { argumentsFor, type ParsedParams, parseExact, parseParams } from "./parameters.ts";
import { FOREIGN_KEYS_OFF } from "./replay.ts";
import { Savepoints } from "./savepoints.ts";
import { SchemaTracker } from "./schema-tracker.ts";
import type { SqliteStatement } from "./sqlite.ts";
import { fromSqlite } from "./sqlite-error.ts";
import {
  type CompiledStatement,
  changesSchema,
  describeCompiled,
  presented,
  StatementCache,
  type StatementDescription,
  shaped,
} from "./statement-cache.ts";
import { findSubjectColumn } from "./subject-column.ts";
import {
  collectRows,
  dropRows,
  narrowInteger,
  type ResultLimits,
  type Row,
  type SqlParams,
  type SqlValue,
} from "./values.ts";

export interface StatementResult {
  readonly columns: readonly string[];
  readonly rows: readonly (Row | SqlValue[])[];
  readonly rowsAffected: number;
  readonly lastInsertRowid: number | bigint | undefined;
  /** Of an exact request: declared types of the columns; null where a column is no table's. */
  readonly types?: readonly (string | null)[];
}

export interface StatementRequest {
  readonly sql: string;
  readonly params?: SqlParams | undefined;
  /**
   * Instead of `params`: a value for each parameter in SQLite's order, exactly as it shall be: a bigint is an INTEGER, a
   * number a REAL. So are the rows that come back, as arrays.
   */
  readonly exact?: readonly SqlValue[];
  /** Most bytes of the rows, if less than the connection's own limit. */
  readonly maxResultBytes?: number;
  /** The rows are not wanted: they are found and dropped, and no limit of results is for them. */
  readonly dropRows?: boolean;
  /** Refuses what changes the schema or `user_version` (`not_authorized`). */
  readonly rowsOnly?: boolean;
  /** Rows as arrays in column order. */
  readonly arrays?: boolean;
  /** A limit of its own: the moment that it may take on the main thread, before a lane runs it again. */
  readonly timeLimitMs?: number;
  /** Milliseconds left of the transaction that the statement belongs to: a second limit. */
  readonly leftMs?: number;
}

/** A request's parameters, checked. @throws `invalid_parameter` */
export function parseGiven({ exact, params }: StatementRequest): ParsedParams {
  return exact === undefined ? parseParams(params) : parseExact(exact);
}

/** The limits of a request's result, on a connection with limits of its own. */
export function limitsOf({ maxResultBytes }: StatementRequest, limits: ResultLimits): ResultLimits {
  if (maxResultBytes === undefined || maxResultBytes >= limits.maxBytes) return limits;
  return { maxRows: limits.maxRows, maxBytes: maxResultBytes };
}

/** What one caller's work may do inside its savepoint. */
export interface WriteSession {
  /** False once SQLite rolled the whole transaction back. */
  readonly open: boolean;
  run(request: StatementRequest): StatementResult;
  /**
   * What a statement is; it is compiled and does not run.
   *
   * @throws `invalid_sql`, `unsupported_sql`, on the main thread `statement_timeout` for a text that takes long to compile
   */
  describe(sql: string): StatementDescription;
  createStream(name: string): number;
  /** Makes the stream of that reserved id where there is none yet. */
  ensureStream(id: number, name: string): void;
  /** @returns offset in the stream of the first event */
  appendEvents(stream: number, events: readonly Uint8Array[]): bigint;
  /** @returns false if it was declared so before */
  declareSubject(table: string, column: string): boolean;
  /** Notes the erasure of a subject, or its certificate. */
  eraseSubject(erased: Omit<Extract<Change, { kind: "erase-subject" }>, "kind">): void;
  readonly bookkeeping: Bookkeeping;
}

export type JobOutcome<T> =
  | { readonly ok: true; readonly value: T; readonly changes: readonly Change[] }
  | { readonly ok: false; readonly error: unknown; readonly lostTransaction: boolean };

/** Replay makes indexes itself; this makes a record, and so a commit, of a transaction that wrote nothing else. */
const INDEX_WRITTEN: Change = { kind: "ddl", sql: "-- a full-text index was written", bindings: [] };

/** Replay applies the rows of one run as if at once; rows that may have changed before in the record begin another. */
const ROWS_AGAIN: Change = { kind: "ddl", sql: "-- rows that may change again", bindings: [] };

type Control =
  | "begin"
  | "commit"
  | "rollback"
  | "savepoint"
  | "release"
  | "undo"
  | "saveBatch"
  | "releaseBatch"
  | "undoBatch"
  | "saveSchema"
  | "releaseSchema"
  | "undoSchema";

export class ProjectionWriter {
  readonly bookkeeping: Bookkeeping;
  readonly #connection: Connection;
  readonly #limits: StatementLimits;
  readonly #capture: Capture;
  readonly #schema: SchemaTracker;
  readonly #owed: OwedKeys;
  readonly #cache: StatementCache;
  readonly #control: Record<Control, SqliteStatement>;
  /** Grows whenever the schema did: readers forget their statements then. */
  schemaGeneration = 0;
  #changes: Change[] = [];
  readonly #savepoints: Savepoints = new Savepoints();
  #foreignKeys = true;

  constructor(connection: Connection, limits: StatementLimits) {
    const { db } = connection;
    this.#connection = connection;
    this.#limits = limits;
    this.bookkeeping = new Bookkeeping(db);
    this.bookkeeping.initialise();
    this.#capture = new Capture(db, limits.maxTransactionBytes);
    this.#owed = new OwedKeys(connection);
    this.#schema = new SchemaTracker(connection, this.bookkeeping, this.#capture);
    this.#cache = new StatementCache(connection, "write");
    const prepare = (sql: string): SqliteStatement => db.prepare(sql) as SqliteStatement;
    this.#control = {
      begin: prepare("BEGIN IMMEDIATE"),
      commit: prepare("COMMIT"),
      rollback: prepare("ROLLBACK"),
      savepoint: prepare("SAVEPOINT kimberlite_job"),
      release: prepare("RELEASE kimberlite_job"),
      undo: prepare("ROLLBACK TO kimberlite_job"),
      saveBatch: prepare("SAVEPOINT kimberlite_batch"),
      releaseBatch: prepare("RELEASE kimberlite_batch"),
      undoBatch: prepare("ROLLBACK TO kimberlite_batch"),
      saveSchema: prepare("SAVEPOINT kimberlite_schema"),
      releaseSchema: prepare("RELEASE kimberlite_schema"),
      undoSchema: prepare("ROLLBACK TO kimberlite_schema"),
    };
    this.#schema.load();
  }

  get inTransaction(): boolean {
    return this.#connection.db.inTransaction;
  }

  /** Begins a batch: in the transaction that is open, or in a new one. It ends with `endBatch` or `undoBatch`. */
  begin(): void {
    this.#guarded(() => {
      if (!this.inTransaction) this.#control.begin.run();
      this.#control.saveBatch.run();
    });
    this.#schema.settle();
  }

  /** Keeps what the batch did, in the transaction that stays open. */
  endBatch(): void {
    this.#guarded(() => this.#control.releaseBatch.run());
  }

  /** Undoes what the batch did, and nothing of the batches before it in the same transaction. */
  undoBatch(): void {
    if (!this.inTransaction) return this.rollback();
    this.#guarded(() => {
      this.#control.undoBatch.run();
      this.#control.releaseBatch.run();
    });
    this.#afterUndo();
  }

  /** Ends the transaction with all its batches. @throws `disk_full`, `disk_failed` */
  commit(): void {
    this.#guarded(() => this.#control.commit.run());
  }

  /** Reads schema, streams and capture again: after the projection was changed by replay. */
  reload(): void {
    this.#forget();
    this.#schema.load();
    this.#cache.clear();
    this.schemaGeneration += 1;
  }

  /**
   * Takes note of what another connection committed since: its tables, and the streams that it made. Inside a
   * transaction, so that nothing changes in between.
   */
  refresh(): void {
    if (!this.#schema.refresh()) return;
    this.#cache.clear();
    this.schemaGeneration += 1;
  }

  /** Moves what the write-ahead log holds into the file, so that the next write begins it anew. Not in a transaction. */
  checkpoint(): void {
    this.#guarded(() => this.#connection.db.pragma("wal_checkpoint(PASSIVE)"));
  }

  /** Ends the transaction without its changes; harmless when there is none. */
  rollback(): void {
    if (this.inTransaction) this.#guarded(() => this.#control.rollback.run());
    this.#afterUndo();
  }

  #afterUndo(): void {
    if (this.#schema.unsettled) return this.reload();
    this.#forget();
    this.#schema.readAgain();
  }

  /** Pages of the projection file, as this transaction would leave it. */
  pageCount(): number {
    return Number(this.#statement("PRAGMA main.page_count").get());
  }

  pageSize(): number {
    return this.#connection.db.pragma("main.page_size", { simple: true }) as number;
  }

  /**
   * Runs one caller's work in a savepoint of the transaction that is open.
   *
   * @param accept is called with the changes before the savepoint is released; if it throws, the work is undone.
   */
  runJob<T>(work: (session: WriteSession) => T, accept: (changes: readonly Change[]) => void): JobOutcome<T> {
    this.#control.savepoint.run();
    try {
      const value = work(this.#session());
      const changes = this.#finish();
      accept(changes);
      this.#control.release.run();
      return { ok: true, value, changes };
    } catch (error) {
      return this.#undo(error);
    }
  }

  /** Opens a savepoint for work that goes on over several calls; end it with `finishJob` or `undoJob`. */
  beginJob(): WriteSession {
    this.#control.savepoint.run();
    return this.#session();
  }

  finishJob(accept: (changes: readonly Change[]) => void): JobOutcome<undefined> {
    try {
      if (!this.inTransaction) throw kimberliteError("transaction_closed", "the transaction was rolled back");
      const changes = this.#finish();
      accept(changes);
      this.#control.release.run();
      return { ok: true, value: undefined, changes };
    } catch (error) {
      return this.#undo(error);
    }
  }

  undoJob(error: unknown): JobOutcome<never> {
    return this.#undo(error);
  }

  /**
   * Turns foreign keys off, or on again, for the jobs that follow. Between jobs only.
   *
   * Schema changes are then logged so that replay makes them without foreign keys, too.
   */
  setForeignKeys(on: boolean): void {
    if (on === this.#foreignKeys) return;
    this.#connection.guard.configure("foreign_keys", on);
    this.#foreignKeys = on;
    this.#cache.clear();
  }

  /**
   * A savepoint of the tenant's within the job that is open. What was touched before it is made into changes first, so that
   * going back drops exactly what came after.
   *
   * @throws `invalid_sql` if there is none of that name, or there are too many
   */
  savepoint(what: "savepoint" | "release" | "rollback-to", name: string): void {
    if (!this.inTransaction) throw kimberliteError("transaction_closed", "the transaction was rolled back");
    if (what === "release") return this.#trusted(this.#savepoints.release(name));
    if (what === "rollback-to") return this.#goBack(name);
    this.#collect();
    const { schemaGeneration } = this;
    this.#trusted(this.#savepoints.save(name, { changes: this.#changes.length, schemaGeneration }));
  }

  #goBack(name: string): void {
    const { sql, place } = this.#savepoints.goBack(name);
    this.#trusted(sql);
    this.#changes.length = place.changes;
    this.#capture.discard();
    if (this.schemaGeneration === place.schemaGeneration) this.#schema.readAgain();
    else {
      this.#schema.load();
      this.schemaGeneration += 1;
    }
    this.#schema.sequences.discard();
    this.#cache.clear();
  }

  #trusted(sql: string): void {
    this.#guarded(() => this.#connection.db.exec(sql));
  }

  /** Stream of a table, by its present name. */
  tables(): ReadonlyMap<number, { readonly stream: number; readonly shape: { readonly name: string } }> {
    return this.#capture.tables;
  }

  get nextStream(): number {
    return this.#schema.nextStream;
  }

  close(): void {
    this.#cache.clear();
    this.#connection.db.close();
  }

  #session(): WriteSession {
    const { db } = this.#connection;
    return {
      get open() {
        return db.inTransaction;
      },
      run: (request) => this.#run(request),
      describe: (sql) => this.#describe(sql),
      createStream: (name) => this.#createStream(name),
      ensureStream: (id, name) => this.#ensureStream(id, name),
      appendEvents: (stream, events) => this.#appendEvents(stream, events),
      declareSubject: (table, column) => this.#declareSubject(table, column),
      eraseSubject: (erased) => {
        this.#collect();
        this.#changes.push({ kind: "erase-subject", ...erased });
      },
      bookkeeping: this.bookkeeping,
    };
  }

  #undo(error: unknown): Extract<JobOutcome<never>, { ok: false }> {
    const lostTransaction = !this.inTransaction;
    this.#forget();
    if (!lostTransaction) {
      this.#control.undo.run();
      this.#control.release.run();
    }
    this.#schema.restore();
    this.#cache.clear();
    return { ok: false, error: fromSqlite(error, this.#connection.guard), lostTransaction };
  }

  #forget(): void {
    this.#capture.discard();
    this.#changes = [];
    this.#savepoints.clear();
    this.#totalBefore = undefined;
    this.#schema.sequences.discard();
    this.#owed.end();
  }

  #finish(): Change[] {
    this.#owed.check();
    this.#owed.end();
    this.#collect();
    const changes = this.#changes;
    if (changes.length === 0 && this.#wroteUnseen()) changes.push(INDEX_WRITTEN);
    this.#totalBefore = undefined;
    this.#changes = [];
    this.#savepoints.clear();
    return changes;
  }

  /** True if what was written shows in no row: the index of a full-text table, by itself. It must be committed. */
  #wroteUnseen(): boolean {
    return this.#totalBefore !== undefined && this.#totalChanges() !== this.#totalBefore;
  }

  /** Moves what capture noted into the list of changes: before a schema change, and at the end. */
  #collect(): void {
    const { sequences } = this.#schema;
    if (this.#capture.isEmpty && !sequences.watching) return;
    const moved = sequences.watching ? sequences.take(this.#capture.highestRowids()) : [];
    const rows = this.#capture.take();
    if (rows.length > 0 && this.#changes.at(-1)?.kind === "row") this.#changes.push(ROWS_AGAIN);
    for (const change of rows) this.#changes.push(change);
    this.#changes.push(...moved);
  }

  #run(request: StatementRequest): StatementResult {
    if (!this.inTransaction) throw kimberliteError("transaction_closed", "the transaction was rolled back");
    const given = parseGiven(request);
    const compiled = this.#compile(request);
    const params = argumentsFor(given, compiled.places);
    if (changesSchema(compiled)) {
      if (request.rowsOnly === true) throw rowsOnly();
      return this.#runSchemaChange(request, compiled, params);
    }
    if (compiled.seen.pragmaSet) return this.#runPragma(request, compiled);
    if (compiled.seen.rowWrites || compiled.seen.sequenceWrites) this.#watchWrites();
    return this.#step(request, compiled, params);
  }

  #describe(sql: string): StatementDescription {
    return describeCompiled(sql, this.#compile({ sql, timeLimitMs: this.#limits.timeLimitMs }));
  }

  #compile({ sql, timeLimitMs }: StatementRequest): CompiledStatement {
    this.#owed.guard(sql);
    try {
      const compiled = this.#cache.compile(sql, { mayMove: timeLimitMs !== undefined });
      if (compiled.seen.pragmaSet) this.#owed.noteDeferring();
      return compiled;
    } catch (error) {
      this.#owed.noteDeferring();
      throw error;
    }
  }

  #watchWrites(): void {
    this.#schema.sequences.watch();
    if (this.#schema.hasVirtualTables) this.#totalBefore ??= this.#totalChanges();
  }

  #step(request: StatementRequest, compiled: CompiledStatement, params: readonly unknown[]): StatementResult {
    const { guard } = this.#connection;
    const timeLimitMs = request.timeLimitMs ?? this.#limits.timeLimitMs;
    guard.enter(
      marksRowid(compiled) ? "insert" : "write",
      request.leftMs === undefined ? timeLimitMs : Math.min(timeLimitMs, request.leftMs),
    );
    let result: StatementResult | undefined;
    let failure: unknown;
    try {
      result = this.#execute(request, compiled, params);
    } catch (error) {
      failure = error;
    }
    const report = guard.leave();
    this.#owed.note(report);
    if (result === undefined) throw fromSqlite(failure, guard, report);
    return result;
  }

  /** Rows written on this connection before the first write of the job. */
  #totalBefore: bigint | undefined;

  #execute(
    request: StatementRequest,
    compiled: CompiledStatement,
    params: readonly unknown[],
  ): StatementResult {
    if (compiled.returnsRows) {
      const before = this.#totalChanges();
      const rows = this.#rows(request, compiled, params);
      const rowsAffected = this.#totalChanges() === before ? 0 : this.#lastChanges();
      const lastInsertRowid = insertedRowid(compiled, rowsAffected, this.#lastRowid());
      const result = { columns: compiled.columns, rows, rowsAffected, lastInsertRowid };
      return request.exact === undefined ? result : { ...result, types: compiled.types };
    }
    const done = compiled.statement.run(...params);
    const lastInsertRowid = insertedRowid(compiled, done.changes, done.lastInsertRowid);
    return { columns: [], rows: [], rowsAffected: done.changes, lastInsertRowid };
  }

  #rows(
    request: StatementRequest,
    compiled: CompiledStatement,
    params: readonly unknown[],
  ): (Row | SqlValue[])[] {
    const { maxResultRows: maxRows, maxResultBytes: maxBytes } = this.#limits;
    const exact = request.exact !== undefined;
    const arrays = exact || request.arrays === true;
    const rows = shaped(compiled, arrays, true).iterate(...params) as Iterable<Row | SqlValue[]>;
    if (request.dropRows === true) return dropRows(rows);
    const found = collectRows(rows, limitsOf(request, { maxRows, maxBytes }), exact);
    return presented(compiled, arrays, found);
  }

  #runSchemaChange(
    request: StatementRequest,
    compiled: CompiledStatement,
    params: readonly unknown[],
  ): StatementResult {
    this.#collect();
    this.#control.saveSchema.run();
    try {
      const change = this.#schema.beforeChange(compiled.seen);
      const result = this.#step(request, compiled, params);
      const { changes, changed, dropped } = this.#schema.afterChange(change, request.sql);
      // Replay of a DROP TABLE runs its foreign key actions again, and could not know of a debt paid later.
      if (dropped) this.#owed.check();
      this.#control.releaseSchema.run();
      if (changed) this.#noteSchemaChange(changes);
      return { ...result, rowsAffected: 0, lastInsertRowid: undefined };
    } catch (error) {
      if (this.inTransaction) this.#restoreSchema();
      throw error;
    }
  }

  #noteSchemaChange(changes: readonly Change[]): void {
    const isOff = !this.#foreignKeys && !this.#changes.some(isForeignKeysOff);
    if (isOff) this.#changes.push({ kind: "ddl", sql: FOREIGN_KEYS_OFF, bindings: [] });
    for (const change of changes) this.#changes.push(change);
    this.#cache.clear();
    this.schemaGeneration += 1;
  }

  /** A schema change that failed inside a transaction that goes on: neither it nor our bookkeeping of it stays. */
  #restoreSchema(): void {
    this.#control.undoSchema.run();
    this.#control.releaseSchema.run();
    this.#capture.discard();
    this.#schema.load();
    this.#cache.clear();
  }

  /** A pragma that sets something of the database file is replayed; per-transaction ones are not. */
  #runPragma(request: StatementRequest, compiled: CompiledStatement): StatementResult {
    const before = this.#userVersion();
    const result = this.#step(request, compiled, []);
    const after = this.#userVersion();
    if (after !== before && request.rowsOnly === true) {
      this.#connection.db.pragma(`main.user_version = ${before}`);
      throw rowsOnly();
    }
    if (after !== before) {
      this.#collect();
      this.#changes.push({ kind: "ddl", sql: `PRAGMA user_version = ${after}`, bindings: [] });
    }
    return result;
  }

  #userVersion(): number {
    return this.#connection.db.pragma("main.user_version", { simple: true }) as number;
  }

  #createStream(name: string): number {
    const stream = this.#schema.takeStreamId();
    this.bookkeeping.putStream(stream, "events" satisfies StreamKind, name);
    this.#changes.push({ kind: "create-stream", stream, name });
    return stream;
  }

  #ensureStream(id: number, name: string): void {
    assert(id < FIRST_USER_STREAM, "only the system's streams have ids of their own choice");
    if (this.bookkeeping.stream(id) !== undefined) return;
    this.bookkeeping.putStream(id, "events", name);
    this.#changes.push({ kind: "create-stream", stream: id, name });
  }

  #appendEvents(stream: number, events: readonly Uint8Array[]): bigint {
    const firstOffset = this.bookkeeping.stream(stream)?.nextOffset;
    if (firstOffset === undefined) throw kimberliteError("stream_not_found", "there is no such stream");
    this.#collect();
    this.#changes.push({ kind: "events", stream, firstOffset, events });
    return firstOffset;
  }

  #declareSubject(table: string, column: string): boolean {
    const { db } = this.#connection;
    const found = findSubjectColumn(
      { db, bookkeeping: this.bookkeeping, tables: this.#capture.tables },
      table,
      column,
    );
    if (found === undefined) return false;
    this.#collect();
    this.bookkeeping.putSubjectColumn({ ...found, logOffset: 0n });
    this.#schema.beginSubjects();
    this.#noteSchemaChange([{ kind: "declare-subject", ...found }]);
    return true;
  }

  readonly #own: Map<string, SqliteStatement> = new Map();

  #statement(sql: string): SqliteStatement {
    let statement = this.#own.get(sql);
    if (statement === undefined) {
      statement = (this.#connection.db.prepare(sql) as SqliteStatement).pluck().safeIntegers(true);
      this.#own.set(sql, statement);
    }
    return statement;
  }

  #totalChanges(): bigint {
    return this.#statement("SELECT total_changes()").get() as bigint;
  }

  #lastChanges(): number {
    return Number(this.#statement("SELECT changes()").get());
  }

  #lastRowid(): bigint {
    return this.#statement("SELECT last_insert_rowid()").get() as bigint;
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw fromSqlite(error, undefined);
    }
  }
}

function isForeignKeysOff(change: Change): boolean {
  return change.kind === "ddl" && change.sql === FOREIGN_KEYS_OFF;
}

function rowsOnly(): Error {
  return kimberliteError("not_authorized", "changing the schema takes the role admin");
}

/** A statement that asks for the last rowid itself must find it. */
function marksRowid({ seen }: CompiledStatement): boolean {
  return seen.inserts && !seen.asksRowid;
}

/** Rowid of the last row that the statement itself inserted; undefined if it inserted none. */
function insertedRowid(
  { seen }: CompiledStatement,
  rowsAffected: number,
  lastRowid: number | bigint,
): number | bigint | undefined {
  if (!seen.inserts || rowsAffected === 0 || lastRowid === NO_ROWID) return undefined;
  return narrowInteger(lastRowid);
}
