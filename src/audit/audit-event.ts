/**
 * What the audit stream holds: who did, or was refused, what, to which object, when, from where, and why.
 *
 * An event has names of fields and ids, never a value of a row, a key or SQL text. It is CBOR (RFC 8949) like any event,
 * so it is encrypted, ordered, provable and exported with the tenant's log.
 */
import { kimberliteError } from "../errors.ts";
import { encodeCbor } from "../log/record.ts";

/** What was done, as `<object>.<verb>`; new ones may be added. */
export type AuditAction =
  | "tenant.create"
  | "tenant.suspend"
  | "tenant.resume"
  | "tenant.erase"
  | "tenant.export"
  | "tenant.import"
  | "tenant.backup"
  | "tenant.restore"
  | "tenant.trim"
  | "quota.set"
  | "retention.set"
  | "hold.place"
  | "hold.release"
  | "subject.declare"
  | "subject.erase"
  | "key.rotate-dek"
  | "key.rotate-kek"
  | "key.rotate-master"
  | "key.reencrypt"
  | "key.move"
  | "key.freeze"
  | "key.thaw"
  | "token.create"
  | "token.revoke"
  | "token.enrol"
  | "issuer.register"
  | "issuer.remove"
  | "auth.fail"
  | "auth.refuse"
  | "grant.create"
  | "grant.use"
  | "grant.revoke"
  | "grant.expire"
  | "grant.end"
  | "clock.gap";

/** `began`: it is about to take effect; `done`: it has; `refused` and `failed` say why in `code`. */
export type AuditOutcome = "began" | "done" | "refused" | "failed";

/** Numbers, ids and names of fields that belong to the action. */
export type AuditDetail = Readonly<Record<string, string | number | bigint | boolean | null>>;

export interface AuditEvent {
  readonly action: AuditAction;
  readonly outcome: AuditOutcome;
  /** Who asked, as the caller said or a token proved. */
  readonly actor: string;
  /** Why, in the words of who asked. */
  readonly reason?: string | undefined;
  /** The caller's request, for finding it elsewhere. */
  readonly correlationId?: string | undefined;
  /** The tenant that it was done to, where the record is the system's. */
  readonly tenant?: bigint | undefined;
  /** Error code of what was refused or failed. */
  readonly code?: string | undefined;
  readonly detail?: AuditDetail | undefined;
}

/** An event with its place in the audit stream. */
export interface AuditEntry extends AuditEvent {
  /** Place in the audit stream, dense, from 0. */
  readonly offset: bigint;
  /** Place of its record in the log, for proofs. */
  readonly logOffset: bigint;
  /** Commit time, microseconds since 1970-01-01T00:00:00Z. */
  readonly timeUs: bigint;
}

const FIELDS = ["action", "outcome", "actor", "reason", "correlationId", "tenant", "code", "detail"] as const;
const MAX_REASON = 1_000;

export function encodeAuditEvent(event: AuditEvent): Buffer {
  const present = FIELDS.filter((field) => event[field] !== undefined);
  return encodeCbor(Object.fromEntries(present.map((field) => [field, event[field]])));
}

/** A reason in a caller's words. @throws `invalid_argument` unless it is 1 to 1,000 characters */
export function parseReason(reason: unknown): string {
  if (
    typeof reason === "string" &&
    reason.trim() !== "" &&
    reason.length <= MAX_REASON &&
    reason.isWellFormed()
  ) {
    return reason;
  }
  throw kimberliteError("invalid_argument", `a reason is 1 to ${MAX_REASON} characters`);
}
