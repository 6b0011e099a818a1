/** What the operations of a database take and give, and how it is turned into the work of a tenant's engine. */
import { kimberliteError } from "./errors.ts";
import type { CallContext } from "./pipeline/batch.ts";
import type { LaneTransaction } from "./pipeline/lane-transaction.ts";
import type { TenantEngine } from "./pipeline/tenant-engine.ts";
import type { StatementLimits } from "./projection/connection.ts";
import { quoteName } from "./projection/tables.ts";
import type { Row, SqlInput, SqlParams, SqlValue } from "./projection/values.ts";
import type { StatementRequest, StatementResult } from "./projection/writer.ts";
import type { SessionAccess, SessionPorts } from "./sql-session.ts";
import { parseCount, parseOptions, parseTimeLimit } from "./tenant/call-options.ts";
import type { TenantEntry } from "./tenant/tenant-config.ts";
import type { StreamId } from "./tenant/tenant-id.ts";

/** Outcome of a statement. */
export interface ExecuteResult {
  readonly columns: readonly string[];
  readonly rows: readonly Row[];
  /** Rows that the statement itself inserted, updated or deleted; not those of triggers and cascades. */
  readonly rowsAffected: number;
  readonly lastInsertRowid: number | bigint | undefined;
  /** Offset of the transaction's record in the tenant's log; undefined if it changed nothing. */
  readonly offset: bigint | undefined;
}

/** Outcome of a statement with its rows as arrays in the order of `columns`, so that two columns may have one name. */
export interface ArraysResult extends Omit<ExecuteResult, "rows"> {
  readonly rows: readonly (readonly SqlValue[])[];
}

/** One statement of a transaction that is given as a list. */
export type Statement = string | { readonly sql: string; readonly params?: SqlParams };

/** What a callback transaction may do; it ends with the callback. Await each call. */
export interface Transaction {
  execute(sql: string, params?: SqlParams): Promise<ExecuteResult>;
  query(sql: string, params?: SqlParams): Promise<Row[]>;
}

/** Who is asking, for the record; the library trusts what it is told. */
export interface OperationOptions {
  /** 1 to 255 characters; "local" unless given. */
  readonly actor?: string;
  readonly correlationId?: string;
  /** Network address that an operator's or admin's call came from, for the audit record; up to 255 characters. */
  readonly address?: string;
}

export interface TransactionOptions extends OperationOptions {
  /** Longest time that the callback may take, 5 s unless given. */
  readonly timeLimitMs?: number;
}

export interface SessionOptions extends OperationOptions {
  /** What its statements may do, as SQLite finds; "schema" unless given. */
  readonly access?: SessionAccess;
  /** Longest time that a transaction may be open, 5 s unless given. */
  readonly transactionTimeLimitMs?: number;
  /** Longest time that BEGIN waits for another transaction, 5 s unless given. */
  readonly busyTimeoutMs?: number;
  /** Most bytes of the results of one call, if less than the database's own limit. */
  readonly maxResultBytes?: number;
  /** Asked before each statement; what it throws refuses it. For callers whose right may end while the session is open. */
  readonly stands?: () => void;
}

const DEFAULT_HOLD_MS = 5_000;

export function parseSessionOptions(
  options: SessionOptions,
  limits: StatementLimits,
): Pick<SessionPorts, "context" | "access" | "hold" | "maxResultBytes" | "stands"> {
  const { access = "schema", maxResultBytes = limits.maxResultBytes, ...given } = parseOptions(options);
  const { stands = () => undefined } = given;
  if (typeof stands !== "function") throw kimberliteError("invalid_argument", "stands is a function");
  if (access !== "read" && access !== "rows" && access !== "schema") {
    throw kimberliteError("invalid_argument", 'access is "read", "rows" or "schema"');
  }
  const hold = {
    timeLimitMs: parseTimeLimit(given.transactionTimeLimitMs ?? DEFAULT_HOLD_MS, "transactionTimeLimitMs"),
    busyTimeoutMs: parseTimeLimit(given.busyTimeoutMs ?? DEFAULT_HOLD_MS, "busyTimeoutMs"),
  };
  const bytes = parseCount(maxResultBytes, { name: "maxResultBytes", min: 1 });
  return {
    context: parseContext(given),
    access,
    hold,
    maxResultBytes: Math.min(bytes, limits.maxResultBytes),
    stands,
  };
}

