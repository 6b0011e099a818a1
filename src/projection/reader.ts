/**
 * Reads of a tenant's projection, on a read-only connection of their own: a snapshot of what was committed, never of a
 * batch that is not durable yet, and without waiting for one.
 */
import { kimberliteError } from "../errors.ts";
import { Bookkeeping } from "./bookkeeping.ts";
import type { Connection, StatementLimits } from "./connection.ts";
import { PagedRead } from "./paged-read.ts";
import { argumentsFor } from "./parameters.ts";
import { fromSqlite } from "./sqlite-error.ts";
import {
  type CompiledStatement,
  describeCompiled,
  presented,
  StatementCache,
  type StatementDescription,
  shaped,
} from "./statement-cache.ts";
import {
  collectRows,
  dropRows,
  inspectRows,
  narrowIntegers,
  type ResultLimits,
  type Row,
  type SqlValue,
} from "./values.ts";
import { limitsOf, parseGiven, type StatementRequest, type StatementResult } from "./writer.ts";

export class ProjectionReader {
  readonly #bookkeeping: Bookkeeping;
  readonly #connection: Connection;
  readonly #limits: StatementLimits;
  readonly #resultLimits: ResultLimits;
  #entered = false;
  #leaving = false;
  readonly #cache: StatementCache;

  constructor(connection: Connection, limits: StatementLimits) {
    this.#connection = connection;
    this.#limits = limits;
    this.#resultLimits = { maxRows: limits.maxResultRows, maxBytes: limits.maxResultBytes };
    this.#bookkeeping = new Bookkeeping(connection.db);
    this.#cache = new StatementCache(connection, "read");
  }

  /** Our own tables, read from the same snapshots. */
  get bookkeeping(): Bookkeeping {
    this.#leave();
    return this.#bookkeeping;
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
    const given = parseGiven(request);
    const compiled = this.#compile(request);
    const params = argumentsFor(given, compiled.places);
    const rows = this.#step(request, () => this.#fetch(request, compiled, params));
    return outcome(request, compiled, rows);
  }

  /**
   * What a statement that reads is; one that writes is `read_only`, also where it was only to be described.
   *
   * @throws `statement_timeout` on the main thread for a text that takes long to compile
   */
  describe(sql: string): StatementDescription {
    return describeCompiled(sql, this.#compile({ sql, timeLimitMs: this.#limits.timeLimitMs }));
  }

  /**
   * Runs several reads in one snapshot, in one turn of the event loop. `work` runs them by `query`.
   *
   * @throws what `work` throws
   */
  together<T>(work: () => T): T {
    this.beginSnapshot();
    try {
      return work();
    } finally {
      this.endSnapshot();
    }
  }

  /** What is committed now is what is read until `endSnapshot`. While it lasts the write-ahead log only grows. */
  beginSnapshot(): void {
    this.#leave();
    // The snapshot begins with the first read.
    this.#connection.db.exec("BEGIN; SELECT 1 FROM sqlite_master LIMIT 1");
  }

  endSnapshot(): void {
    this.#leave();
    if (this.#connection.db.inTransaction) this.#connection.db.exec("ROLLBACK");
  }

  close(): void {
    this.#leave();
    this.#cache.clear();
    this.#connection.db.close();
  }

  #compile({ sql, timeLimitMs }: StatementRequest): CompiledStatement {
    const compiled = this.#cache.compile(sql, {
      mayMove: timeLimitMs !== undefined,
      before: this.#leaveFirst,
    });
    if (!compiled.readOnly || !compiled.returnsRows) {
      throw kimberliteError("read_only", "query() only reads; send writes to execute()");
    }
    return compiled;
  }

  /**
   * A read that succeeded leaves the guard entered, which saves a call: the next one enters it anew with its own
   * deadline, and an interrupt that comes while nothing runs stops nothing. When the turn ends the guard is left.
   */
  #step(request: StatementRequest, fetch: () => (Row | SqlValue[])[]): (Row | SqlValue[])[] {
    const { guard } = this.#connection;
    const timeLimitMs = request.timeLimitMs ?? this.#limits.timeLimitMs;
    guard.enter("read", request.leftMs === undefined ? timeLimitMs : Math.min(timeLimitMs, request.leftMs));
    this.#entered = true;
    if (!this.#leaving) this.#leaveLater();
    try {
      return fetch();
    } catch (error) {
      this.#entered = false;
      throw fromSqlite(error, guard, guard.leave());
    }
  }

  /** Once a turn of the event loop, not once a read: an idle reader must not stay on the watchdog's list. */
  #leaveLater(): void {
    this.#leaving = true;
    setImmediate(() => {
      this.#leaving = false;
      this.#leave();
    });
  }

  readonly #leaveFirst = (): void => this.#leave();

  #leave(): void {
    if (this.#entered) this.#connection.guard.leave();
    this.#entered = false;
  }

  /** Doubles are read first, for they cost less; an integer that they cannot hold makes it read again as bigints. */
  #fetch(
    request: StatementRequest,
    compiled: CompiledStatement,
    params: readonly unknown[],
  ): (Row | SqlValue[])[] {
    const limits = limitsOf(request, this.#resultLimits);
    if (request.exact !== undefined) {
      const found = shaped(compiled, true, true).iterate(...params) as Iterable<SqlValue[]>;
      return request.dropRows === true ? dropRows(found) : collectRows(found, limits, true);
    }
    const rows = shaped(compiled, request.arrays === true, false).all(...params) as (Row | SqlValue[])[];
    if (!inspectRows(rows, limits)) return rows;
    const exact = shaped(compiled, request.arrays === true, true).all(...params) as (Row | SqlValue[])[];
    return exact.map(narrowIntegers);
  }

  /** As `queryBounded`, in pages: the columns now, the rows as they are asked for. Until it is closed nothing else is read. */
  openPages(request: StatementRequest): { readonly head: StatementResult; readonly pages: PagedRead } {
    const given = parseGiven(request);
    const compiled = this.#compile(request);
    const params = argumentsFor(given, compiled.places);
    this.#leave();
    const rows = (shaped(compiled, true, true).iterate(...params) as Iterable<SqlValue[]>)[Symbol.iterator]();
    const pages = new PagedRead({
      guard: this.#connection.guard,
      rows,
      limits: this.#resultLimits,
      timeLimitMs: request.timeLimitMs ?? this.#limits.timeLimitMs,
    });
    return { head: outcome(request, compiled, []), pages };
  }

  /** As `query`, in bounded memory: stops at the first row past a limit instead of reading them all. */
  queryBounded(request: StatementRequest): StatementResult {
    const given = parseGiven(request);
    const compiled = this.#compile(request);
    const params = argumentsFor(given, compiled.places);
    const exact = request.exact !== undefined;
    const limits = limitsOf(request, this.#resultLimits);
    const statement = shaped(compiled, exact || request.arrays === true, true);
    const rows = this.#step(request, () => {
      const found = statement.iterate(...params) as Iterable<Row | SqlValue[]>;
      return request.dropRows === true ? dropRows(found) : collectRows(found, limits, exact);
    });
    return outcome(request, compiled, rows);
  }
}

function outcome(
  request: StatementRequest,
  compiled: CompiledStatement,
  fetched: (Row | SqlValue[])[],
): StatementResult {
  const { columns, types } = compiled;
  const rows = presented(compiled, request.exact !== undefined || request.arrays === true, fetched);
  const found = { columns, rows, rowsAffected: 0, lastInsertRowid: undefined };
  return request.exact === undefined ? found : { ...found, types };
}
