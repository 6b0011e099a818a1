/**
 * Rotation of the master key: every tenant's KEK is wrapped anew under another one, one small file at a time, while the
 * node serves. Interrupted anywhere, it is begun again with both keys at hand and goes on with the tenants that are left.
 */
import { type GovernanceOptions, governanceEvent } from "./administration.ts";
import type { MasterKeyProvider } from "./keys/master-key.ts";
import { rewrapTenant } from "./keys/rewrap-tenant.ts";
import type { NodeState } from "./node-state.ts";
import { SYSTEM_TENANT, type TenantId } from "./tenant/tenant-id.ts";

/** How far a rotation is. */
export interface RotationProgress {
  readonly done: number;
  readonly total: number;
}

/** Tenants at a time: a KMS answers in milliseconds, and is asked twice for each. */
const AT_ONCE = 16;

/** @throws `master_key_wrong` if the new key does not give back what it wraps; `disk_full`, `disk_failed` */
export async function rotateMaster(
  node: NodeState,
  to: MasterKeyProvider,
  options: GovernanceOptions & { readonly onProgress?: (progress: RotationProgress) => void } = {},
): Promise<void> {
  const { masters, keyStore, directory } = node;
  const { tenant: _, ...event } = governanceEvent(SYSTEM_TENANT, {
    action: "key.rotate-master",
    options,
    detail: { from: masters.current.keyId, to: to.keyId },
  });
  await directory.note({ ...event, outcome: "began" });
  masters.beginRotation(to);
  const waiting = keyStore.tenants().filter((tenant) => tenant !== SYSTEM_TENANT);
  const total = waiting.length + 1;
  const work = async (): Promise<void> => {
    for (let tenant = waiting.pop(); tenant !== undefined; tenant = waiting.pop()) {
      await moveTenant(node, tenant, to);
      options.onProgress?.({ done: total - 1 - waiting.length, total });
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: AT_ONCE }, work));
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  // The system tenant last: until then the former master key opens the directory.
  await node.system.keys.rewrapUnder(to);
  masters.finishRotation();
  options.onProgress?.({ done: total, total });
  await directory.note(event);
}

/** A tenant under a key of its own stays there; one without keys in the store was erased meanwhile. */
async function moveTenant(node: NodeState, tenant: TenantId, to: MasterKeyProvider): Promise<void> {
  const { masters, keyStore, tenants } = node;
  const masterKeyId = keyStore.read(tenant)?.kek.masterKeyId;
  if (masterKeyId === undefined) return;
  if (node.heldBy(tenant).length > 0 && !masters.knows(masterKeyId)) return;
  if (tenants.peek(tenant) !== undefined) {
    return tenants.use(tenant, (engine) => engine.keys.rewrapUnder(to));
  }
  await rewrapTenant({ tenant, from: masters.holderOf(masterKeyId), to, store: keyStore });
}
