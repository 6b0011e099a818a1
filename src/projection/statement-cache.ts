/**
 * Compiled statements of a tenant, by their text, on one connection; and what the guard saw when each was compiled.
 *
 * A statement is compiled only while the guard is entered: what it may do is decided there, by SQLite's authorizer.
 */
import { LRUCache } from "lru-cache";
import { kimberliteError } from "../errors.ts";
import type { Connection } from "./connection.ts";
import { Views } from "./expansion.ts";
import type { GuardReport } from "./guard.ts";
import { type Places, placesOf, requireFewNames } from "./parameters.ts";
import { filterSchemaTable, isSchemaTableDenial } from "./schema-table.ts";
import { isExplain, parameterNames } from "./sql-text.ts";
import type { SqliteStatement } from "./sqlite.ts";
import { fromSqlite } from "./sqlite-error.ts";
import { type Row, rowsByName, type SqlValue } from "./values.ts";

export interface CompiledStatement {
  readonly statement: SqliteStatement;
  readonly returnsRows: boolean;
  readonly readOnly: boolean;
  readonly columns: readonly string[];
  /** Declared types of the columns; null where a column is no table's. */
  readonly types: readonly (string | null)[];
  /** What compiling it touched: schema changes, writes. */
  readonly seen: GuardReport;
  /** Places for parameters; undefined if all are bare. */
  readonly places: Places | undefined;
  /** A column has a name that the binding cannot give an object: rows are read as arrays. */
  readonly readAsArrays: boolean;
  /** The form that its rows were last asked for in. */
  readonly form: { arrays: boolean; exactIntegers: boolean };
  /**
   * As large as the statement itself, and never touched, so that it takes no memory: a statement is freed when the
   * collector finds it, and without this the collector would not know how much there is to be had.
   */
  readonly weight: ArrayBuffer | undefined;
}

/** What a statement is, before it runs. */
export interface StatementDescription {
  /** Parameters by their index less one: names with their prefix, null where there is none. */
  readonly parameters: readonly (string | null)[];
  readonly columns: readonly string[];
  /** Declared types of the columns; null where a column is no table's. */
  readonly types: readonly (string | null)[];
  readonly readOnly: boolean;
  readonly explain: boolean;
}

export function describeCompiled(sql: string, compiled: CompiledStatement): StatementDescription {
  const { columns, types, readOnly } = compiled;
  return { parameters: parameterNames(sql), columns, types, readOnly, explain: isExplain(sql) };
}

/** The statement, set to give rows as arrays or objects, and integers as bigints or doubles. Costs nothing if it is. */
export function shaped(
  compiled: CompiledStatement,
  wantsArrays: boolean,
  exactIntegers: boolean,
): SqliteStatement {
  const { statement, form } = compiled;
  const arrays = wantsArrays || compiled.readAsArrays;
  if (form.arrays !== arrays) {
    statement.raw(arrays);
    form.arrays = arrays;
  }
  if (form.exactIntegers !== exactIntegers) {
    statement.safeIntegers(exactIntegers);
    form.exactIntegers = exactIntegers;
  }
  return statement;
}

/** Rows as they were asked for, from a statement that was `shaped` so. */
export function presented(
  compiled: CompiledStatement,
  wantsArrays: boolean,
  rows: (Row | SqlValue[])[],
): (Row | SqlValue[])[] {
  if (wantsArrays || !compiled.readAsArrays) return rows;
  return rowsByName(rows as SqlValue[][], compiled.columns);
}

const MAX_STATEMENTS = 256;
/** Most memory of the statements of one connection, as much as its page cache has; larger ones are not kept. */
const MAX_BYTES = 2 * 1024 * 1024;
/** Memory of this size and more is mapped by itself, and costs nothing until it is touched. */
const MIN_WEIGHT_BYTES = 128 * 1024;
/** What a statement takes in the binding and here. */
const OWN_BYTES = 1_024;
const COMPILE_LIMIT_MS = 5_000;
/**
 * On the main thread. SQLite looks at the deadline between the words of a text, and asks the authorizer for each name;
 * not while it plans: so long texts are compiled in a lane, and a text that took longer makes the others that are new
 * go there for a while.
 */
const COMPILE_INLINE_MS = 50;
const MAX_INLINE_TEXT = 32 * 1024;
const LANE_SHARE = 20;

