/**
 * Reads of a tenant's projection, on a read-only connection of their own: a snapshot of what was committed, never of a
 * batch that is not durable yet, and without waiting for one.
 */
import { kimberliteError } from "../errors.ts";
import { Bookkeeping } from "./bookkeeping.ts";
import type { Connection, StatementLimits } from "./connection.ts";
import { fromSqlite } from "./sqlite-error.ts";
import { type CompiledStatement, StatementCache } from "./statement-cache.ts";
import {
  inspectRows,
  narrowIntegers,
  parseParams,
  type Row,
  type SqlValue,
  sizeOf,
  tooManyBytes,
  tooManyRows,
} from "./values.ts";
import type { StatementRequest, StatementResult } from "./writer.ts";

export class ProjectionReader {
  readonly bookkeeping: Bookkeeping;
  readonly #connection: Connection;
  readonly #limits: StatementLimits;
  readonly #cache: StatementCache;

  constructor(connection: Connection, limits: StatementLimits) {
    this.#connection = connection;
    this.#limits = limits;
    this.bookkeeping = new Bookkeeping(connection.db);
    this.#cache = new StatementCache(connection, "read");
  }

  /** After a schema change texts may mean something else. */
  forgetStatements(): void {
    this.#cache.clear();
  }

  /**
   * Runs a statement that reads.
   *
   * @param request `timeLimitMs` bounds the run; past it the statement is stopped (`statement_timeout`).
   * @throws `read_only` for a write, `result_too_large`, `invalid_sql`, `invalid_parameter`, `unsupported_sql`.
   */
  query(request: StatementRequest): StatementResult {
    const params = parseParams(request.params);
    const compiled = this.#cache.compile(request.sql);
    if (!compiled.readOnly || !compiled.returnsRows) {
      throw kimberliteError("read_only", "query() only reads; send writes to execute()");
    }
    const rows = this.#step(request, compiled, params);
    return { columns: compiled.columns, rows, rowsAffected: 0, lastInsertRowid: undefined };
  }

  close(): void {
    this.#cache.clear();
    this.#connection.db.close();
  }

  #step(request: StatementRequest, compiled: CompiledStatement, params: readonly unknown[]): (Row | SqlValue[])[] {
    const { guard } = this.#connection;
    guard.enter("read", request.timeLimitMs ?? this.#limits.timeLimitMs);
    let rows: (Row | SqlValue[])[] | undefined;
    let failure: unknown;
    try {
      rows = this.#fetch(request, compiled, params);
    } catch (error) {
      failure = error;
    }
    const report = guard.leave();
    if (rows === undefined) throw fromSqlite(failure, guard, report.deadlineFired);
    return rows;
  }

  /** Doubles are read first, for they cost less; an integer that they cannot hold makes it read again as bigints. */
  #fetch(request: StatementRequest, compiled: CompiledStatement, params: readonly unknown[]): (Row | SqlValue[])[] {
    const statement = compiled.statement.raw(request.arrays === true).safeIntegers(false);
    const rows = statement.all(...params) as (Row | SqlValue[])[];
    const limits = { maxRows: this.#limits.maxResultRows, maxBytes: this.#limits.maxResultBytes };
    if (!inspectRows(rows, limits)) return rows;
    return (statement.safeIntegers(true).all(...params) as (Row | SqlValue[])[]).map(narrowIntegers);
  }

  /** As `query`, in bounded memory: stops at the first row past a limit instead of reading them all. */
  queryBounded(request: StatementRequest): StatementResult {
    const params = parseParams(request.params);
    const compiled = this.#cache.compile(request.sql);
    if (!compiled.readOnly || !compiled.returnsRows) {
      throw kimberliteError("read_only", "query() only reads; send writes to execute()");
    }
    const { guard } = this.#connection;
    guard.enter("read", request.timeLimitMs ?? this.#limits.timeLimitMs);
    let rows: (Row | SqlValue[])[] | undefined;
    let failure: unknown;
    try {
      rows = this.#collect(request, compiled, params);
    } catch (error) {
      failure = error;
    }
    const report = guard.leave();
    if (rows === undefined) throw fromSqlite(failure, guard, report.deadlineFired);
    return { columns: compiled.columns, rows, rowsAffected: 0, lastInsertRowid: undefined };
  }

  #collect(request: StatementRequest, compiled: CompiledStatement, params: readonly unknown[]): (Row | SqlValue[])[] {
    const limits = { maxRows: this.#limits.maxResultRows, maxBytes: this.#limits.maxResultBytes };
    const statement = compiled.statement.raw(request.arrays === true).safeIntegers(true);
    const rows: (Row | SqlValue[])[] = [];
    let bytes = 0;
    for (const row of statement.iterate(...params) as Iterable<Row | SqlValue[]>) {
      for (const key in row) bytes += sizeOf((row as Row)[key] as SqlValue);
      if (rows.length >= limits.maxRows) throw tooManyRows(limits);
      if (bytes > limits.maxBytes) throw tooManyBytes(limits);
      rows.push(narrowIntegers(row));
    }
    return rows;
  }
}
