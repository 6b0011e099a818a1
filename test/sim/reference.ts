/**
 * What plain SQLite does with the same calls, one after another: no log, no cipher, no guard, no capture.
 *
 * A call is a transaction there as it is in Kimberlite: it leaves nothing if any of its statements, or its commit,
 * fails. Every table has triggers that do nothing, for SQLite without any takes short cuts that are wrong at times: a
 * statement that fails may leave a row or a violated foreign key behind, and REPLACE may overlook one. ALTER TABLE that
 * fails may leave the altered schema, so schema changes have a savepoint.
 */
import Database from "better-sqlite3-multiple-ciphers";
import { KimberliteError } from "../../src/errors.ts";
import type { ExecuteResult } from "../../src/index.ts";
import type { SqliteDatabase } from "../../src/projection/sqlite.ts";
import { fromSqlite } from "../../src/projection/sqlite-error.ts";
import type { Call } from "./sql-script.ts";

/** Outcomes of a call's statements, and of the call: as text, to be compared. */
export type Outcome = readonly string[];

export const CLOSED = "transaction_closed";

const IDLE = "SELECT RAISE(ABORT, 'never') WHERE 0";
const TABLES_WITHOUT_TRIGGERS = `SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
  AND name NOT LIKE 'sqlite%' AND name NOT IN (SELECT tbl_name FROM temp.sqlite_master)`;

export class Reference {
  readonly db: SqliteDatabase = new Database(":memory:");
  #triggers = 0;

  constructor() {
    for (const pragma of ["foreign_keys=ON", "recursive_triggers=ON", "trusted_schema=OFF"])
      this.db.pragma(pragma);
  }

  call(call: Call): Outcome {
    const statements = call.kind === "single" ? [call.sql] : call.statements;
    const outcome: string[] = [];
    this.db.exec("BEGIN");
    for (const sql of statements) {
      outcome.push(this.#run(sql));
      if (call.kind !== "callback" && isFailure(outcome.at(-1)))
        return this.#rollback([outcome.at(-1) as string]);
    }
    if (call.kind === "callback" && call.abandon) return this.#rollback([...outcome, "abandoned"]);
    const ending = this.#commit();
    if (ending === undefined) return outcome;
    return call.kind === "callback" ? [...outcome, ending] : [ending];
  }

  #run(sql: string): string {
    if (!this.db.inTransaction) return CLOSED;
    const changesSchema = /^(CREATE|ALTER|DROP)/.test(sql);
    if (changesSchema) this.db.exec("SAVEPOINT schema_change");
    try {
      return this.#execute(sql);
    } catch (error) {
      if (changesSchema && this.db.inTransaction) this.db.exec("ROLLBACK TO schema_change");
      return describeError(fromSqlite(error, undefined));
    } finally {
      if (changesSchema && this.db.inTransaction) this.db.exec("RELEASE schema_change");
    }
  }

  #execute(sql: string): string {
    const statement = this.db.prepare(sql);
    const before = this.#number("SELECT total_changes()");
    let rows: unknown[][] = [];
    if (statement.reader) rows = statement.safeIntegers(true).raw().all() as unknown[][];
    else statement.run();
    if (/^(CREATE|ALTER)/.test(sql)) this.#makeTriggers();
    const changed = this.#number("SELECT total_changes()") !== before;
    return describeRows(sql, rows, changed ? this.#number("SELECT changes()") : 0);
  }

  #makeTriggers(): void {
    const tables = this.db.prepare(TABLES_WITHOUT_TRIGGERS).pluck().all() as string[];
    for (const table of tables) {
      for (const event of ["INSERT", "UPDATE", "DELETE"]) {
        this.#triggers += 1;
        this.db.exec(
          `CREATE TEMP TRIGGER idle_${this.#triggers} AFTER ${event} ON main.${table} BEGIN ${IDLE}; END`,
        );
      }
    }
  }

  /** How the commit failed; undefined if it did not. */
  #commit(): string | undefined {
    if (!this.db.inTransaction) return CLOSED;
    try {
      this.db.exec("COMMIT");
      return undefined;
    } catch (error) {
      this.#rollback([]);
      return describeError(fromSqlite(error, undefined));
    }
  }

  #rollback(outcome: readonly string[]): Outcome {
    if (this.db.inTransaction) this.db.exec("ROLLBACK");
    return outcome;
  }

  #number(sql: string): number {
    return this.db.prepare(sql).pluck().get() as number;
  }
}

export function isFailure(outcome: string | undefined): boolean {
  return outcome?.startsWith("error ") === true;
}

/** An error by what SQLite said. */
export function describeError(error: unknown): string {
  if (!(error instanceof KimberliteError)) return `error ${String(error)}`;
  if (error.code === "transaction_closed") return CLOSED;
  // Of several things that do not compile, SQLite names the first that it meets; the order of triggers is its own.
  if (error.code === "invalid_sql" && !error.message.startsWith("foreign key mismatch"))
    return "error invalid_sql";
  return `error ${error.code} ${error.message}`;
}

export function describeResult(sql: string, result: ExecuteResult): string {
  const rows = result.rows.map((row) => result.columns.map((name) => row[name]));
  return describeRows(sql, rows, result.rowsAffected);
}

/** Rows in no order, for RETURNING promises none; counts of rows only for statements that change rows. */
function describeRows(sql: string, rows: readonly unknown[][], changes: number): string {
  const lines = rows.map((row) => row.map(describeValue).join(",")).sort();
  const counted = /^(INSERT|REPLACE|UPDATE|DELETE|WITH)/.test(sql) ? `${changes} ` : "";
  return `${counted}[${lines.join("; ")}]`;
}

function describeValue(value: unknown): string {
  if (value instanceof Uint8Array) return `x'${Buffer.from(value).toString("hex")}'`;
  if (Object.is(value, -0)) return "-0";
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
