/**
 * Rotation of the master key: every tenant's KEK is wrapped anew under another one, one small file at a time, while the
 * node serves. Interrupted anywhere, it is begun again with both keys at hand and goes on with the tenants that are left.
 */
import type { MasterKeyProvider } from "./keys/master-key.ts";
import { rewrapTenant } from "./keys/rewrap-tenant.ts";
import type { NodeState } from "./node-state.ts";
import { SYSTEM_TENANT, type TenantId } from "./tenant/tenant-id.ts";

/** @throws `master_key_wrong` if the new key does not give back what it wraps; `disk_full`, `disk_failed` */
export async function rotateMaster(node: NodeState, to: MasterKeyProvider): Promise<void> {
  const { masters, keyStore } = node;
  masters.beginRotation(to);
  for (const tenant of keyStore.tenants()) {
    if (tenant !== SYSTEM_TENANT) await moveTenant(node, tenant, to);
  }
  // The system tenant last: until then the former master key opens the directory.
  await node.system.keys.rewrapUnder(to);
  masters.finishRotation();
}

async function moveTenant(node: NodeState, tenant: TenantId, to: MasterKeyProvider): Promise<void> {
  const { masters, keyStore, tenants } = node;
  if (tenants.peek(tenant) !== undefined) {
    return tenants.use(tenant, (engine) => engine.keys.rewrapUnder(to));
  }
  const masterKeyId = keyStore.read(tenant)?.kek.masterKeyId;
  if (masterKeyId === undefined) return;
  await rewrapTenant({ tenant, from: masters.holderOf(masterKeyId), to, store: keyStore });
}
