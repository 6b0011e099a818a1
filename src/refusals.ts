/**
 * What operators asked for and did not get, in the audit streams: in the tenant's own where there is a tenant that can
 * write it, and in the system's.
 *
 * Kept: one record a refusal, whoever notices it first; recording it never hides why it was refused.
 */
import { auditTenant, type GovernanceOptions, governanceEvent } from "./administration.ts";
import type { AuditAction, AuditEvent } from "./audit/audit-event.ts";
import { KimberliteError } from "./errors.ts";
import type { NodeState } from "./node-state.ts";
import { SYSTEM_TENANT, TenantId } from "./tenant/tenant-id.ts";

/** What was asked for: as the caller gave it, and so perhaps nonsense. */
export interface Asked {
  readonly action: AuditAction;
  readonly tenant?: unknown;
  readonly options?: unknown;
}

/** A tenant that is there already has no part in what would have made another of its id. */
const MAKING: ReadonlySet<AuditAction> = new Set(["tenant.create", "tenant.import", "tenant.restore"]);

/** Errors of which there is a record already. */
const RECORDED: WeakSet<Error> = new WeakSet();

/** Says that a refusal was recorded where it was decided. */
export function markRecorded<T extends Error>(error: T): T {
  RECORDED.add(error);
  return error;
}

/** Runs an operator's work; if it is refused or fails, that is recorded before the caller learns of it. */
export async function recorded<T>(node: NodeState, asked: Asked, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof KimberliteError && !RECORDED.has(error)) {
      markRecorded(error);
      await noteRefusal(node, asked, error).catch(ignoreRefusal);
    }
    throw error;
  }
}

async function noteRefusal(node: NodeState, asked: Asked, error: KimberliteError): Promise<void> {
  const event = eventOf(asked, error);
  if (event === undefined) return;
  const { tenant } = event;
  const own =
    tenant !== undefined &&
    !MAKING.has(event.action) &&
    node.directory.has(tenant as TenantId) &&
    isServed(node, tenant as TenantId);
  await node.directory.note(own ? await auditTenant(node, tenant as TenantId, event) : event);
}

/** Undefined where not even who asked can be told. */
function eventOf({ action, tenant, options }: Asked, error: KimberliteError): AuditEvent | undefined {
  try {
    const { code } = error;
    const given = (options ?? undefined) as GovernanceOptions | undefined;
    const outcome = error.action === "reject" ? "refused" : "failed";
    const { tenant: _, ...event } = governanceEvent(SYSTEM_TENANT, { action, options: given });
    const id = idOf(tenant);
    return { ...event, outcome, code, ...(id === undefined ? {} : { tenant: id }) };
  } catch (nonsense) {
    ignoreRefusal(nonsense);
    return undefined;
  }
}

function idOf(tenant: unknown): TenantId | undefined {
  try {
    return tenant === undefined ? undefined : TenantId(tenant as TenantId);
  } catch (nonsense) {
    ignoreRefusal(nonsense);
    return undefined;
  }
}

function isServed({ directory }: NodeState, tenant: TenantId): boolean {
  try {
    directory.get(tenant);
    return true;
  } catch (refusal) {
    ignoreRefusal(refusal);
    return false;
  }
}

function ignoreRefusal(error: unknown): void {
  if (!(error instanceof KimberliteError)) throw error;
}
