/**
 * What a session on a tenant is to those who use it, and what it needs of the database. Its behaviour is in `session.ts`.
 */
import { kimberliteError } from "./errors.ts";
import type { CallContext } from "./pipeline/batch.ts";
import type { TenantEngine } from "./pipeline/tenant-engine.ts";
import type { StatementDescription } from "./projection/statement-cache.ts";
import type { SqlValue } from "./projection/values.ts";
import type { StatementRequest, StatementResult } from "./projection/writer.ts";

/** What a session may do: read; also write rows; also change the schema. SQLite decides which a statement does. */
export type SessionAccess = "read" | "rows" | "schema";

/** A statement with a value for each parameter in SQLite's order: a bigint is an INTEGER, a number a REAL. */
export interface SessionStatement {
  readonly sql: string;
  readonly values?: readonly SqlValue[];
  /** The rows are not wanted: the result has none, however many were found. */
  readonly dropRows?: boolean;
}

export interface SessionResult {
  readonly columns: readonly string[];
  /** Declared types of the columns; null where a column is no table's. */
  readonly types: readonly (string | null)[];
  /** Integers are bigints, REALs are numbers. */
  readonly rows: readonly (readonly SqlValue[])[];
  readonly rowsAffected: number;
  readonly lastInsertRowid: number | bigint | undefined;
  /** Offset of the record of the transaction that was committed with the statement, if it changed anything. */
  readonly offset?: bigint | undefined;
}

/** Of a step that ran; undefined for one whose condition did not hold. */
export type BatchOutcome = { readonly result: SessionResult } | { readonly error: Error } | undefined;

/** What a condition of a batch may look at. */
export interface BatchState {
  readonly outcomes: readonly BatchOutcome[];
  /** True outside a transaction. */
  readonly autocommit: boolean;
}

export interface BatchStep {
  readonly statement: SessionStatement;
  /** Why the step fails when its turn comes, whatever its statement. */
  readonly refused?: Error;
  readonly when?: (state: BatchState) => boolean;
}

/** What a batch gives when its results are read in pages: of each step that runs a `begin` to `end`, or an `error`. */
export type BatchPart =
  | {
      readonly kind: "begin";
      readonly step: number;
      readonly columns: readonly string[];
      readonly types: readonly (string | null)[];
    }
  | { readonly kind: "rows"; readonly rows: readonly (readonly SqlValue[])[] }
  | {
      readonly kind: "end";
      readonly rowsAffected: number;
      readonly lastInsertRowid: number | bigint | undefined;
    }
  | { readonly kind: "error"; readonly step: number; readonly error: Error };

/** What a stream of SQL needs, whoever's rows it reads. */
export interface SqlSession {
  /** True outside a transaction. */
  readonly autocommit: boolean;
  /** Runs one statement. @throws as `execute`, and `transaction_timeout`, `transaction_closed` */
  run(statement: SessionStatement): Promise<SessionResult>;
  /** Runs steps in order; a step that fails does not stop those after it. All results together are bounded in size. */
  batch(steps: readonly BatchStep[]): Promise<readonly BatchOutcome[]>;
  /**
   * As `batch`; a step runs when what came before it was taken, and a large result of a read is found as it is taken, in
   * one snapshot, within the time and size that the database allows a statement. End the generator, also early.
   */
  batchPages(steps: readonly BatchStep[]): AsyncGenerator<BatchPart, void>;
  /** Runs the statements of a text up to the first that fails; their rows are dropped. */
  sequence(sql: string): Promise<void>;
  describe(sql: string): Promise<StatementDescription>;
  /** Ends the session, and rolls back the transaction that is open. */
  close(): Promise<void>;
}

export interface HoldLimits {
  /** How long a transaction may be open. */
  readonly timeLimitMs: number;
  /** How long BEGIN waits for another transaction of the tenant to end. */
  readonly busyTimeoutMs: number;
}

/** What a session asks of the database that it belongs to. */
export interface SessionPorts {
  readonly context: CallContext;
  readonly access: SessionAccess;
  readonly hold: HoldLimits;
  readonly maxResultBytes: number;
  /** True where a large result is read in pages rather than at once. */
  readonly inPages?: boolean;
  /** Admits and runs an operation of the tenant. */
  readonly operate: <T>(
    work: (engine: TenantEngine) => T | Promise<T>,
    runs?: "again" | "once",
  ) => Promise<T>;
  readonly read: (request: StatementRequest) => Promise<StatementResult>;
  /** Asked before each statement, whatever it is. @throws if the caller may go on no more */
  readonly stands: () => void;
  /** Asked before each page of a result. @throws `tenant_suspended`, … */
  readonly admitted: () => void;
  /** Asked before each step of a transaction that is open. @throws `tenant_suspended`, `rate_limited`, … */
  readonly charge: () => void;
}

export const NOTHING: SessionResult = {
  columns: [],
  types: [],
  rows: [],
  rowsAffected: 0,
  lastInsertRowid: undefined,
};

export function noTransaction(message: string): Error {
  return kimberliteError("invalid_sql", message, { detail: { sqlite: "SQLITE_ERROR" } });
}

export function toResult(given: unknown): SessionResult {
  const { columns, types = [], rows, rowsAffected, lastInsertRowid } = given as StatementResult;
  return { columns, types, rows: rows as SqlValue[][], rowsAffected, lastInsertRowid };
}
