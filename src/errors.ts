/**
 * The one family of errors.
 *
 * The class says what the caller does next: `RejectError` (do not retry as it is), `RetryError` (try again,
 * after `retryAfterMs` if given), `HaltError` (this tenant stops, no other does). `code` says why, is public
 * API, and has one row in `ERROR_CODES`, from which `docs/errors.md`, HTTP statuses and CLI exit codes follow.
 * `detail` holds ids, counts and sizes: never row data, key material, SQL text or raw input.
 */

export type ErrorAction = "reject" | "retry" | "halt";

export interface ErrorCodeRow {
  readonly action: ErrorAction;
  readonly httpStatus: number;
  readonly exitCode: number;
  readonly meaning: string;
}

/** Why an operation failed. Stable; new codes may be added. */
export type ErrorCode =
  | "invalid_argument"
  | "invalid_parameter"
  | "invalid_sql"
  | "unsupported_sql"
  | "constraint_violation"
  | "read_only"
  | "unauthenticated"
  | "issuer_unreachable"
  | "not_authorized"
  | "credential_not_found"
  | "tenant_not_found"
  | "tenant_exists"
  | "tenant_suspended"
  | "job_not_found"
  | "stream_not_found"
  | "stream_exists"
  | "offset_conflict"
  | "idempotency_conflict"
  | "offset_out_of_range"
  | "quota_exceeded"
  | "rate_limited"
  | "statement_timeout"
  | "transaction_timeout"
  | "transaction_closed"
  | "result_too_large"
  | "value_too_large"
  | "transaction_too_large"
  | "overloaded"
  | "aborted"
  | "closed"
  | "directory_locked"
  | "address_unavailable"
  | "directory_not_initialised"
  | "already_initialised"
  | "format_too_new"
  | "master_key_missing"
  | "master_key_invalid"
  | "master_key_wrong"
  | "master_key_exists"
  | "keys_missing"
  | "keys_damaged"
  | "log_damaged"
  | "projection_damaged"
  | "catalog_damaged"
  | "journal_damaged"
  | "checkpoint_mismatch"
  | "signature_invalid"
  | "proof_invalid"
  | "disk_full"
  | "disk_failed"
  | "master_key_unreachable"
  | "master_key_timeout"
  | "master_key_throttled"
  | "master_key_denied"
  | "master_key_disabled"
  | "master_key_pending_deletion"
  | "master_key_login_failed"
  | "tenant_erased"
  | "tenant_erasing"
  | "retention_not_over"
  | "legal_hold"
  | "retention_locked"
  | "offset_trimmed"
  | "subject_not_found"
  | "subject_erased"
  | "certificate_invalid"
  | "drill_failed"
  | "export_invalid"
  | "backup_invalid"
  | "backup_not_found"
  | "destination_exists"
  | "storage_failed"
  | "operation_running"
  | "grant_not_found"
  | "grant_revoked"
  | "grant_expired"
  | "grant_not_yet_valid"
  | "grant_ended"
  | "grant_unavailable"
  | "runtime_unsupported"
  | "unsupported"
  | "route_not_found"
  | "method_not_allowed"
  | "media_type_unsupported"
  | "request_too_large"
  | "baton_invalid"
  | "request_timeout"
  | "draining"
  | "internal";

