/** Turns what SQLite and its binding throw into the error family, without a value of any row in it. */
import { KimberliteError, kimberliteError } from "../errors.ts";
import { denialHint, type Guard, type GuardReport } from "./guard.ts";

/** SQLite repeats the part of the text that it does not understand, however long. */
const MAX_MESSAGE = 300;

interface SqliteErrorLike {
  readonly code: string;
  readonly message: string;
}

/**
 * @param guard of the connection that failed: it knows what was denied, and whether the deadline fired.
 * @param report what the guard reports of the statement.
 */
export function fromSqlite(error: unknown, guard: Guard | undefined, report?: Stopped): Error {
  if (error instanceof KimberliteError) return error;
  if (isSqliteError(error)) return fromCode(error, guard, report);
  if (error instanceof RangeError || error instanceof TypeError) return fromBinding(error);
  return error as Error;
}

export function isSqliteError(error: unknown): error is SqliteErrorLike & Error {
  return (
    error instanceof Error &&
    typeof (error as { code?: unknown }).code === "string" &&
    error.name === "SqliteError"
  );
}

/** True for what a damaged projection file makes of any statement, ours included: the file is rebuilt from the log. */
export function isProjectionDamage(error: unknown): boolean {
  const known = isSqliteError(error) ? fromSqlite(error, undefined) : error;
  return known instanceof KimberliteError && known.code === "projection_damaged";
}

function fromCode(error: SqliteErrorLike & Error, guard: Guard | undefined, report?: Stopped): Error {
  const { code, message } = error;
  if (code.startsWith("SQLITE_CONSTRAINT")) return constraint(code, message);
  // SQLite lengthens the index of its write-ahead log so, and does not say why it could not: there is no space.
  if (code === "SQLITE_IOERR_SHMSIZE")
    return kimberliteError("disk_full", "the disk is full", { cause: error });
  if (code.startsWith("SQLITE_IOERR"))
    return kimberliteError("disk_failed", `the projection's disk failed (${code})`);
  if (code === "SQLITE_ERROR" && /^not authorized/.test(message)) return denied(guard, report);
  if (/^cannot VACUUM/.test(message)) {
    return kimberliteError(
      "unsupported_sql",
      "VACUUM is not available: it would give rows other identities than the log has",
    );
  }
  switch (code) {
    case "SQLITE_INTERRUPT":
      return wasStopped(report) ?? kimberliteError("aborted", "the statement was interrupted");
    case "SQLITE_AUTH":
      return denied(guard, report);
    case "SQLITE_TOOBIG":
      return kimberliteError("value_too_large", "a value or the statement's text exceeds its size limit");
    case "SQLITE_NOMEM":
      return kimberliteError("result_too_large", "the statement needs more memory than it may have");
    case "SQLITE_FULL":
      return kimberliteError("disk_full", "the disk or the projection is full", { cause: error });
    case "SQLITE_READONLY":
      return kimberliteError("read_only", "a write was sent where only reads are served");
    case "SQLITE_CORRUPT":
    case "SQLITE_CORRUPT_VTAB":
    case "SQLITE_NOTADB":
      return kimberliteError("projection_damaged", "the projection's file is damaged", { cause: error });
    case "SQLITE_MISMATCH":
      return kimberliteError("constraint_violation", "a value has the wrong type for its column", {
        detail: { constraint: "datatype" },
      });
    case "SQLITE_CANTOPEN":
      return kimberliteError("disk_failed", "the projection's file cannot be opened", { cause: error });
    default:
      return kimberliteError("invalid_sql", message.slice(0, MAX_MESSAGE), { detail: { sqlite: code } });
  }
}

const CONSTRAINTS: Readonly<Record<string, string>> = {
  SQLITE_CONSTRAINT_UNIQUE: "unique",
  SQLITE_CONSTRAINT_PRIMARYKEY: "primary_key",
  SQLITE_CONSTRAINT_ROWID: "primary_key",
  SQLITE_CONSTRAINT_NOTNULL: "not_null",
  SQLITE_CONSTRAINT_CHECK: "check",
  SQLITE_CONSTRAINT_FOREIGNKEY: "foreign_key",
  SQLITE_CONSTRAINT_TRIGGER: "trigger",
  SQLITE_CONSTRAINT_DATATYPE: "datatype",
};

function constraint(code: string, message: string): Error {
  return kimberliteError("constraint_violation", message, {
    detail: { constraint: CONSTRAINTS[code] ?? "other", sqlite: code },
  });
}

/** What is refused, of a tenant's own, only where reads are served. */
const WRITES =
  /^(?:INSERT|UPDATE|DELETE|ALTER_TABLE|REINDEX|ANALYZE|(?:CREATE|DROP)_(?:TABLE|INDEX|VIEW|TRIGGER))$/;

type Stopped = Pick<GuardReport, "deadlineFired" | "outOfMemory">;

/** Of a statement that the guard stopped, why. */
export function wasStopped(report: Stopped | undefined): Error | undefined {
  if (report?.outOfMemory === true)
    return kimberliteError("result_too_large", "the statement needs more memory than it may have");
  if (report?.deadlineFired === true)
    return kimberliteError("statement_timeout", "the statement ran past its time limit");
  return undefined;
}

/** Past its deadline the guard permits nothing: that is no denial of what was asked for. */
function denied(guard: Guard | undefined, report?: Stopped): Error {
  const denial = guard?.denied();
  const stopped = denial === undefined ? wasStopped(report) : undefined;
  if (stopped !== undefined) return stopped;
  if (guard === undefined || denial === undefined)
    return kimberliteError("unsupported_sql", "not authorized");
  const ours = /^(?:_kimberlite|sqlite)_/i.test(denial.object ?? "");
  const code = guard.mode === "read" && WRITES.test(denial.action) && !ours ? "read_only" : "unsupported_sql";
  return kimberliteError(code, denialHint(denial, guard.mode), { detail: { action: denial.action } });
}

/** The binding's own checks: number and kind of parameters, several statements in one text. */
function fromBinding(error: Error): Error {
  if (/more than one statement/.test(error.message)) {
    return kimberliteError("invalid_sql", "one statement at a time; use transaction() for several");
  }
  if (/contains no statements/.test(error.message))
    return kimberliteError("invalid_sql", "the SQL text is empty");
  if (/too big/.test(error.message))
    return kimberliteError("value_too_large", "a parameter exceeds the size limit");
  if (/parameter|bind/i.test(error.message))
    return kimberliteError("invalid_parameter", error.message, { cause: error });
  return error;
}
