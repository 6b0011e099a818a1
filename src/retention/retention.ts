/**
 * May a tenant's data go? The decision, from what is recorded: holds first, then age. Pure; the clock is an input.
 *
 * Kept: a hold beats every other rule and everyone; data younger than its retention goes only in governance mode, by an
 * override whose reason is recorded; in compliance mode nobody shortens anything.
 */
import { kimberliteError } from "../errors.ts";
import type { LegalHold, RetentionMode } from "../tenant/tenant-config.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

export interface RetentionFacts {
  readonly tenant: TenantId;
  readonly retentionMs: number;
  readonly retentionMode: RetentionMode;
  readonly holds: readonly LegalHold[];
  /** Commit time of the youngest data that would go; undefined if there is none. */
  readonly youngestUs: bigint | undefined;
  /** The trusted time, which a clock that jumped does not move. */
  readonly nowUs: bigint;
}

/** When the youngest data is past its retention, microseconds since 1970-01-01T00:00:00Z. */
export function retainedUntilUs(facts: Pick<RetentionFacts, "youngestUs" | "retentionMs">): bigint {
  return facts.youngestUs === undefined ? 0n : facts.youngestUs + BigInt(facts.retentionMs) * 1000n;
}

/**
 * Refuses unless the data may go now.
 *
 * @throws `legal_hold`, `retention_not_over` (with `detail.untilUs`), `retention_locked` for an override in compliance mode
 */
export function requireDisposable(facts: RetentionFacts, overrideRetention: boolean): void {
  const { tenant, holds, retentionMode } = facts;
  if (holds.length > 0) {
    throw kimberliteError("legal_hold", `a legal hold forbids it for tenant ${tenant}`, {
      detail: { tenant, holds: holds.length },
    });
  }
  const untilUs = retainedUntilUs(facts);
  if (facts.nowUs >= untilUs) return;
  if (overrideRetention && retentionMode === "governance") return;
  if (overrideRetention) {
    throw kimberliteError("retention_locked", "retention in compliance mode is not overridden, by anyone", {
      detail: { tenant, untilUs },
    });
  }
  throw kimberliteError("retention_not_over", `data of tenant ${tenant} is younger than its retention`, {
    detail: { tenant, untilUs },
  });
}

/**
 * Refuses a change of retention that would let data go earlier than was promised.
 *
 * @throws `retention_locked` in compliance mode; `invalid_argument` in governance mode without a reason
 */
export function requireAllowedChange(change: {
  readonly from: { readonly retentionMs: number; readonly retentionMode: RetentionMode };
  readonly to: { readonly retentionMs: number; readonly retentionMode: RetentionMode };
  readonly reason: string | undefined;
}): void {
  const { from, to, reason } = change;
  const weaker = from.retentionMode === "compliance" && to.retentionMode === "governance";
  const shorter = to.retentionMs < from.retentionMs;
  if (!weaker && !shorter) return;
  if (from.retentionMode === "compliance") {
    throw kimberliteError("retention_locked", "retention in compliance mode is never shortened");
  }
  if (reason !== undefined) return;
  throw kimberliteError("invalid_argument", "shortening a retention takes a reason, which is recorded");
}
