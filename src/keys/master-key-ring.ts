/**
 * The master keys that a node knows: the current one, and others under which some tenants still are, or already are,
 * while a rotation is under way or after one that was interrupted. Which one a tenant needs, its key store entry says.
 */
import { KimberliteError } from "../errors.ts";
import type { TenantKeysOptions } from "./first-keys.ts";
import { requireStored } from "./key-store.ts";
import type { MasterKeyProvider } from "./master-key.ts";
import { TenantKeys } from "./tenant-keys.ts";

export class MasterKeyRing {
  #current: MasterKeyProvider;
  #next: MasterKeyProvider | undefined;
  readonly #others: Set<MasterKeyProvider>;

  constructor(current: MasterKeyProvider, others: readonly MasterKeyProvider[] = []) {
    this.#current = current;
    this.#others = new Set(others);
  }

  get current(): MasterKeyProvider {
    return this.#current;
  }

  /** What the keys of a new tenant are wrapped under: during a rotation already the key that it leads to. */
  get forNewTenants(): MasterKeyProvider {
    return this.#next ?? this.#current;
  }

  /** The key of that id; the current one if none is known by it, whose refusal then says so. */
  holderOf(masterKeyId: string): MasterKeyProvider {
    const known = [this.#current, ...(this.#next === undefined ? [] : [this.#next]), ...this.#others];
    return known.find((provider) => provider.keyId === masterKeyId) ?? this.#current;
  }

  /** From now on tenants may be under either. */
  beginRotation(next: MasterKeyProvider): void {
    this.#next = next;
  }

  /** Every tenant is under the next one, which is now the current one. */
  finishRotation(): void {
    if (this.#next === undefined || this.#next === this.#current) return;
    this.#others.add(this.#current);
    this.#current = this.#next;
    this.#next = undefined;
  }

  /** Opens a tenant's keys under whichever master key wraps them. @throws as `TenantKeys.load` */
  async load(options: Omit<TenantKeysOptions, "master">): Promise<TenantKeys> {
    const { tenant, store } = options;
    const { masterKeyId } = requireStored(tenant, store.read(tenant)).kek;
    try {
      return await TenantKeys.load({ ...options, master: this.holderOf(masterKeyId) });
    } catch (error) {
      const moved = store.read(tenant)?.kek.masterKeyId;
      if (!(error instanceof KimberliteError) || moved === undefined || moved === masterKeyId) throw error;
      return TenantKeys.load({ ...options, master: this.holderOf(moved) });
    }
  }

  async close(): Promise<void> {
    for (const provider of new Set([this.#current, this.#next, ...this.#others])) await provider?.close();
  }
}
