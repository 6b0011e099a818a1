/**
 * An operator's changes to a tenant: state, quota, retention, legal holds. Each is recorded, with who and why: in the
 * system's audit stream in the same transaction as the change; and what touches how long data lives before that in the
 * tenant's own.
 *
 * A tenant whose own log cannot be written, because its key is withdrawn or its log damaged, is still governed: the
 * system's record then says why the tenant has none.
 */
import { type AuditAction, type AuditDetail, type AuditEvent, parseReason } from "./audit/audit-event.ts";
import { recordAudit } from "./audit/audit-stream.ts";
import type { RefusedErasure } from "./directory/catalogue.ts";
import { KimberliteError, kimberliteError } from "./errors.ts";
import type { NodeState } from "./node-state.ts";
import { type OperationOptions, parseAddress, parseContext } from "./operations.ts";
import { requireAllowedChange } from "./retention/retention.ts";
import type { Duration } from "./tenant/duration.ts";
import {
  type LegalHold,
  parseHoldName,
  parseQuota,
  parseRetention,
  parseRetentionMode,
  type parseTenantConfig,
  type RetentionMode,
  type TenantEntry,
  type TenantQuota,
  type TenantState,
} from "./tenant/tenant-config.ts";
import type { TenantId } from "./tenant/tenant-id.ts";
import { clearBuild } from "./tenant-building.ts";

/** Who changes something, and why; both are recorded. */
export interface GovernanceOptions extends OperationOptions {
  /** 1 to 1,000 characters. */
  readonly reason?: string;
}

/** A hold to place. */
export interface HoldRequest extends OperationOptions {
  readonly name: string;
  readonly reason: string;
}

/** What a release leaves: the holds that still stand, and erasures that were refused and may be asked for again. */
export interface HoldRelease {
  readonly legalHolds: readonly LegalHold[];
  readonly refusedErasures: readonly RefusedErasure[];
}

interface Change {
  readonly action: AuditAction;
  readonly options: GovernanceOptions | undefined;
  readonly detail?: AuditDetail;
}

/** The event of an operator's change. @throws `invalid_argument` */
export function governanceEvent(tenant: TenantId, { action, options, detail }: Change): AuditEvent {
  const { actor, correlationId } = parseContext(options);
  const reason = options?.reason === undefined ? undefined : parseReason(options.reason);
  return { action, outcome: "done", actor, reason, correlationId, tenant, detail: placed(detail, options) };
}

/** With where the call came from, if that is known. */
function placed(
  detail: AuditDetail | undefined,
  options: OperationOptions | undefined,
): AuditDetail | undefined {
  const address = parseAddress(options);
  return address === undefined ? detail : { ...detail, address };
}

/** The event of a rotation, recorded before it takes effect in the tenant's own stream. @throws `invalid_argument` */
export function keyEvent(
  action: Extract<AuditAction, `key.${string}`>,
  options: GovernanceOptions | undefined,
): AuditEvent {
  const { actor, correlationId } = parseContext(options);
  const reason = options?.reason === undefined ? undefined : parseReason(options.reason);
  const detail = placed(undefined, options);
  return {
    action,
    outcome: "began",
    actor,
    reason,
    correlationId,
    ...(detail === undefined ? {} : { detail }),
  };
}

/** What stands in the way of the whole node, and not of one tenant. */
const NOT_THE_TENANTS: ReadonlySet<string> = new Set(["disk_full", "closed"]);

/**
 * Records an event in the tenant's own stream. If that cannot be opened or written, the system's record has to do.
 *
 * @returns the event for the system's stream.
 */
export async function auditTenant(node: NodeState, tenant: TenantId, event: AuditEvent): Promise<AuditEvent> {
  const { tenant: _, ...own } = event;
  try {
    await node.tenants.use(tenant, (engine) => recordAudit(engine, own));
    return event;
  } catch (error) {
    if (!(error instanceof KimberliteError) || NOT_THE_TENANTS.has(error.code)) throw error;
    return { ...event, detail: { ...event.detail, tenantStream: error.code } };
  }
}

