/**
 * Compiled statements of a tenant, by their text, on one connection; and what the guard saw when each was compiled.
 *
 * A statement is compiled only while the guard is entered: what it may do is decided there, by SQLite's authorizer.
 */
import { LRUCache } from "lru-cache";
import { kimberliteError } from "../errors.ts";
import type { Connection } from "./connection.ts";
import type { GuardReport } from "./guard.ts";
import { filterSchemaTable, isSchemaTableDenial } from "./schema-table.ts";
import { isExplain, parameterNames } from "./sql-text.ts";
import type { SqliteStatement } from "./sqlite.ts";
import { fromSqlite } from "./sqlite-error.ts";

export interface CompiledStatement {
  readonly statement: SqliteStatement;
  readonly returnsRows: boolean;
  readonly readOnly: boolean;
  readonly columns: readonly string[];
  /** Declared types of the columns; null where a column is no table's. */
  readonly types: readonly (string | null)[];
  /** What compiling it touched: schema changes, writes. */
  readonly seen: GuardReport;
  /** The form that its rows were last asked for in. */
  readonly form: { arrays: boolean; exactIntegers: boolean };
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
  arrays: boolean,
  exactIntegers: boolean,
): SqliteStatement {
  const { statement, form } = compiled;
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

const MAX_STATEMENTS = 256;
const COMPILE_LIMIT_MS = 5_000;

export class StatementCache {
  readonly #connection: Connection;
  readonly #mode: "write" | "read";
  readonly #cache: LRUCache<string, CompiledStatement> = new LRUCache({ max: MAX_STATEMENTS });

  constructor(connection: Connection, mode: "write" | "read") {
    this.#connection = connection;
    this.#mode = mode;
  }

  /**
   * @param before is called when the text must be compiled, which needs the guard left.
   * @throws `invalid_sql`, `unsupported_sql`, `value_too_large`
   */
  compile(sql: string, before?: () => void): CompiledStatement {
    const cached = this.#cache.get(sql);
    if (cached !== undefined) return cached;
    checkText(sql);
    before?.();
    const compiled = this.#prepare(sql);
    this.#cache.set(sql, compiled);
    return compiled;
  }

  /** Forgets everything: after a schema change texts may mean something else. */
  clear(): void {
    this.#cache.clear();
  }

  #prepare(sql: string): CompiledStatement {
    const { guard, schemaView } = this.#connection;
    let attempt = this.#attempt(sql);
    if ("failure" in attempt && isSchemaTableDenial(guard.denied())) {
      const filtered = filterSchemaTable(sql, schemaView);
      if (filtered !== undefined) attempt = this.#attempt(filtered);
    }
    if ("failure" in attempt) throw fromSqlite(attempt.failure, guard, attempt.seen.deadlineFired);
    const { statement, seen } = attempt;
    const columns = statement.reader ? statement.columns() : [];
    return {
      statement,
      returnsRows: statement.reader,
      readOnly: statement.readonly,
      columns: columns.map((column) => column.name),
      types: columns.map((column) => column.type),
      seen,
      form: { arrays: false, exactIntegers: false },
    };
  }

  #attempt(sql: string): Attempt {
    const { db, guard } = this.#connection;
    guard.enter(this.#mode, COMPILE_LIMIT_MS);
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

function checkText(sql: unknown): void {
  if (typeof sql !== "string") throw kimberliteError("invalid_sql", "SQL is a string");
  if (sql.includes("\0")) throw kimberliteError("invalid_sql", "the SQL text holds a NUL");
  if (!sql.isWellFormed()) throw kimberliteError("invalid_sql", "the SQL text holds a lone surrogate");
}

/** Also what writes, but neither rows nor settings: ANALYZE where there is no table makes tables for its statistics. */
export function changesSchema({ seen, readOnly }: CompiledStatement): boolean {
  if (seen.schemaChange || seen.analyzeOrReindex) return true;
  return !readOnly && !seen.rowWrites && !seen.sequenceWrites && !seen.pragmaSet;
}
