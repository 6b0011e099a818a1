/**
 * A session on a table that is shared: what a stream of SQL needs, read-only, over a grant.
 *
 * Kept: every statement is a read of its own, for which the grant is looked at and which is recorded; nothing is held
 * between statements. BEGIN, COMMIT and ROLLBACK are taken, for clients send them around reads; they keep no snapshot.
 */
import { kimberliteError } from "./errors.ts";
import type { SharedStep } from "./projection/lane-protocol.ts";
import type { Page } from "./projection/paged-read.ts";
import { splitSql } from "./projection/sql-splitter.ts";
import { parseControl, type SessionControl } from "./projection/sql-text.ts";
import type { StatementDescription } from "./projection/statement-cache.ts";
import type { SqlValue } from "./projection/values.ts";
import type { StatementResult } from "./projection/writer.ts";
import { pagesOf, runSteps } from "./session-pages.ts";
import {
  type BatchOutcome,
  type BatchPart,
  type BatchStep,
  NOTHING,
  noTransaction,
  type SessionResult,
  type SessionStatement,
  type SqlSession,
  toResult,
} from "./sql-session.ts";

/** Asks under the grant. */
export type SharedAsk = (step: SharedStep) => Promise<StatementResult | StatementDescription>;

export interface SharedSessionOptions {
  readonly maxResultBytes: number;
  readonly stands: () => void;
  /** Asked before each page of rows is handed out. @throws why the grant stands no more */
  readonly look: () => Promise<void>;
}

/** Rows that are handed out between two looks at the grant. */
const PAGE_ROWS = 16;

export class SharedSession implements SqlSession {
  readonly #ask: SharedAsk;
  readonly #maxResultBytes: number;
  readonly #stands: () => void;
  readonly #look: () => Promise<void>;
  #inTransaction = false;
  #closed = false;

  /** By `Kimberlite.sharedSession` alone. */
  constructor(ask: SharedAsk, options: SharedSessionOptions) {
    this.#ask = ask;
    this.#look = options.look;
    this.#maxResultBytes = options.maxResultBytes;
    this.#stands = options.stands;
  }

  get autocommit(): boolean {
    return !this.#inTransaction;
  }

  async run(statement: SessionStatement): Promise<SessionResult> {
    return this.#run(statement, this.#maxResultBytes);
  }

  batch(steps: readonly BatchStep[]): Promise<readonly BatchOutcome[]> {
    return runSteps(steps, {
      autocommit: () => this.autocommit,
      maxResultBytes: this.#maxResultBytes,
      run: (statement, maxResultBytes) => this.#run(statement, maxResultBytes),
    });
  }

  /** Rows are found at once, for the record of a use counts them; each page of them leaves only while the grant stands. */
  batchPages(steps: readonly BatchStep[]): AsyncGenerator<BatchPart, void> {
    return pagesOf(steps, {
      autocommit: () => this.autocommit,
      start: async (statement) => {
        const { rows, ...head } = await this.run(statement);
        let at = 0;
        const next = async (): Promise<Page> => {
          if (at >= rows.length) return { rows: [], done: true };
          this.#stands();
          await this.#look();
          const page = rows.slice(at, at + PAGE_ROWS) as SqlValue[][];
          at += PAGE_ROWS;
          return { rows: page, done: at >= rows.length };
        };
        return { ...head, rows: [], pages: { next, close: async () => undefined } };
      },
    });
  }

  async sequence(sql: string): Promise<void> {
    for (const statement of splitSql(textOf(sql))) await this.run({ sql: statement });
  }

  async describe(sql: string): Promise<StatementDescription> {
    this.#requireOpen();
    const control = parseControl(textOf(sql));
    if (control === undefined) return (await this.#ask({ kind: "describe", sql })) as StatementDescription;
    return { parameters: [], columns: [], types: [], readOnly: true, explain: false };
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  async #run(statement: SessionStatement, maxResultBytes: number): Promise<SessionResult> {
    this.#requireOpen();
    const sql = textOf(statement.sql);
    const control = parseControl(sql);
    if (control !== undefined) return this.#control(control);
    return toResult(
      await this.#ask({ kind: "run", request: { sql, exact: statement.values ?? [], maxResultBytes } }),
    );
  }

  #control(control: SessionControl): SessionResult {
    switch (control.kind) {
      case "begin":
        if (this.#inTransaction) throw noTransaction("cannot start a transaction within a transaction");
        if (control.mode === "immediate") {
          throw kimberliteError("read_only", "what is shared is only read; BEGIN TRANSACTION READONLY");
        }
        this.#inTransaction = true;
        return NOTHING;
      case "commit":
      case "rollback":
        if (!this.#inTransaction) throw noTransaction(`cannot ${control.kind} - no transaction is active`);
        this.#inTransaction = false;
        return NOTHING;
      default:
        throw kimberliteError("read_only", "what is shared is only read");
    }
  }

  #requireOpen(): void {
    if (this.#closed) throw kimberliteError("closed", "the session is closed");
    this.#stands();
  }
}

function textOf(sql: unknown): string {
  if (typeof sql !== "string") throw kimberliteError("invalid_sql", "SQL is a string");
  return sql;
}