export class StatementCache {
  readonly #connection: Connection;
  readonly #mode: "write" | "read";
  readonly #cache: LRUCache<string, CompiledStatement> = new LRUCache({
    max: MAX_STATEMENTS,
    maxSize: MAX_BYTES,
    sizeCalculation: ({ seen }, sql) => OWN_BYTES + sql.length + seen.compiledBytes,
  });

  #views: Views | undefined;
  #laneUntilMs = 0;

  constructor(connection: Connection, mode: "write" | "read") {
    this.#connection = connection;
    this.#mode = mode;
  }

  /**
   * @param place `mayMove` says that a lane can do it, if it takes long here; `before` is called when the text must be
   * compiled, which needs the guard left.
   * @throws `invalid_sql`, `unsupported_sql`, `value_too_large`, `invalid_parameter`, `statement_timeout`
   */
  compile(
    sql: string,
    place: { readonly mayMove: boolean; readonly before?: () => void } = { mayMove: false },
  ): CompiledStatement {
    const cached = this.#cache.get(sql);
    if (cached !== undefined) return cached;
    checkText(sql);
    place.before?.();
    const isMomentary = place.mayMove && this.#connection.inline;
    this.#requireModest(sql, isMomentary);
    const compiled = this.#prepareTimed(sql, isMomentary ? COMPILE_INLINE_MS : COMPILE_LIMIT_MS);
    this.#cache.set(sql, compiled);
    return compiled;
  }

  /** Forgets everything: after a schema change texts may mean something else. */
  clear(): void {
    this.#cache.clear();
    this.#views = undefined;
  }

  /** @throws `unsupported_sql`, or `statement_timeout` for a text that a lane compiles */
  #requireModest(sql: string, isMomentary: boolean): void {
    const { db } = this.#connection;
    if (isMomentary && (sql.length > MAX_INLINE_TEXT || performance.now() < this.#laneUntilMs))
      throw notHere();
    this.#views ??= Views.of(db);
    if (!this.#views.require(sql) && isMomentary) throw notHere();
  }

  #prepareTimed(sql: string, limitMs: number): CompiledStatement {
    const startedMs = performance.now();
    try {
      return this.#prepare(sql, limitMs);
    } finally {
      const tookMs = performance.now() - startedMs;
      if (tookMs > COMPILE_INLINE_MS) this.#laneUntilMs = startedMs + tookMs * LANE_SHARE;
    }
  }

  #prepare(sql: string, limitMs: number): CompiledStatement {
    const { guard, schemaView } = this.#connection;
    let attempt = this.#attempt(sql, limitMs);
    if ("failure" in attempt && isSchemaTableDenial(guard.denied())) {
      const filtered = filterSchemaTable(sql, schemaView);
      if (filtered !== undefined) attempt = this.#attempt(filtered, limitMs);
    }
    if ("failure" in attempt) throw fromSqlite(attempt.failure, guard, attempt.seen);
    const { statement, seen } = attempt;
    // The rowid that a run gives is exact so.
    if (!statement.reader) statement.safeIntegers(true);
    const columns = statement.reader ? statement.columns() : [];
    return {
      statement,
      returnsRows: statement.reader,
      readOnly: statement.readonly,
      columns: columns.map((column) => column.name),
      types: columns.map((column) => column.type),
      seen,
      places: placesOf(sql),
      readAsArrays: columns.some((column) => column.name === "__proto__"),
      form: { arrays: false, exactIntegers: false },
      weight: seen.compiledBytes < MIN_WEIGHT_BYTES ? undefined : new ArrayBuffer(seen.compiledBytes),
    };
  }

  #attempt(sql: string, limitMs: number): Attempt {
    const { db, guard } = this.#connection;
    guard.enter(this.#mode, limitMs);
    let outcome: { statement: SqliteStatement } | { failure: unknown };
    try {
      outcome = { statement: db.prepare(sql) as SqliteStatement };
    } catch (failure) {
      outcome = { failure };
    }
    return { ...outcome, seen: guard.leave() };
  }
}

type Attempt =
  | { readonly statement: SqliteStatement; readonly seen: GuardReport }
  | { readonly failure: unknown; readonly seen: GuardReport };

function notHere(): Error {
  return kimberliteError("statement_timeout", "the statement takes long to compile");
}

function checkText(sql: unknown): void {
  if (typeof sql !== "string") throw kimberliteError("invalid_sql", "SQL is a string");
  if (sql.includes("\0")) throw kimberliteError("invalid_sql", "the SQL text holds a NUL");
  if (!sql.isWellFormed()) throw kimberliteError("invalid_sql", "the SQL text holds a lone surrogate");
  requireFewNames(sql);
}

/** Also what writes, but neither rows nor settings: ANALYZE where there is no table makes tables for its statistics. */
export function changesSchema({ seen, readOnly }: CompiledStatement): boolean {
  if (seen.schemaChange || seen.analyzeOrReindex) return true;
  return !readOnly && !seen.rowWrites && !seen.sequenceWrites && !seen.pragmaSet;
}