export function makeTenant(
  node: NodeState,
  config: ReturnType<typeof parseTenantConfig>,
  options: GovernanceOptions | undefined,
): Promise<TenantEntry> {
  const { id, region, masterKey } = config;
  const audit = governanceEvent(id, { action: "tenant.create", options, detail: { region } });
  return node.directory.create(id, {
    audit,
    prepare: async () => {
      await clearBuild(node, id);
      await node.createKeys(id, masterKey);
      return config;
    },
    undo: () => node.keyStore.destroy(id),
  });
}

export async function setState(
  node: NodeState,
  id: TenantId,
  state: Extract<TenantState, "active" | "suspended">,
  options: GovernanceOptions | undefined,
): Promise<TenantEntry> {
  const action = state === "active" ? "tenant.resume" : "tenant.suspend";
  const event = governanceEvent(id, { action, options });
  return node.directory.changing(id, async (changes) =>
    changes.entry.state === state ? changes.entry : changes.change({ state }, event),
  );
}

export async function setQuota(
  node: NodeState,
  id: TenantId,
  quota: TenantQuota,
  options: GovernanceOptions | undefined,
): Promise<TenantEntry> {
  const parsed = parseQuota(quota);
  const detail = { ...parsed } as AuditDetail;
  const event = governanceEvent(id, { action: "quota.set", options, detail });
  return node.directory.changing(id, async (changes) => {
    const entry = await changes.change({ quota: parsed }, event);
    node.gate(entry.id, entry.quota).change(entry.quota);
    return entry;
  });
}

/** @throws `retention_locked`, `invalid_argument` */
export async function setRetention(
  node: NodeState,
  id: TenantId,
  retention: Duration,
  options: (GovernanceOptions & { readonly mode?: RetentionMode }) | undefined,
): Promise<TenantEntry> {
  const retentionMs = parseRetention(retention);
  const mode = options?.mode === undefined ? undefined : parseRetentionMode(options.mode);
  const { reason } = governanceEvent(id, { action: "retention.set", options });
  return node.directory.changing(id, async (changes) => {
    const from = changes.entry;
    const retentionMode = mode ?? from.retentionMode;
    requireAllowedChange({ from, to: { retentionMs, retentionMode }, reason });
    const detail = { fromMs: from.retentionMs, toMs: retentionMs, mode: retentionMode };
    const about = { action: "retention.set" as const, options, detail };
    const event = await auditTenant(node, id, governanceEvent(id, about));
    return changes.change({ retentionMs, retentionMode }, event);
  });
}

/** Idempotent for the same name and reason. @throws `invalid_argument` for a name that stands with another reason */
export async function placeHold(node: NodeState, id: TenantId, request: HoldRequest): Promise<LegalHold> {
  const name = parseHoldName(request?.name);
  const reason = parseReason(request.reason);
  const { actor } = parseContext(request);
  const about = { action: "hold.place" as const, options: request, detail: { hold: name } };
  return node.directory.changing(id, async (changes) => {
    const standing = changes.entry.legalHolds.find((hold) => hold.name === name);
    if (standing?.reason === reason) return standing;
    if (standing !== undefined) {
      throw kimberliteError("invalid_argument", "a hold of that name stands for another reason");
    }
    const event = await auditTenant(node, id, governanceEvent(id, about));
    const hold = { name, reason, actor, placedAtUs: node.clock.wallTimeUs() };
    await changes.placeHold(hold, event);
    return hold;
  });
}

/** @throws `invalid_argument` if there is no such hold, or no reason */
export async function releaseHold(node: NodeState, id: TenantId, request: HoldRequest): Promise<HoldRelease> {
  const name = parseHoldName(request?.name);
  parseReason(request.reason);
  const about = { action: "hold.release" as const, options: request, detail: { hold: name } };
  return node.directory.changing(id, async (changes) => {
    if (!changes.entry.legalHolds.some((hold) => hold.name === name)) {
      throw kimberliteError("invalid_argument", "no hold of that name stands");
    }
    const event = await auditTenant(node, id, governanceEvent(id, about));
    const { legalHolds } = await changes.releaseHold(name, event);
    return { legalHolds, refusedErasures: node.directory.refusedErasures(id) };
  });
}
