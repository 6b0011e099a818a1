/**
 * Tenants that hold their own master key: who withdraws access to it freezes the tenant, who restores it thaws it.
 *
 * Every so often the key of each such tenant that is open is asked again. If it refuses, the tenant is closed and its
 * keys are zeroed; from then on the tenant is refused with the key's own error, and nothing of it is lost. A key that
 * merely cannot be reached freezes nobody. A frozen tenant is thawed by the next question that is answered.
 */
import { auditTenant, type GovernanceOptions, governanceEvent } from "./administration.ts";
import type { AuditEvent } from "./audit/audit-event.ts";
import type { DirectoryEntry } from "./directory/catalogue.ts";
import type { KimberliteError } from "./errors.ts";
import { isKeyRefusal } from "./keys/key-answers.ts";
import { proveMaster } from "./master-rotation.ts";
import type { NodeState } from "./node-state.ts";
import { type KeyAccess, parseMasterKeyUri, type TenantEntry } from "./tenant/tenant-config.ts";
import type { TenantId } from "./tenant/tenant-id.ts";

/** A frozen tenant that is asked for again and again asks its key this often at most. */
const THAW_MS = 1_000;

export class HeldKeys {
  readonly #node: NodeState;
  readonly #intervalMs: number;
  readonly #frozen: Map<TenantId, { readonly error: KimberliteError; askedAtMs: number }> = new Map();
  readonly #asking: Map<TenantId, Promise<void>> = new Map();
  #timer: NodeJS.Timeout | undefined;

  constructor(node: NodeState, intervalMs: number) {
    this.#node = node;
    this.#intervalMs = intervalMs;
    this.#timer = setInterval(() => void this.check().catch(() => undefined), intervalMs);
    this.#timer.unref();
  }

  /** @throws the refusal of a frozen tenant's key, while it asks that again beside. */
  requireThawed(tenant: TenantId): void {
    const frozen = this.#frozen.get(tenant);
    if (frozen === undefined) return;
    const nowMs = this.#node.clock.monotonicMs();
    if (nowMs - frozen.askedAtMs >= Math.min(THAW_MS, this.#intervalMs)) {
      frozen.askedAtMs = nowMs;
      void this.#ask(tenant).catch(() => undefined);
    }
    throw frozen.error;
  }

  /** What is told of a tenant's entry: with what its own key's holder answered last. Asks nobody. */
  withAccess<Entry extends TenantEntry>(entry: Entry): Entry {
    if (entry.masterKey === undefined || entry.state.startsWith("eras")) return entry;
    const keyAccess: KeyAccess = this.#frozen.has(entry.id)
      ? "withdrawn"
      : this.#node.keyAnswers.last(entry.id);
    return { ...entry, keyAccess };
  }

  /** Asks the key of every tenant that holds one and is open or frozen. */
  async check(): Promise<void> {
    const { directory, tenants } = this.#node;
    const open = tenants.open().filter((tenant) => directory.entry(tenant).masterKey !== undefined);
    await Promise.allSettled(
      [...new Set([...open, ...this.#frozen.keys()])].map((tenant) => this.#ask(tenant)),
    );
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await Promise.allSettled(this.#asking.values());
  }

  #ask(tenant: TenantId): Promise<void> {
    const asking =
      this.#asking.get(tenant) ?? this.#askNow(tenant).finally(() => this.#asking.delete(tenant));
    this.#asking.set(tenant, asking);
    return asking;
  }

  async #askNow(tenant: TenantId): Promise<void> {
    const { masters, keyStore: store, keyAnswers } = this.#node;
    try {
      await keyAnswers.noting(tenant, () => masters.prove({ tenant, store }, this.#node.heldBy(tenant)));
    } catch (error) {
      if (isKeyRefusal(error)) await this.#freeze(tenant, error);
      return;
    }
    if (!this.#frozen.has(tenant)) return;
    await this.#note(tenant, { action: "key.thaw", outcome: "done" });
    this.#frozen.delete(tenant);
  }

  async #freeze(tenant: TenantId, error: KimberliteError): Promise<void> {
    const askedAtMs = this.#node.clock.monotonicMs();
    const known = this.#frozen.has(tenant);
    this.#frozen.set(tenant, { error, askedAtMs });
    if (known) return;
    // While the keys are still in memory, the tenant's own stream can take the record.
    await this.#note(tenant, { action: "key.freeze", outcome: "done", code: error.code });
    this.#node.masters.forget(tenant);
    await this.#node.tenants.close(tenant);
  }

  async #note(tenant: TenantId, event: Pick<AuditEvent, "action" | "outcome" | "code">): Promise<void> {
    const { directory } = this.#node;
    await directory.note(await auditTenant(this.#node, tenant, { ...event, actor: "system", tenant }));
  }
}

/**
 * Moves a tenant's KEK under the master key that it is to hold, or under the node's; see `setTenantMasterKey`. One move of
 * a tenant after the other, and none beside a rotation's.
 */
export function moveTenantKey(
  node: NodeState,
  id: TenantId,
  uri: string | null,
  options: GovernanceOptions | undefined,
): Promise<TenantEntry> {
  const own = uri === null ? undefined : parseMasterKeyUri(uri);
  const { directory, masters, tenants } = node;
  return directory.changing(id, async (changes) => {
    const former = await presentHolder(node, changes.entry);
    const to = own === undefined ? masters.forNewTenants : await masters.held(own);
    // A key that does not give back what it wraps is not named in the catalogue.
    await proveMaster(node, id, to);
    const { keyId } = to;
    const about = {
      action: "key.move" as const,
      options,
      detail: { from: former ?? "node", to: own ?? "node", keyId },
    };
    const event = await auditTenant(node, id, governanceEvent(id, about));
    // Both are in the catalogue while the KEK is under either.
    const held = own === undefined ? { masterKey: former } : { masterKey: own, formerMasterKey: former };
    await changes.changeMasterKeys(held, event);
    node.keyAnswers.forget(id);
    await tenants.use(id, (engine) => engine.keys.rewrapUnder(to));
    return changes.changeMasterKeys({ masterKey: own });
  });
}

/** Which of the keys that a tenant names holds its KEK: a move that was interrupted left two. */
async function presentHolder(
  { masters, keyStore }: NodeState,
  { id, masterKey, formerMasterKey }: DirectoryEntry,
): Promise<string | undefined> {
  if (masterKey === undefined || formerMasterKey === undefined) return masterKey;
  const keyId = keyStore.read(id)?.kek.masterKeyId;
  const moved = masters.held(masterKey).then((provider) => provider.keyId === keyId);
  return (await moved.catch(() => false)) ? masterKey : formerMasterKey;
}
