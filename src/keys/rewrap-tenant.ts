/** Rotating the master key for a tenant that is not open: its KEK stays, only what wraps it changes. */
import type { TenantId } from "../tenant/tenant-id.ts";
import { unwrapKek, wrapKek } from "./hierarchy.ts";
import { type KeyStore, requireStored } from "./key-store.ts";
import type { MasterKeyProvider } from "./master-key.ts";

/**
 * Unwraps the tenant's KEK with `from` and wraps it under `to`; the former wrapping is overwritten. May be repeated
 * after a crash: a tenant that is under `to` already stays as it is (unless `from` and `to` are one key, whose
 * newer version then wraps it).
 *
 * @returns false for a tenant that was under `to` already.
 * @throws `keys_missing`, `keys_damaged`, `format_too_new`; `master_key_wrong` if `from` did not wrap the KEK or `to`
 * does not give it back; `disk_full`, `disk_failed`: the tenant is under one of the two.
 */
export async function rewrapTenant(options: {
  readonly tenant: TenantId;
  readonly from: MasterKeyProvider;
  readonly to: MasterKeyProvider;
  readonly store: KeyStore;
}): Promise<boolean> {
  const { tenant, from, to, store } = options;
  const known = requireStored(tenant, store.read(tenant));
  if (known.kek.masterKeyId === to.keyId && from.keyId !== to.keyId) return false;
  await store.update(tenant, async (present) => {
    const stored = requireStored(tenant, present);
    const key = await unwrapKek(tenant, stored.kek, from);
    try {
      return { ...stored, kek: await wrapKek(tenant, { ...stored.kek, key }, to) };
    } finally {
      key.fill(0);
    }
  });
  return true;
}