/** What is known of a tenant. */
export interface TenantDescription extends TenantEntry {
  /** Records in the log: offsets 0 … size−1. */
  readonly size: bigint;
  /** First record that there is; those before were trimmed. */
  readonly firstOffset: bigint;
  readonly logBytes: number;
  readonly projectionBytes: number;
}

export interface StreamDescription {
  readonly id: StreamId;
  readonly kind: "table" | "events";
  readonly name: string;
}

export interface NodeStats {
  readonly tenants: number;
  readonly openTenants: number;
  readonly installation: string;
}

export function parseContext(options?: OperationOptions): CallContext {
  const { actor = "local", correlationId } = parseOptions(options);
  for (const text of [actor, correlationId ?? "-"]) {
    if (typeof text !== "string" || text.length < 1 || text.length > 255 || !text.isWellFormed()) {
      throw kimberliteError("invalid_argument", "actor and correlationId are 1 to 255 characters");
    }
  }
  return { actor, correlationId };
}

/** Where the call came from. @throws `invalid_argument` */
export function parseAddress(options?: OperationOptions): string | undefined {
  const { address } = parseOptions(options);
  if (address === undefined) return undefined;
  if (typeof address === "string" && address !== "" && address.length <= 255 && address.isWellFormed()) {
    return address;
  }
  throw kimberliteError("invalid_argument", "address is 1 to 255 characters");
}

export function toExecuteResult(result: StatementResult, offset: bigint | undefined): ExecuteResult {
  return { ...result, rows: result.rows as Row[], offset };
}

export function toArraysResult(result: StatementResult, offset: bigint | undefined): ArraysResult {
  return { ...result, rows: result.rows as SqlValue[][], offset };
}

export async function runList(
  engine: TenantEngine,
  context: CallContext,
  statements: readonly Statement[],
): Promise<ExecuteResult[]> {
  if (!Array.isArray(statements))
    throw kimberliteError("invalid_argument", "transaction() takes statements or a callback");
  const requests: StatementRequest[] = (statements as readonly Statement[]).map((statement) =>
    typeof statement === "string" ? { sql: statement } : { sql: statement?.sql, params: statement?.params },
  );
  const { value, offset } = await engine.pipeline.submitStatements(context, requests);
  return value.map((result) => toExecuteResult(result, offset));
}

export function toTransaction(transaction: LaneTransaction): Transaction {
  const run = async (sql: string, params?: SqlParams): Promise<ExecuteResult> =>
    toExecuteResult((await transaction.run([{ sql, params }]))[0] as StatementResult, undefined);
  return { execute: run, query: async (sql, params) => [...(await run(sql, params)).rows] };
}

export function insertRequest(
  table: unknown,
  row: Readonly<Record<string, SqlInput>>,
): { sql: string; params: SqlInput[] } {
  if (typeof table !== "string" || table === "" || table.includes("\0")) {
    throw kimberliteError("invalid_argument", "insert() takes the name of a table");
  }
  if (typeof row !== "object" || row === null || Symbol.iterator in row) {
    throw kimberliteError("invalid_argument", "insert() takes a row, or an array of rows, as objects");
  }
  const columns = Object.keys(row);
  if (columns.length === 0) return { sql: `INSERT INTO ${quoteName(table)} DEFAULT VALUES`, params: [] };
  const places = columns.map(() => "?").join(", ");
  const names = columns.map(quoteName).join(", ");
  return { sql: `INSERT INTO ${quoteName(table)} (${names}) VALUES (${places})`, params: Object.values(row) };
}