/** Every error code, with what the caller does next, its HTTP status and its CLI exit code. */
export const ERROR_CODES: Readonly<Record<ErrorCode, ErrorCodeRow>> = {
  invalid_argument: row("reject", 400, 2, "An argument has the wrong type, range or form."),
  invalid_parameter: row(
    "reject",
    400,
    2,
    "A SQL parameter cannot be stored: NaN, undefined, an integer outside 64 bits, a lone surrogate, or the wrong number of them.",
  ),
  invalid_sql: row("reject", 400, 2, "The SQL text does not compile, is empty, or holds a NUL."),
  unsupported_sql: row(
    "reject",
    400,
    2,
    "The SQL is valid but would reach outside the tenant's database or its log; the message says what to do instead.",
  ),
  constraint_violation: row(
    "reject",
    409,
    3,
    "A constraint of the schema refused the write; `detail.constraint` names its kind.",
  ),
  read_only: row("reject", 400, 2, "A write was sent where only reads are served."),
  unauthenticated: row(
    "reject",
    401,
    4,
    "No credential was given, or it is not valid; see `docs/authentication.md`.",
  ),
  issuer_unreachable: row(
    "retry",
    503,
    8,
    "The keys of the token's issuer cannot be fetched for now; the token was neither accepted nor refused.",
  ),
  not_authorized: row("reject", 403, 4, "The caller may not do this."),
  credential_not_found: row("reject", 404, 5, "There is no such API key or issuer of this tenant."),
  tenant_not_found: row("reject", 404, 5, "There is no such tenant."),
  tenant_exists: row("reject", 409, 3, "A tenant of that id exists already."),
  tenant_suspended: row("reject", 403, 4, "The tenant is suspended; resume it first."),
  job_not_found: row("reject", 404, 5, "There is no such job; one that ended is forgotten after an hour."),
  stream_not_found: row("reject", 404, 5, "There is no such stream in this tenant."),
  stream_exists: row("reject", 409, 3, "A stream or table of that name exists already."),
  offset_conflict: row(
    "reject",
    409,
    3,
    "The stream is not at the expected offset; `detail.actual` is where it is.",
  ),
  idempotency_conflict: row("reject", 409, 3, "The idempotency key was used for another request."),
  offset_out_of_range: row("reject", 416, 2, "The log has no such offset or time."),
  quota_exceeded: row("reject", 429, 6, "The operation would exceed the quota that `detail.policy` names."),
  rate_limited: row("retry", 429, 6, "Too many operations a second; try again after `retryAfterMs`."),
  statement_timeout: row("reject", 408, 7, "The statement ran past its time limit and was stopped."),
  transaction_timeout: row(
    "reject",
    408,
    7,
    "The interactive transaction was held open past its time limit and was rolled back.",
  ),
  transaction_closed: row("reject", 409, 3, "The transaction has ended already."),
  result_too_large: row(
    "reject",
    413,
    7,
    "The result exceeds the limit of rows or bytes, or the statement needs more memory than it may have.",
  ),
  value_too_large: row("reject", 413, 7, "A value, row or statement exceeds its size limit."),
  transaction_too_large: row(
    "reject",
    413,
    7,
    "The changes of one transaction exceed the limit of a record.",
  ),
  overloaded: row("retry", 503, 8, "The tenant's queue is full; try again."),
  aborted: row("reject", 499, 9, "The caller's signal ended the work."),
  closed: row("reject", 503, 8, "The database is closed."),
  directory_locked: row("reject", 409, 8, "Another process has this data directory open."),
  address_unavailable: row(
    "reject",
    409,
    8,
    "The server cannot listen at its address: something else does, or it may not; `detail.cause` is the system's code.",
  ),
  directory_not_initialised: row("reject", 404, 5, "The path holds no Kimberlite data directory."),
  already_initialised: row("reject", 409, 3, "The path holds an installation already; it was left as it is."),
  format_too_new: row("reject", 409, 8, "The data was written by a newer version of Kimberlite."),
  master_key_missing: row("reject", 500, 10, "The master key does not exist or cannot be read."),
  master_key_invalid: row(
    "reject",
    500,
    10,
    "The master key is not one that can be used: a file of another form or that others can read, a key of another kind.",
  ),
  master_key_wrong: row("reject", 500, 10, "This master key does not open this data directory."),
  master_key_exists: row(
    "reject",
    409,
    3,
    "A file stands where the new master key would go; it is not overwritten.",
  ),
  keys_missing: row("halt", 500, 10, "The tenant's keys are not in the key store."),
  keys_damaged: row(
    "halt",
    500,
    10,
    "The tenant's entry in the key store is damaged or belongs to another tenant.",
  ),
  log_damaged: row(
    "halt",
    500,
    11,
    "The tenant's log fails verification; `detail.offset` is the first bad offset.",
  ),
  projection_damaged: row("halt", 500, 11, "The tenant's projection is damaged and could not be rebuilt."),
  catalog_damaged: row("halt", 500, 11, "The system tenant's catalogue cannot be read."),
  journal_damaged: row("halt", 500, 11, "The commit journal is damaged before its end."),
  checkpoint_mismatch: row("reject", 409, 11, "The log does not contain what the checkpoint committed to."),
  signature_invalid: row("reject", 400, 11, "A signature does not verify under the given key."),
  proof_invalid: row("reject", 400, 11, "A Merkle proof does not verify."),
  disk_full: row("retry", 507, 12, "The disk is full; nothing of this write was committed."),
  disk_failed: row("halt", 500, 12, "The disk refused a read, write or sync."),
  master_key_unreachable: row(
    "retry",
    503,
    8,
    "The service that holds the master key cannot be reached, is sealed, or failed; open tenants go on.",
  ),
  master_key_timeout: row("retry", 503, 8, "The service that holds the master key did not answer in time."),
  master_key_throttled: row(
    "retry",
    503,
    8,
    "The service that holds the master key refuses more calls for now.",
  ),
  master_key_denied: row(
    "halt",
    403,
    10,
    "Access to the master key is withdrawn or refused; the tenant is frozen until it is granted again.",
  ),
  master_key_disabled: row(
    "halt",
    403,
    10,
    "The master key is disabled; the tenant is frozen until it is enabled again.",
  ),
  master_key_pending_deletion: row(
    "halt",
    403,
    10,
    "The master key is scheduled for deletion; cancel that to thaw the tenant.",
  ),
  master_key_login_failed: row(
    "reject",
    500,
    10,
    "The token or PIN for the master key is wrong; it is not tried again, so that nothing is locked out.",
  ),
  tenant_erased: row("reject", 410, 5, "The tenant was erased; its id is never used again."),
  tenant_erasing: row("reject", 410, 5, "The tenant's erasure is under way; its keys are destroyed already."),
  retention_not_over: row(
    "reject",
    409,
    4,
    "The data is younger than its retention; `detail.untilUs` is when it ends.",
  ),
  legal_hold: row("reject", 409, 4, "A legal hold forbids it; `detail.holds` is how many stand."),
  retention_locked: row("reject", 403, 4, "Retention in compliance mode is not shortened, by anyone."),
  offset_trimmed: row(
    "reject",
    410,
    5,
    "The records before `detail.firstOffset` were trimmed; their proofs remain.",
  ),
  subject_not_found: row(
    "reject",
    404,
    5,
    "No row of a declared table was ever of that subject, or it was erased: nothing of it is known.",
  ),
  subject_erased: row(
    "reject",
    410,
    5,
    "The subject's key was destroyed; its rows cannot be written or read again.",
  ),
  drill_failed: row(
    "halt",
    500,
    11,
    "The drill of an erasure found something of the tenant afterwards; the report says where. No tenant was touched.",
  ),
  certificate_invalid: row(
    "reject",
    400,
    11,
    "An erasure certificate is malformed, or does not say what its signature covers.",
  ),
  export_invalid: row(
    "reject",
    400,
    11,
    "An export or backup is damaged or incomplete; the message names the first wrong place.",
  ),
  backup_invalid: row(
    "reject",
    400,
    11,
    "A backup is damaged, of another installation, or not signed by it; nothing was restored from it.",
  ),
  backup_not_found: row("reject", 404, 5, "The place of backups holds none of that time, id or tenant."),
  destination_exists: row(
    "reject",
    409,
    3,
    "The destination holds something else already; it was left as it is.",
  ),
  storage_failed: row("retry", 503, 12, "The place of backups refused a read or write."),
  operation_running: row("reject", 409, 3, "The same operation is under way for this tenant already."),
  grant_not_found: row(
    "reject",
    404,
    5,
    "There is no such grant, or nothing of that stream was granted to the tenant.",
  ),
  grant_revoked: row("reject", 403, 4, "The grant was revoked."),
  grant_expired: row("reject", 403, 4, "The grant has expired."),
  grant_not_yet_valid: row(
    "reject",
    403,
    4,
    "The grant is not valid yet; `detail.notBeforeUs` is when it is.",
  ),
  grant_ended: row(
    "reject",
    410,
    5,
    "The grant has ended: what it shared was dropped, renamed, altered or erased by its owner.",
  ),
  grant_unavailable: row(
    "retry",
    503,
    8,
    "What is granted cannot be read at present; nothing more is told of the owner.",
  ),
  runtime_unsupported: row(
    "reject",
    500,
    13,
    "This Node.js, platform or native extension cannot run Kimberlite.",
  ),
  unsupported: row(
    "reject",
    501,
    2,
    "The command or option works on a directory alone, and not over a server.",
  ),
  route_not_found: row("reject", 404, 5, "The server has nothing at this path."),
  method_not_allowed: row(
    "reject",
    405,
    2,
    "The path is served, and not with this method; `Allow` lists those.",
  ),
  media_type_unsupported: row("reject", 415, 2, "The body has a content type that is not served here."),
  baton_invalid: row(
    "reject",
    400,
    5,
    "The baton names no open stream of the caller's: it is unknown, used already, expired, or another's.",
  ),
  request_too_large: row("reject", 413, 7, "The body, the headers or the address exceed the server's limit."),
  request_timeout: row("reject", 408, 7, "The request did not arrive in time, and the connection is closed."),
  draining: row("retry", 503, 8, "The server is going down or restarting; try again, on another connection."),
  internal: row("reject", 500, 1, "A bug; the server's own log has more, under the request's id."),
};

