/**
 * Trimming: the records that are past their retention go for good, their proofs stay.
 *
 * The tenant's log is written anew with those blocks hollow: leaves and tree as they were, nothing sealed in them; its
 * tables as they stand are kept. Then the DEKs that the records were under are destroyed, so that they are gone from
 * copies too. Kept: nothing younger than its retention goes, unless governance mode is overridden, with a reason; nothing
 * at all while a hold stands, also one that is placed while this is under way.
 */
import { auditTenant, governanceEvent } from "./administration.ts";
import { type AuditEvent, parseReason } from "./audit/audit-event.ts";
import { kimberliteError } from "./errors.ts";
import { isHollow } from "./log/block.ts";
import type { NodeState } from "./node-state.ts";
import { findBase } from "./pipeline/projection-base.ts";
import { refuseIfAborted } from "./portability/turns.ts";
import { destroyFormer, type ReencryptOptions, writeAnew } from "./reencryption.ts";
import { requireDisposable } from "./retention/retention.ts";
import { parseCallback, parseOptions, parseSignal } from "./tenant/call-options.ts";
import type { TenantId } from "./tenant/tenant-id.ts";

export interface TrimOptions extends Omit<ReencryptOptions, "destroyFormerKeys"> {
  /** Records that were committed before it go, as far as their retention is over; whatever is past its retention unless given. */
  readonly before?: Date;
  /** Why, 1 to 1,000 characters. */
  readonly reason: string;
  /** True to trim what is younger than its retention; governance mode alone allows it. */
  readonly overrideRetention?: boolean;
}

export interface TrimReport {
  /** First record that there is now. */
  readonly firstOffset: bigint;
  /** Records that went. */
  readonly trimmed: bigint;
}

/** @throws as `Kimberlite.trimTenant` */
export async function trimTenant(node: NodeState, id: TenantId, options: TrimOptions): Promise<TrimReport> {
  const given = parseOptions(options);
  const { overrideRetention = false } = given;
  if (typeof overrideRetention !== "boolean")
    throw kimberliteError("invalid_argument", "overrideRetention is true or false");
  const beforeUs = parseBefore(given.before);
  if (overrideRetention && beforeUs === undefined)
    throw kimberliteError("invalid_argument", "overriding a retention takes the time to trim up to");
  const onProgress = parseCallback(given.onProgress, "onProgress");
  const signal = parseSignal(given.signal);
  const reason = parseReason(given.reason);
  const about = { action: "tenant.trim" as const, options: { ...given, reason } };
  const event = governanceEvent(id, about);
  refuseIfAborted(signal);
  node.directory.get(id);
  return node.maintain(id, async () => {
    const found = await findEnd(node, id, { beforeUs, overrideRetention });
    const requireAllowed = (): void => requireDisposableUntil(node, id, { ...found, overrideRetention });
    requireAllowed();
    if (found.end <= found.firstOffset) {
      await destroyLeft(node, id, event);
      return { firstOffset: found.firstOffset, trimmed: 0n };
    }
    const detail = { before: found.end };
    await node.directory.note(await auditTenant(node, id, { ...event, outcome: "began", detail }));
    const requireGoingOn = (): void => {
      refuseIfAborted(signal);
      requireAllowed();
    };
    const done = await writeAnew(node, id, { requireGoingOn, onProgress, trimBefore: found.end });
    // Again, for copies can still be read: a hold that was placed meanwhile keeps them so.
    requireAllowed();
    await destroyFormer(node, id, done.dekVersion);
    await node.directory.note({ ...event, detail });
    return { firstOffset: found.end, trimmed: found.end - found.firstOffset };
  });
}

/** Destroys the DEKs that an earlier trimming was about to destroy when it was interrupted. */
async function destroyLeft(node: NodeState, id: TenantId, event: AuditEvent): Promise<void> {
  const { disk, root, directory, tenants } = node;
  // Everything was written anew under the version of the base.
  const version = findBase({ disk, root, tenant: id })?.version;
  if (version === undefined) return;
  const oldest = await tenants.use(id, (engine) => engine.keys.describe().deks[0]?.version);
  if (oldest === undefined || oldest >= version) return;
  await directory.note({ ...event, outcome: "began" });
  await destroyFormer(node, id, version);
  await directory.note(event);
}

interface Found {
  readonly firstOffset: bigint;
  /** First record that stays. */
  readonly end: bigint;
  /** Commit time of the last that goes. */
  readonly youngestUs: bigint | undefined;
}

/** Whole blocks alone go. Cost: reads the headers of what goes. */
function findEnd(
  node: NodeState,
  id: TenantId,
  wanted: { readonly beforeUs: bigint | undefined; readonly overrideRetention: boolean },
): Promise<Found> {
  const { retentionMs } = node.directory.get(id);
  const retainedUs = node.clock.trustedUs() - BigInt(retentionMs) * 1000n;
  const { beforeUs = retainedUs, overrideRetention } = wanted;
  const untilUs = overrideRetention || beforeUs < retainedUs ? beforeUs : retainedUs;
  return node.tenants.use(id, ({ log, firstOffset }) => {
    let end = firstOffset;
    let youngestUs: bigint | undefined;
    for (const { header } of log.blocks(firstOffset)) {
      if (header.timeUs >= untilUs) break;
      end = header.firstOffset + BigInt(header.count);
      if (!isHollow(header)) youngestUs = header.timeUs;
    }
    return { firstOffset, end, youngestUs };
  });
}

/** @throws `legal_hold`, `retention_not_over`, `retention_locked`, `tenant_erasing` */
function requireDisposableUntil(
  node: NodeState,
  id: TenantId,
  what: { readonly youngestUs: bigint | undefined; readonly overrideRetention: boolean },
): void {
  const { retentionMs, retentionMode, legalHolds: holds } = node.directory.get(id);
  const { youngestUs, overrideRetention } = what;
  const facts = { tenant: id, retentionMs, retentionMode, holds, youngestUs, nowUs: node.clock.trustedUs() };
  requireDisposable(facts, overrideRetention);
}

function parseBefore(before: unknown): bigint | undefined {
  if (before === undefined) return undefined;
  if (before instanceof Date && !Number.isNaN(before.getTime())) return BigInt(before.getTime()) * 1000n;
  throw kimberliteError("invalid_argument", "`before` is a Date");
}
