/**
 * Opening a tenant's projection: created if it is absent, rebuilt if it is damaged, caught up from the log if a crash
 * left it behind. The log is the truth; the projection can be deleted at any time.
 */
import { join } from "node:path";
import { KimberliteError, kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import { TenantLog } from "../log/tenant-log.ts";
import { Bookkeeping, type ProjectionMeta } from "../projection/bookkeeping.ts";
import { type Connection, openConnection, requireWholePages } from "../projection/connection.ts";
import { wasInterrupted } from "../projection/replay.ts";
import { isProjectionDamage } from "../projection/sqlite-error.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { parseBaseName, projectionFolder } from "./projection-base.ts";
import { type ReplayParts, replayInto } from "./replay-into.ts";

export interface RecoveryParts extends ReplayParts {
  /** Length of a log segment; the log's own unless given. */
  readonly segmentMaxBytes?: number | undefined;
  /** Reads every page of a projection that is there, so that damage shows now and not at a later statement. */
  readonly checksPages?: boolean;
}

export interface Recovered {
  readonly log: TenantLog;
  readonly path: string;
  readonly key: Buffer;
  readonly blocksSealed: number;
  /** Row changes that were applied from the log. */
  readonly replayedChanges: number;
  /** Open on the projection if nothing had to be replayed: for the writer, which saves opening the file again. */
  readonly connection?: Connection | undefined;
}

/**
 * Opens log and projection of a tenant and brings the projection to the log's end.
 *
 * @throws `log_damaged`, `keys_missing`, `format_too_new`, `disk_full`, `disk_failed`
 */
export async function recover(parts: RecoveryParts): Promise<Recovered> {
  const folder = projectionFolder(parts.root, parts.tenant);
  parts.disk.makeFolder(folder);
  removeSnapshots(parts.disk, folder);
  const { version, key } = parts.keys.projectionKey();
  const path = join(folder, `${version}.db`);
  const present = openPresent(parts, { path, key });
  try {
    const log = openLog(parts, present?.meta);
    // Keys of an earlier day would go on under a version that has its successor already, and draw that one again.
    const lastVersion = present?.meta.dekVersion ?? 0;
    if (lastVersion > parts.keys.current.version) parts.keys.logKey(lastVersion);
    if (!isBehind(log, present?.meta)) {
      const counted = present?.meta.dekVersion === parts.keys.current.version;
      const blocksSealed = counted ? present.meta.blocksSealed : 0;
      return { log, path, key, blocksSealed, replayedChanges: 0, connection: present?.connection };
    }
    present?.connection.db.close();
    const replayed = await replayInto(parts, { log, path, key, version, untilOffset: log.nextOffset });
    return { log, path, key, ...replayed };
  } catch (error) {
    present?.connection.db.close();
    throw asDamage(parts.tenant, error);
  }
}

function isBehind(log: TenantLog, meta: ProjectionMeta | undefined): boolean {
  return log.nextOffset !== (meta?.nextOffset ?? 0n) || (meta !== undefined && wasInterrupted(meta));
}

/** The base of a trimmed log holds what its records did: one that is needed and gone was taken away. */
function asDamage(tenant: TenantId, error: unknown): unknown {
  if (!(error instanceof KimberliteError) || error.code !== "offset_trimmed") return error;
  return kimberliteError("log_damaged", "records are gone that were not trimmed", {
    detail: { tenant, offset: error.detail.offset },
    cause: error,
  });
}

/** A rebuild that was interrupted knows its offset but not its place in the segments: it goes on from the offset. */
function openLog(parts: RecoveryParts, meta: ProjectionMeta | undefined): TenantLog {
  const placed = meta !== undefined && (meta.position > 0 || meta.nextOffset === 0n);
  const log = TenantLog.open({ ...parts, head: placed ? meta : undefined });
  if (meta !== undefined && log.nextOffset < meta.nextOffset) {
    throw kimberliteError("log_damaged", "the log ends before what was committed to it", {
      detail: { tenant: parts.tenant, offset: log.nextOffset },
    });
  }
  return log;
}

/** Deletes a projection's files; it is rebuilt when it is next opened. */
export function removeProjection(disk: Disk, path: string): void {
  for (const suffix of ["", "-wal", "-shm", "-journal"]) disk.removeFile(path + suffix);
}

/** Deletes every file of a tenant's projection but what it is built from; the tenant is closed. */
export function removeProjections(disk: Disk, root: string, tenant: TenantId): void {
  const folder = projectionFolder(root, tenant);
  for (const name of disk.list(folder))
    if (parseBaseName(name) === undefined) disk.removeFile(join(folder, name));
}

interface Present {
  readonly meta: ProjectionMeta;
  readonly connection: Connection;
}

/** The projection and what it says of itself; undefined if there is none, or it does not open and must be built anew. */
function openPresent(
  parts: RecoveryParts,
  file: { readonly path: string; readonly key: Buffer },
): Present | undefined {
  if (!parts.disk.has(file.path)) return undefined;
  let connection: Connection | undefined;
  try {
    connection = openConnection({ ...file, role: "write", limits: parts.limits, inline: true });
    const bookkeeping = new Bookkeeping(connection.db);
    bookkeeping.initialise();
    const meta = bookkeeping.readMeta();
    if (parts.checksPages === true) requireWholePages(connection);
    return { meta, connection };
  } catch (error) {
    connection?.db.close();
    if (!isProjectionDamage(error)) throw error;
    removeProjection(parts.disk, file.path);
    return undefined;
  }
}

function removeSnapshots(disk: Disk, folder: string): void {
  const left = /^(?:at-|scrubbed\.|rebuilt\.)/;
  for (const name of disk.list(folder)) if (left.test(name)) disk.removeFile(join(folder, name));
}
