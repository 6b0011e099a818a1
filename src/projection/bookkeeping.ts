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
