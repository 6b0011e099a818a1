/**
 * What a client is told of a failure: SQLite's own code where SQLite has one for it, else the code of `docs/errors.md`.
 *
 * Kept: of a bug nothing is told but that it is one.
 */
import { type ErrorCode, KimberliteError, kimberliteError } from "../errors.ts";
import type { HranaError } from "./protocol.ts";

const SQLITE_CODES: Partial<Readonly<Record<ErrorCode, string>>> = {
  invalid_sql: "SQLITE_ERROR",
  unsupported_sql: "SQLITE_AUTH",
  read_only: "SQLITE_READONLY",
  constraint_violation: "SQLITE_CONSTRAINT",
  statement_timeout: "SQLITE_INTERRUPT",
  value_too_large: "SQLITE_TOOBIG",
  invalid_parameter: "SQLITE_RANGE",
  disk_full: "SQLITE_FULL",
};

export function toHranaError(error: unknown): HranaError {
  const { code, message, detail } = toKnown(error);
  const { sqlite, constraint } = detail;
  if (typeof sqlite === "string") return { message, code: sqlite };
  if (code === "constraint_violation" && constraint === "foreign_key") {
    return { message, code: "SQLITE_CONSTRAINT_FOREIGNKEY" };
  }
  return { message, code: SQLITE_CODES[code] ?? code };
}

/** An error of the family: the framework's own are translated by their status, a bug is `internal`. */
export function toKnown(error: unknown): KimberliteError {
  if (error instanceof KimberliteError) return error;
  const { statusCode } = (error ?? {}) as { readonly statusCode?: unknown };
  if (statusCode === 413)
    return kimberliteError("request_too_large", "the body is larger than the server takes");
  if (statusCode === 415) return kimberliteError("media_type_unsupported", "the content type is not served");
  if (typeof statusCode === "number" && statusCode >= 400 && statusCode < 500) {
    return kimberliteError("invalid_argument", "the request is malformed");
  }
  return kimberliteError("internal", "the server failed to answer; this is a bug", { cause: error });
}
