/** The first entry of a tenant: its KEK, DEK version 1 and, for the system tenant, the signing key. */
import type { Clock } from "../host/clock.ts";
import type { Randomness } from "../host/randomness.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { type KekUse, type PlainKey, wrapDek, wrapKek, wrapSigningSeed } from "./hierarchy.ts";
import type { KeyStore } from "./key-store.ts";
import type { MasterKeyProvider } from "./master-key.ts";
import type { StoredKeys } from "./stored-keys.ts";
import { freshKey } from "./wrapping.ts";

/** What opening a tenant's keys needs. The master key stays the caller's to close. */
export interface TenantKeysOptions {
  readonly tenant: TenantId;
  readonly master: MasterKeyProvider;
  readonly store: KeyStore;
  readonly randomness: Randomness;
  readonly clock: Clock;
  /** The master key of that id, if the entry came to be under another than `master` since. */
  readonly masterOf?: (masterKeyId: string) => Promise<MasterKeyProvider>;
}

/** Makes what is below `kek`, which stays the caller's, and wraps all of it; nothing else is left in memory. */
export async function firstKeys(
  options: TenantKeysOptions & { readonly kek: Buffer; readonly withSigningKey: boolean },
): Promise<StoredKeys> {
  const { tenant, kek, master, randomness, clock, withSigningKey } = options;
  const createdAtUs = clock.wallTimeUs();
  const use: KekUse = { tenant, kek, randomness };
  const dek: PlainKey = { key: freshKey(randomness), version: 1, createdAtUs };
  const seed = withSigningKey ? freshKey(randomness) : undefined;
  try {
    const wrapped = await wrapKek(tenant, { key: kek, version: 1, createdAtUs }, master);
    const stored = { kek: wrapped, deks: [wrapDek(use, dek)], projectionDek: dek.version };
    return seed === undefined ? stored : { ...stored, signingKey: wrapSigningSeed(use, seed, createdAtUs) };
  } finally {
    dek.key.fill(0);
    seed?.fill(0);
  }
}
