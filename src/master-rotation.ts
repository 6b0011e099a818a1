/**
 * Rotation of the master key: every tenant's KEK is wrapped anew under another one, one small file at a time, while the
 * node serves. Interrupted anywhere, it is begun again with both keys at hand and goes on with the tenants that are left.
 *
 * Kept: when it has ended, nothing is under the former key but what a tenant's damaged keys are under; tenants that are
 * made, erased or moved to a key of their own meanwhile are under the key that they should be.
 */
import { type GovernanceOptions, governanceEvent } from "./administration.ts";
import { type ErrorCode, KimberliteError, kimberliteError } from "./errors.ts";
import { wrapKek } from "./keys/hierarchy.ts";
import type { MasterKeyProvider } from "./keys/master-key.ts";
import { rewrapTenant } from "./keys/rewrap-tenant.ts";
import { freshKey } from "./keys/wrapping.ts";
import type { NodeState } from "./node-state.ts";
import { SYSTEM_TENANT, type TenantId } from "./tenant/tenant-id.ts";

/** How far a rotation is. */
export interface RotationProgress {
  readonly done: number;
  readonly total: number;
}

/** Tenants at a time: a KMS answers in milliseconds, and is asked twice for each. */
const AT_ONCE = 16;

/** What is wrong with a tenant's keys themselves: asking again moves it no more than this time. */
const DAMAGE: ReadonlySet<ErrorCode> = new Set(["keys_damaged", "format_too_new", "master_key_wrong"]);

/**
 * @throws `keys_damaged` when all others were moved, with `detail.tenants`, for tenants whose keys no key of the node
 * opens; `master_key_wrong` if the new key does not give back what it wraps; `operation_running`; `disk_full`,
 * `disk_failed`, and what the providers throw: then it is called again
 */
export async function rotateMaster(
  node: NodeState,
  to: MasterKeyProvider,
  options: GovernanceOptions & { readonly onProgress?: (progress: RotationProgress) => void } = {},
): Promise<void> {
  const { masters, directory } = node;
  const { tenant: _, ...event } = governanceEvent(SYSTEM_TENANT, {
    action: "key.rotate-master",
    options,
    detail: { from: masters.current.keyId, to: to.keyId },
  });
  // No tenant is blamed for a key that gives nothing back.
  await proveMaster(node, SYSTEM_TENANT, to);
  masters.beginRotation(to);
  try {
    await directory.note({ ...event, outcome: "began" });
    const damaged = await moveAll(node, to, options.onProgress);
    masters.finishRotation();
    if (damaged.length === 0) return await directory.note(event);
    const notMoved = damaged.join(" ");
    await directory.note({ ...event, code: "keys_damaged", detail: { ...event.detail, notMoved } });
    throw kimberliteError("keys_damaged", "every tenant but these is under the new master key", {
      detail: { tenants: notMoved },
    });
  } finally {
    masters.endRotation();
  }
}

/**
 * Sees that a master key gives back what it wraps for a tenant, before anything rests on it.
 *
 * @throws `master_key_wrong`, and what the provider throws
 */
export async function proveMaster(
  { randomness }: NodeState,
  tenant: TenantId,
  master: MasterKeyProvider,
): Promise<void> {
  const probe = { key: freshKey(randomness), version: 1, createdAtUs: 0n };
  try {
    await wrapKek(tenant, probe, master);
  } finally {
    probe.key.fill(0);
  }
}

/** @returns the tenants whose keys are damaged, which are left as they are */
async function moveAll(
  node: NodeState,
  to: MasterKeyProvider,
  onProgress: ((progress: RotationProgress) => void) | undefined,
): Promise<TenantId[]> {
  const waiting = node.keyStore.tenants().filter((tenant) => tenant !== SYSTEM_TENANT);
  const total = waiting.length + 1;
  const damaged: TenantId[] = [];
  let done = 0;
  const work = async (): Promise<void> => {
    for (let tenant = waiting.pop(); tenant !== undefined; tenant = waiting.pop()) {
      const id = tenant;
      await node.directory
        .changing(id, () => moveTenant(node, id, to))
        .catch((error: unknown) => {
          if (!(error instanceof KimberliteError) || !DAMAGE.has(error.code)) throw error;
          damaged.push(id);
        });
      done += 1;
      onProgress?.({ done, total });
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: AT_ONCE }, work));
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  // The system tenant last: until then the former master key opens the directory.
  await (await node.healthySystem()).keys.rewrapUnder(to);
  onProgress?.({ done: total, total });
  return damaged.sort((a, b) => (a < b ? -1 : 1));
}

/**
 * A tenant under a key of its own stays there, also one that is only being made; one without keys in the store was erased
 * meanwhile. Tenants that are made while this is under way see to themselves (`NodeState.createKeys`).
 */
async function moveTenant(node: NodeState, tenant: TenantId, to: MasterKeyProvider): Promise<void> {
  const { masters, keyStore, tenants, directory } = node;
  const gone = (): boolean => directory.has(tenant) && directory.entry(tenant).state.startsWith("eras");
  const masterKeyId = gone() ? undefined : keyStore.read(tenant)?.kek.masterKeyId;
  if (masterKeyId === undefined) return;
  const ofTheNode = masters.knows(masterKeyId);
  if (!ofTheNode && (!directory.has(tenant) || node.heldBy(tenant).length > 0)) return;
  try {
    if (tenants.peek(tenant) !== undefined) {
      await tenants.use(tenant, (engine) => engine.keys.rewrapUnder(to));
    } else await rewrapTenant({ tenant, from: masters.holderOf(masterKeyId), to, store: keyStore });
  } catch (error) {
    if (!(error instanceof KimberliteError)) throw error;
    // It was erased, or closed, meanwhile.
    const now = gone() ? undefined : keyStore.read(tenant)?.kek.masterKeyId;
    if (now === undefined) return;
    if (error.code !== "closed") throw error;
    await rewrapTenant({ tenant, from: masters.holderOf(now), to, store: keyStore });
  }
}