/** Ids, counts, sizes and names of policies or fields; never values. */
export type ErrorDetail = Readonly<Record<string, string | number | bigint | boolean | undefined>>;

interface ErrorExtras {
  readonly detail?: ErrorDetail;
  readonly cause?: unknown;
  /** Milliseconds after which the same call may succeed. */
  readonly retryAfterMs?: number;
}

/** Base of every error that Kimberlite raises on purpose. */
export abstract class KimberliteError extends Error {
  readonly code: ErrorCode;
  readonly detail: ErrorDetail;
  readonly retryAfterMs: number | undefined;
  abstract readonly action: ErrorAction;

  constructor(code: ErrorCode, message: string, extras: ErrorExtras = {}) {
    super(message, extras.cause === undefined ? undefined : { cause: extras.cause });
    this.code = code;
    this.detail = extras.detail ?? {};
    this.retryAfterMs = extras.retryAfterMs;
  }

  /** Exit code of a CLI process that ends with this error. */
  get exitCode(): number {
    return ERROR_CODES[this.code].exitCode;
  }

  /** HTTP status of a response that carries this error. */
  get httpStatus(): number {
    return ERROR_CODES[this.code].httpStatus;
  }
}

/** The request is refused; sending it again unchanged gives the same answer. */
export class RejectError extends KimberliteError {
  override readonly name = "RejectError";
  readonly action = "reject";
}

/** The request may succeed if it is sent again. */
export class RetryError extends KimberliteError {
  override readonly name = "RetryError";
  readonly action = "retry";
}

/** The tenant named in `detail` stops serving until an operator acts; no other tenant does. */
export class HaltError extends KimberliteError {
  override readonly name = "HaltError";
  readonly action = "halt";
}

/**
 * Makes the error that belongs to `code`: its class follows from the code's row.
 *
 * @example throw kimberliteError("tenant_not_found", "tenant 7 does not exist", { detail: { tenant: 7n } });
 */
export function kimberliteError(code: ErrorCode, message: string, extras: ErrorExtras = {}): KimberliteError {
  const action: ErrorAction = ERROR_CODES[code].action;
  if (action === "reject") return new RejectError(code, message, extras);
  if (action === "retry") return new RetryError(code, message, extras);
  return new HaltError(code, message, extras);
}

/** A bug, not an operating failure: stays on in production and carries no data. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}

function row(action: ErrorAction, httpStatus: number, exitCode: number, meaning: string): ErrorCodeRow {
  return { action, httpStatus, exitCode, meaning };
}
