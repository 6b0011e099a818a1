/**
 * Our own tables inside a projection: how far the log is applied, which stream is which table, where events lie, and
 * which idempotency keys were used. Written in the same SQLite transaction as the rows they speak of; tenants' SQL can
 * neither see nor touch them.
 */
import { kimberliteError } from "../errors.ts";
import type { LogHead } from "../log/tenant-log.ts";
import type { SqliteDatabase, SqliteStatement } from "./sqlite.ts";

const PROJECTION_FORMAT_VERSION = 1;
/** Names of ours begin so; the guard refuses them to tenants. */
export const RESERVED_PREFIX = "_kimberlite_";
/** Streams below are kept for the system's. */
export const FIRST_USER_STREAM = 100;

const TABLES = `
CREATE TABLE IF NOT EXISTS _kimberlite_meta (
  id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL,
  next_offset INTEGER NOT NULL, head_hash BLOB NOT NULL, segment INTEGER NOT NULL, position INTEGER NOT NULL,
  last_time_us INTEGER NOT NULL, total_bytes INTEGER NOT NULL,
  dek_version INTEGER NOT NULL, blocks_sealed INTEGER NOT NULL, next_stream INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS _kimberlite_streams (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, dropped INTEGER NOT NULL,
  next_offset INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS _kimberlite_events (
  stream INTEGER NOT NULL, first_offset INTEGER NOT NULL, log_offset INTEGER NOT NULL,
  PRIMARY KEY (stream, first_offset)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _kimberlite_idempotency (
  key TEXT PRIMARY KEY, request BLOB NOT NULL, log_offset INTEGER NOT NULL, stream INTEGER NOT NULL,
  first_offset INTEGER NOT NULL, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;
`;

/** Made with the first declaration, so that tenants without one have none of it. */
const SUBJECT_TABLES = `
CREATE TABLE IF NOT EXISTS main._kimberlite_subject_columns (
  stream INTEGER PRIMARY KEY, column_name TEXT NOT NULL, log_offset INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS main._kimberlite_erased_subjects (
  subject BLOB PRIMARY KEY, log_offset INTEGER NOT NULL, facts TEXT NOT NULL, certificate TEXT) STRICT, WITHOUT ROWID;
`;

/** Every table of ours. */
export const OWN_TABLES: readonly string[] = [
  "_kimberlite_meta",
  "_kimberlite_streams",
  "_kimberlite_events",
  "_kimberlite_idempotency",
  "_kimberlite_subject_columns",
  "_kimberlite_erased_subjects",
];

/** A table's stream whose rows are sealed under the subject that the column names. */
export interface SubjectColumn {
  readonly stream: number;
  readonly column: string;
  /** Record of the declaration: rows from there on are sealed. */
  readonly logOffset: bigint;
}

/** A subject that was erased. */
export interface ErasedSubject {
  /** Random name. */
  readonly subject: Buffer;
  /** Record of the erasure. */
  readonly logOffset: bigint;
  readonly facts: string;
  /** Undefined until nothing of it is left. */
  readonly certificate: string | undefined;
}

/** What the projection says of itself. */
export interface ProjectionMeta extends LogHead {
  /** DEK version of the last block, and how many blocks were sealed under it. */
  readonly dekVersion: number;
  readonly blocksSealed: number;
  readonly nextStream: number;
}

export type StreamKind = "table" | "events";

export interface StreamRow {
  readonly id: number;
  readonly kind: StreamKind;
  readonly name: string;
  readonly dropped: boolean;
  readonly nextOffset: bigint;
}

export interface IdempotencyRow {
  readonly request: Buffer;
  readonly logOffset: bigint;
  readonly stream: number;
  readonly firstOffset: bigint;
  readonly count: number;
}

/** Reads and writes our tables on one connection, in trusted mode. */
export class Bookkeeping {
  readonly #db: SqliteDatabase;
  readonly #statements: Map<string, SqliteStatement> = new Map();

  constructor(db: SqliteDatabase) {
    this.#db = db;
  }

