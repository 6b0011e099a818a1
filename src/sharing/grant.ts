/**
 * A grant: what one tenant lets another read, and whether it stands now. Decisions alone; the clock is an input.
 *
 * Kept: a grant that was revoked, has expired or ended never stands again; a clock that is set back revives none, and one
 * that is set ahead lets none begin early.
 */
import { type ErrorCode, type KimberliteError, kimberliteError } from "../errors.ts";
import type { SharedShape } from "../projection/shared-table.ts";
import type { StreamId, TenantId } from "../tenant/tenant-id.ts";

/** What may be granted. */
export const Permissions: { readonly Read: "read" } = Object.freeze({ Read: "read" });
export type Permission = (typeof Permissions)["Read"];

/** `ended`: what was granted is not there any more. */
export type GrantState = "active" | "revoked" | "expired" | "ended";

/** A grant, as owner and reader may see it; `where` is for its owner alone. */
export interface Grant {
  /** Random, and never used again. */
  readonly id: string;
  readonly fromTenant: TenantId;
  readonly toTenant: TenantId;
  readonly stream: StreamId;
  readonly kind: "table" | "events";
  /** Of the table or stream, as it was called when it was granted. */
  readonly name: string;
  readonly permissions: Permission;
  /** Columns of a table that are shared: all there were, unless some were named. */
  readonly columns?: readonly string[];
  readonly where?: string;
  readonly maxRows?: number;
  readonly purpose: string;
  /** Who granted it. */
  readonly actor: string;
  readonly createdAtUs: bigint;
  /** Absent if it stood at once. */
  readonly notBeforeUs?: bigint;
  readonly expiresAtUs?: bigint;
  readonly state: GrantState;
  readonly endedAtUs?: bigint;
  /** Why it was revoked, or how it ended. */
  readonly endReason?: string;
}

/** A grant with what only the engine needs. */
export interface GrantRow extends Omit<Grant, "where"> {
  /** The table as it was when it was granted. */
  readonly shape?: SharedShape;
  /** Offset of the row predicate in the owner's stream of them; absent if all rows are shared. */
  readonly predicate?: bigint;
}

/** How a grant ended. */
export interface GrantEnd {
  readonly state: Exclude<GrantState, "active">;
  readonly endedAtUs: bigint;
  readonly endReason: string;
}

/** Times to judge a grant by, in microseconds since 1970. */
export interface GrantTimes {
  /** The latest that any clock or record says that it is. */
  readonly latestUs: bigint;
  /** The earliest that any clock says that it is. */
  readonly earliestUs: bigint;
}

const REFUSALS: Readonly<Record<Exclude<GrantState, "active">, ErrorCode>> = {
  revoked: "grant_revoked",
  expired: "grant_expired",
  ended: "grant_ended",
};

const MESSAGES: Readonly<Partial<Record<ErrorCode, string>>> = {
  grant_not_found: "there is no such grant, or nothing of that stream is granted to the tenant",
  grant_revoked: "the grant was revoked",
  grant_expired: "the grant has expired",
  grant_not_yet_valid: "the grant is not valid yet",
  grant_ended: "the grant has ended: what it shared was dropped, renamed, altered or erased by its owner",
  grant_unavailable: "what is granted cannot be read at present",
};

/** Why the grant does not stand now; undefined if it does. */
export function refusalOf(grant: GrantRow, times: GrantTimes): ErrorCode | undefined {
  if (grant.state !== "active") return REFUSALS[grant.state];
  if (hasExpired(grant, times)) return "grant_expired";
  return times.earliestUs < (grant.notBeforeUs ?? 0n) ? "grant_not_yet_valid" : undefined;
}

/** True for one that is still taken for active. */
export function hasExpired(grant: GrantRow, { latestUs }: Pick<GrantTimes, "latestUs">): boolean {
  return grant.state === "active" && grant.expiresAtUs !== undefined && latestUs >= grant.expiresAtUs;
}

/** The error of a refusal. It says nothing of the owner. */
export function grantError(code: ErrorCode, grant?: GrantRow): KimberliteError {
  const detail = {
    ...(grant === undefined ? {} : { grant: grant.id }),
    ...(code === "grant_not_yet_valid" ? { notBeforeUs: grant?.notBeforeUs } : {}),
  };
  return kimberliteError(code, MESSAGES[code] ?? "the grant does not allow it", { detail });
}

/** Of the grants of one stream to one reader, the one that a read is made under: the newest that stands, else the newest. */
export function chooseGrant(grants: readonly GrantRow[], times: GrantTimes): GrantRow | undefined {
  const newestFirst = [...grants].sort((a, b) => (a.createdAtUs < b.createdAtUs ? 1 : -1));
  return newestFirst.find((grant) => refusalOf(grant, times) === undefined) ?? newestFirst[0];
}
