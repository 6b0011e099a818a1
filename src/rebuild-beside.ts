/**
 * A tenant's projection built anew from its log, beside the present one, while the tenant is served: for when the present
 * one has in its free pages what must not be anywhere any more.
 *
 * The tenant waits for the last few records and the change of files. Kept: until the change the present one is in force;
 * a crash in between leaves none, and the next opening builds it.
 */
import { join } from "node:path";
import { failpoint } from "./host/failpoint.ts";
import type { TenantKeys } from "./keys/tenant-keys.ts";
import { TenantLog } from "./log/tenant-log.ts";
import type { NodeState } from "./node-state.ts";
import { copyFile, findBase, projectionFolder, syncFile } from "./pipeline/projection-base.ts";
import { removeProjection } from "./pipeline/recovery.ts";
import { type ReplayParts, replayInto } from "./pipeline/replay-into.ts";
import { scrubSubjects } from "./projection/scrub-subjects.ts";
import type { TenantId } from "./tenant/tenant-id.ts";

/** What is left to do while the tenant is closed. */
const LITTLE_RECORDS = 200n;
const MAX_ROUNDS = 20;
const SUFFIXES = ["-wal", "-shm", "-journal"];

/** Builds it without the rows of subjects that have no key any more; nothing else happens to the tenant's files meanwhile. */
export async function rebuildWithoutErased(node: NodeState, id: TenantId): Promise<void> {
  const folder = projectionFolder(node.root, id);
  const path = join(folder, "rebuilt.db");
  removeProjection(node.disk, path);
  await node.tenants.use(id, (engine) => scrubBase(node, id, engine.keys));
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const behind = await node.tenants.use(id, async ({ log, keys }) => {
      const until = log.nextOffset;
      await replayInto(partsOf(node, id, keys), { log, path, ...keys.projectionKey(), untilOffset: until });
      return log.nextOffset - until;
    });
    if (behind <= LITTLE_RECORDS) break;
  }
  await node.tenants.exclusively(id, () => node.withKeys(id, (keys) => takePlace(node, { id, path, keys })));
}

/** The tenant is closed, and nobody opens it. */
async function takePlace(
  node: NodeState,
  { id, path, keys }: { readonly id: TenantId; readonly path: string; readonly keys: TenantKeys },
): Promise<void> {
  const { disk, root, journal } = node;
  await journal.settle(id);
  const { version, key } = keys.projectionKey();
  const log = TenantLog.open({ ...node.logOptions(id), root });
  try {
    await replayInto(partsOf(node, id, keys), { log, path, key, version, untilOffset: log.nextOffset });
  } finally {
    log.close();
  }
  await syncFile(disk, path);
  failpoint("subject-before-swap");
  const folder = projectionFolder(root, id);
  const present = join(folder, `${version}.db`);
  for (const suffix of [...SUFFIXES, ""]) await disk.destroyFile(present + suffix);
  disk.move(path, present);
  disk.syncFolder(folder);
}

/** What a trimmed tenant's projections begin with cannot be built from the log: it is written anew without those rows. */
async function scrubBase(node: NodeState, id: TenantId, keys: TenantKeys): Promise<void> {
  const { disk, root } = node;
  const base = findBase({ disk, root, tenant: id });
  if (base === undefined || !keys.hasSubjects) return;
  const folder = projectionFolder(root, id);
  const [from, to] = [join(folder, "scrubbed.old.db"), join(folder, "scrubbed.new.db")];
  for (const left of [from, to])
    for (const suffix of [...SUFFIXES, ""]) await disk.destroyFile(left + suffix);
  await copyFile(disk, base.path, from);
  const { key } = keys.projectionKey(base.version);
  scrubSubjects({ from, to, key }, (subject) => keys.subjects.find(subject) !== undefined);
  await syncFile(disk, to);
  await disk.destroyFile(from);
  disk.move(to, base.path);
  disk.syncFolder(folder);
}

function partsOf(node: NodeState, tenant: TenantId, keys: TenantKeys): ReplayParts {
  const { root, disk, randomness, limits, lanes } = node;
  const requireGoingOn = (): void => void node.directory.get(tenant);
  return { tenant, root, disk, randomness, keys, limits, lanes, requireGoingOn };
}