  /** Creates our tables where there are none. */
  initialise(): void {
    this.#db.exec(TABLES);
    this.#run(
      `INSERT OR IGNORE INTO main._kimberlite_meta VALUES (1, ?, 0, zeroblob(32), 0, 0, 0, 0, 0, 0, ${FIRST_USER_STREAM})`,
      PROJECTION_FORMAT_VERSION,
    );
  }

  /** @throws `format_too_new`, `projection_damaged` */
  readMeta(): ProjectionMeta {
    const row = this.#get("SELECT * FROM main._kimberlite_meta WHERE id = 1") as
      | Record<string, bigint>
      | undefined;
    if (row === undefined)
      throw kimberliteError("projection_damaged", "the projection does not know its offset");
    if (Number(row["format"]) > PROJECTION_FORMAT_VERSION) {
      throw kimberliteError("format_too_new", `the projection has format ${row["format"]}`);
    }
    return {
      nextOffset: row["next_offset"] as bigint,
      hash: row["head_hash"] as unknown as Buffer,
      segment: row["segment"] as bigint,
      position: Number(row["position"]),
      lastTimeUs: row["last_time_us"] as bigint,
      totalBytes: Number(row["total_bytes"]),
      dekVersion: Number(row["dek_version"]),
      blocksSealed: Number(row["blocks_sealed"]),
      nextStream: Number(row["next_stream"]),
    };
  }

  writeMeta(meta: ProjectionMeta): void {
    this.#run(
      `UPDATE main._kimberlite_meta SET next_offset = ?, head_hash = ?, segment = ?, position = ?, last_time_us = ?,
       total_bytes = ?, dek_version = ?, blocks_sealed = ?, next_stream = ? WHERE id = 1`,
      meta.nextOffset,
      meta.hash,
      meta.segment,
      meta.position,
      meta.lastTimeUs,
      meta.totalBytes,
      meta.dekVersion,
      meta.blocksSealed,
      meta.nextStream,
    );
  }

  /** The first item of a stream whose record is at that offset of the log or behind it; the next to come if none is. */
  firstItemFrom(stream: number, logOffset: bigint): bigint {
    const sql =
      "SELECT first_offset FROM main._kimberlite_events WHERE stream = ? AND log_offset >= ? ORDER BY first_offset LIMIT 1";
    const row = this.#get(sql, stream, logOffset) as { first_offset: bigint } | undefined;
    return row?.first_offset ?? this.stream(stream)?.nextOffset ?? 0n;
  }

  streams(): StreamRow[] {
    return (this.#all("SELECT * FROM main._kimberlite_streams ORDER BY id") as Record<string, unknown>[]).map(
      toStream,
    );
  }

  stream(id: number): StreamRow | undefined {
    return optionalStream(this.#get("SELECT * FROM main._kimberlite_streams WHERE id = ?", id));
  }

  streamNamed(name: string): StreamRow | undefined {
    return optionalStream(
      this.#get("SELECT * FROM main._kimberlite_streams WHERE name = ? COLLATE NOCASE AND dropped = 0", name),
    );
  }

  putStream(id: number, kind: StreamKind, name: string): void {
    this.#run(
      `INSERT INTO main._kimberlite_streams VALUES (?, ?, ?, 0, 0)
       ON CONFLICT (id) DO UPDATE SET name = excluded.name, dropped = 0`,
      id,
      kind,
      name,
    );
  }

  /** Counts that a table lost a column, or calls one otherwise: where an event stream counts its items. */
  narrowTable(name: string): void {
    this.#run(
      "UPDATE main._kimberlite_streams SET next_offset = next_offset + 1 WHERE name = ? AND dropped = 0 AND kind = 'table'",
      name,
    );
  }

  dropStream(id: number): void {
    this.#run("UPDATE main._kimberlite_streams SET dropped = 1 WHERE id = ?", id);
  }

  putEvents(stream: number, at: { firstOffset: bigint; count: number; logOffset: bigint }): void {
    this.#run(
      "INSERT OR REPLACE INTO main._kimberlite_events VALUES (?, ?, ?)",
      stream,
      at.firstOffset,
      at.logOffset,
    );
    this.#run(
      "UPDATE main._kimberlite_streams SET next_offset = ? WHERE id = ?",
      at.firstOffset + BigInt(at.count),
      stream,
    );
  }

  /** Log offset of the record that holds, or precedes, an offset of an event stream. */
  logOffsetOf(stream: number, offset: bigint): bigint | undefined {
    const row = this.#get(
      `SELECT log_offset FROM main._kimberlite_events WHERE stream = ? AND first_offset <= ?
       ORDER BY first_offset DESC LIMIT 1`,
      stream,
      offset,
    ) as { log_offset: bigint } | undefined;
    return row?.log_offset;
  }

  /** True once the tenant has declared subjects. */
  hasSubjects(): boolean {
    const sql = "SELECT 1 FROM main.sqlite_master WHERE name = '_kimberlite_subject_columns'";
    return this.#get(sql) !== undefined;
  }

  /** Declarations of tables that are there, in order of their streams. */
  subjectColumns(): SubjectColumn[] {
    if (!this.hasSubjects()) return [];
    const sql = `SELECT c.* FROM main._kimberlite_subject_columns c JOIN main._kimberlite_streams s ON s.id = c.stream
       WHERE s.dropped = 0 ORDER BY c.stream`;
    return (this.#all(sql) as { stream: bigint; column_name: string; log_offset: bigint }[]).map((row) => ({
      stream: Number(row.stream),
      column: row.column_name,
      logOffset: row.log_offset,
    }));
  }

  putSubjectColumn({ stream, column, logOffset }: SubjectColumn): void {
    this.#db.exec(SUBJECT_TABLES);
    const sql = "INSERT OR REPLACE INTO main._kimberlite_subject_columns VALUES (?, ?, ?)";
    this.#run(sql, stream, column, logOffset);
  }

  /** Subjects that were erased, in order of their erasures. */
  erasedSubjects(): ErasedSubject[] {
    if (!this.hasSubjects()) return [];
    const rows = this.#all("SELECT * FROM main._kimberlite_erased_subjects ORDER BY log_offset, subject");
    return (rows as { subject: Buffer; log_offset: bigint; facts: string; certificate: string | null }[]).map(
      (row) => ({
        subject: row.subject,
        logOffset: row.log_offset,
        facts: row.facts,
        certificate: row.certificate ?? undefined,
      }),
    );
  }

  /** Notes an erasure, and later its certificate: where it was begun stays. */
  putErasedSubject(
    erased: { readonly subject: Uint8Array; readonly facts: string; readonly certificate: string | null },
    logOffset: bigint,
  ): void {
    this.#run(
      `INSERT INTO main._kimberlite_erased_subjects VALUES (?, ?, ?, ?)
       ON CONFLICT (subject) DO UPDATE SET certificate = excluded.certificate`,
      erased.subject,
      logOffset,
      erased.facts,
      erased.certificate,
    );
  }

  idempotency(key: string): IdempotencyRow | undefined {
    const row = this.#get("SELECT * FROM main._kimberlite_idempotency WHERE key = ?", key) as
      | { request: Buffer; log_offset: bigint; stream: bigint; first_offset: bigint; count: bigint }
      | undefined;
    if (row === undefined) return undefined;
    return {
      request: row.request,
      logOffset: row.log_offset,
      stream: Number(row.stream),
      firstOffset: row.first_offset,
      count: Number(row.count),
    };
  }

  putIdempotency(key: string, row: IdempotencyRow): void {
    this.#run(
      "INSERT OR IGNORE INTO main._kimberlite_idempotency VALUES (?, ?, ?, ?, ?, ?)",
      key,
      row.request,
      row.logOffset,
      row.stream,
      row.firstOffset,
      row.count,
    );
  }

  #prepare(sql: string): SqliteStatement {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql) as SqliteStatement;
      if (statement.reader) statement.safeIntegers(true);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #run(sql: string, ...params: unknown[]): void {
    this.#prepare(sql).run(...params);
  }

  #get(sql: string, ...params: unknown[]): unknown {
    return this.#prepare(sql).get(...params);
  }

  #all(sql: string, ...params: unknown[]): unknown[] {
    return this.#prepare(sql).all(...params);
  }
}

function optionalStream(row: unknown): StreamRow | undefined {
  return row === undefined ? undefined : toStream(row as Record<string, unknown>);
}

function toStream(row: Record<string, unknown>): StreamRow {
  return {
    id: Number(row["id"]),
    kind: row["kind"] as StreamKind,
    name: row["name"] as string,
    dropped: row["dropped"] === 1n,
    nextOffset: row["next_offset"] as bigint,
  };
}
