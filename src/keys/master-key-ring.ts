/**
 * The master keys that a node knows: the current one; others under which some tenants still are, or already are, while a
 * rotation is under way or after one that was interrupted; and those of tenants that hold their own. Which one a tenant
 * needs, its key store entry says.
 */
import { KimberliteError, kimberliteError } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { TenantKeysOptions } from "./first-keys.ts";
import { unwrapKek } from "./hierarchy.ts";
import type { KekCache } from "./kek-cache.ts";
import { requireStored } from "./key-store.ts";
import type { MasterKeyProvider } from "./master-key.ts";
import type { StoredKeys } from "./stored-keys.ts";
import { TenantKeys } from "./tenant-keys.ts";

/** Opens the master key that a URI names. */
export type OpenMasterKey = (uri: string) => Promise<MasterKeyProvider>;

export interface RingOptions {
  readonly others?: readonly MasterKeyProvider[] | undefined;
  readonly openMasterKey: OpenMasterKey;
  readonly cache: KekCache;
}

export class MasterKeyRing {
  readonly #openMasterKey: OpenMasterKey;
  readonly #cache: KekCache;
  #current: MasterKeyProvider;
  #next: MasterKeyProvider | undefined;
  #rotating = false;
  readonly #others: Set<MasterKeyProvider>;
  /** Of tenants that hold their own, by URI. */
  readonly #held: Map<string, Promise<MasterKeyProvider>> = new Map();

  constructor(current: MasterKeyProvider, options: RingOptions) {
    this.#current = current;
    this.#openMasterKey = options.openMasterKey;
    this.#cache = options.cache;
    this.#others = new Set(options.others ?? []);
  }

  get current(): MasterKeyProvider {
    return this.#current;
  }

  /** What the keys of a new tenant are wrapped under: during a rotation already the key that it leads to. */
  get forNewTenants(): MasterKeyProvider {
    return this.#next ?? this.#current;
  }

  /** The node's key of that id; the current one if none is known by it, whose refusal then says so. */
  holderOf(masterKeyId: string): MasterKeyProvider {
    return this.#known().find((provider) => provider.keyId === masterKeyId) ?? this.#current;
  }

  /** True if a key of the node's own, and not a tenant's, has that id. */
  knows(masterKeyId: string): boolean {
    return this.#known().some((provider) => provider.keyId === masterKeyId);
  }

  /** The master key that a tenant holds. @throws as the provider does when it is opened; asked again the next time */
  held(uri: string): Promise<MasterKeyProvider> {
    let opening = this.#held.get(uri);
    if (opening === undefined) {
      opening = this.#openMasterKey(uri);
      this.#held.set(uri, opening);
      opening.catch(() => this.#held.delete(uri));
    }
    return opening;
  }

  /**
   * From now on tenants may be under either, and under what an earlier rotation led to that did not end.
   *
   * @throws `operation_running` while another rotation is under way
   */
  beginRotation(next: MasterKeyProvider): void {
    if (this.#rotating)
      throw kimberliteError("operation_running", "a rotation of the master key is under way");
    this.#rotating = true;
    if (this.#next !== undefined) this.#others.add(this.#next);
    this.#next = next;
  }

  /** Every tenant is under the next one, which is now the current one. */
  finishRotation(): void {
    if (this.#next === undefined) return;
    this.#others.add(this.#current);
    this.#current = this.#next;
    this.#next = undefined;
  }

  /** It is not under way any more; unless it was finished, new tenants go on coming under the next one. */
  endRotation(): void {
    this.#rotating = false;
  }

  /**
   * Opens a tenant's keys under whichever master key wraps them.
   *
   * @param own URIs of master keys that the tenant holds, if it does: two while it moves from one to the other.
   * @throws as `TenantKeys.load`
   */
  async load(options: Omit<TenantKeysOptions, "master">, own: readonly string[] = []): Promise<TenantKeys> {
    const { tenant, store } = options;
    const { masterKeyId } = requireStored(tenant, store.read(tenant)).kek;
    const masterOf = (keyId: string): Promise<MasterKeyProvider> => this.#masterOf(keyId, own);
    try {
      return await TenantKeys.load({ ...options, masterOf, master: await masterOf(masterKeyId) });
    } catch (error) {
      const moved = store.read(tenant)?.kek.masterKeyId;
      if (!(error instanceof KimberliteError) || moved === undefined || moved === masterKeyId) throw error;
      return TenantKeys.load({ ...options, masterOf, master: await masterOf(moved) });
    }
  }

  /** Opens keys that are not in the store, under a master key of the node. @throws as `TenantKeys.load` */
  async loadStored(options: Omit<TenantKeysOptions, "master">, stored: StoredKeys): Promise<TenantKeys> {
    return TenantKeys.load({ ...options, master: this.holderOf(stored.kek.masterKeyId) }, stored);
  }

  /**
   * Asks the master key that a tenant holds whether it still gives the tenant's KEK, past anything that is kept of it.
   *
   * @throws what the provider refuses with
   */
  async prove(options: Pick<TenantKeysOptions, "tenant" | "store">, own: readonly string[]): Promise<void> {
    const { tenant, store } = options;
    const { kek } = requireStored(tenant, store.read(tenant));
    if (this.knows(kek.masterKeyId) || own.length === 0) return;
    (await unwrapKek(tenant, kek, await this.#heldUnder(kek.masterKeyId, own))).fill(0);
  }

  forget(tenant: TenantId): void {
    this.#cache.forget(tenant);
  }

  async close(): Promise<void> {
    this.#cache.close();
    const held = await Promise.allSettled(this.#held.values());
    const opened = held.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    for (const provider of new Set([this.#current, this.#next, ...this.#others, ...opened]))
      await provider?.close();
  }

  #known(): MasterKeyProvider[] {
    return [this.#current, ...(this.#next === undefined ? [] : [this.#next]), ...this.#others];
  }

  async #masterOf(masterKeyId: string, own: readonly string[]): Promise<MasterKeyProvider> {
    if (own.length === 0 || this.knows(masterKeyId)) return this.#cache.over(this.holderOf(masterKeyId));
    return this.#cache.over(await this.#heldUnder(masterKeyId, own));
  }

  /** Of the keys that a tenant names, the one of that id; one that does not open hides no other. */
  async #heldUnder(masterKeyId: string, own: readonly string[]): Promise<MasterKeyProvider> {
    let refusal: KimberliteError | undefined;
    for (const uri of own) {
      try {
        const provider = await this.held(uri);
        if (provider.keyId === masterKeyId) return provider;
      } catch (error) {
        if (!(error instanceof KimberliteError)) throw error;
        refusal ??= error;
      }
    }
    if (refusal !== undefined) throw refusal;
    throw kimberliteError(
      "master_key_wrong",
      "the tenant's keys are under another master key than it names",
      { detail: { masterKeyId } },
    );
  }
}
