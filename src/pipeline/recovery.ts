/**
 * Opening a tenant's projection: created if it is absent, rebuilt if it is damaged, caught up from the log if a crash
 * left it behind. The log is the truth; the projection can be deleted at any time.
 */
import { join } from "node:path";
import { KimberliteError, kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import { failpoint } from "../host/failpoint.ts";
import type { Randomness } from "../host/randomness.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import { isHollow, openBlock, trimmed } from "../log/block.ts";
import { decodeRecord, type LogRecord } from "../log/record.ts";
import { type LogHead, TenantLog } from "../log/tenant-log.ts";
import { Bookkeeping, type ProjectionMeta } from "../projection/bookkeeping.ts";
import { type Connection, openConnection, type StatementLimits } from "../projection/connection.ts";
import { Replayer } from "../projection/replay.ts";
import { isProjectionDamage } from "../projection/sqlite-error.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import {
  copyFile,
  findBase,
  type ProjectionBase,
  parseBaseName,
  projectionFolder,
} from "./projection-base.ts";
import { openRows } from "./subject-seal.ts";

export interface RecoveryParts {
  readonly tenant: TenantId;
  readonly root: string;
  readonly disk: Disk;
  readonly randomness: Randomness;
  readonly keys: TenantKeys;
  readonly limits: StatementLimits;
  /** Length of a log segment; the log's own unless given. */
  readonly segmentMaxBytes?: number | undefined;
  readonly onProgress?: ((progress: RebuildProgress) => void) | undefined;
}

/** How far a rebuild or catch-up is. */
export interface RebuildProgress {
  readonly tenant: TenantId;
  readonly doneOffsets: bigint;
  readonly totalOffsets: bigint;
  readonly changes: number;
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

export interface Target {
  /** First record that is not applied. */
  readonly untilOffset: bigint;
}

const CHANGES_PER_TRANSACTION = 20_000;
const TURN_MS = 10;

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
    if (log.nextOffset === (present?.meta.nextOffset ?? 0n)) {
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

/** A trimmed log's projection begins as it was where the records begin. */
async function layBase(parts: RecoveryParts, request: ReplayRequest): Promise<void> {
  const base = request.base ?? findBase(parts, request.version);
  if (base === undefined || base.size > request.untilOffset) return;
  await copyFile(parts.disk, base.path, request.path);
}

interface ReplayRequest extends Target {
  readonly log: TenantLog;
  readonly path: string;
  readonly key: Buffer;
  /** DEK version of the key, for a base under the same one. */
  readonly version?: number;
  /** The base to begin with, in the place of the tenant's. */
  readonly base?: Pick<ProjectionBase, "path" | "size"> | undefined;
}

/**
 * Applies the log's records up to `untilOffset` to the projection at `path`, in transactions of bounded size, giving
 * the event loop its turn in between.
 */
export async function replayInto(
  parts: RecoveryParts,
  request: ReplayRequest,
): Promise<{ readonly blocksSealed: number; readonly replayedChanges: number }> {
  if (!parts.disk.has(request.path)) await layBase(parts, request);
  const connection = openConnection({ ...request, role: "write", limits: parts.limits, cacheKib: 16_000 });
  const replayer = new Replayer(connection);
  try {
    return await replayAll(parts, request, replayer);
  } finally {
    replayer.close();
  }
}

async function replayAll(
  parts: RecoveryParts,
  request: ReplayRequest,
  replayer: Replayer,
): Promise<{ readonly blocksSealed: number; readonly replayedChanges: number }> {
  const meta = replayer.bookkeeping.readMeta();
  const progress = new ReplayProgress(meta);
  let turnStarted = performance.now();
  replayer.begin();
  for (const { block, records } of openBlocks(parts, request.log, meta.nextOffset)) {
    for (const record of records) {
      if (record.offset >= meta.nextOffset && record.offset < request.untilOffset) replayer.apply(record);
    }
    progress.note(block.header, Buffer.from(block.storedHash), request.untilOffset);
    if (progress.nextOffset >= request.untilOffset) break;
    if (replayer.changes - progress.committedChanges >= CHANGES_PER_TRANSACTION) {
      progress.committedChanges = replayer.changes;
      failpoint("catch-up-before-commit");
      replayer.commit(progress.head(request.log.head), progress.dek());
      failpoint("catch-up-after-commit");
      replayer.begin();
    }
    if (performance.now() - turnStarted > TURN_MS) {
      parts.onProgress?.(report(parts, request, { done: progress.nextOffset, changes: replayer.changes }));
      await new Promise<void>((resolve) => setImmediate(resolve));
      turnStarted = performance.now();
    }
  }
  if (replayer.changes > 0) replayer.rebuildExternalIndexes();
  failpoint("catch-up-before-commit");
  replayer.commit(progress.head(request.log.head), progress.dek());
  parts.onProgress?.(report(parts, request, { done: request.untilOffset, changes: replayer.changes }));
  const { version, blocksSealed } = progress.dek();
  // A version that was put into force since has sealed nothing yet.
  return {
    blocksSealed: version === parts.keys.current.version ? blocksSealed : 0,
    replayedChanges: replayer.changes,
  };
}

function report(
  parts: RecoveryParts,
  request: ReplayRequest,
  at: { readonly done: bigint; readonly changes: number },
): RebuildProgress {
  return {
    tenant: parts.tenant,
    doneOffsets: at.done,
    totalOffsets: request.untilOffset,
    changes: at.changes,
  };
}

/** Where in the log the projection is: what its metadata must say after each transaction of a replay. */
class ReplayProgress {
  nextOffset: bigint;
  blocksSealed: number;
  committedChanges = 0;
  #hash: Buffer;
  #timeUs: bigint;
  #dekVersion: number;

  constructor(meta: ProjectionMeta) {
    this.nextOffset = meta.nextOffset;
    this.blocksSealed = meta.blocksSealed;
    this.#hash = meta.hash;
    this.#timeUs = meta.lastTimeUs;
    this.#dekVersion = meta.dekVersion;
  }

  note(
    header: { firstOffset: bigint; count: number; dekVersion: number; timeUs: bigint },
    hash: Buffer,
    until: bigint,
  ): void {
    const end = header.firstOffset + BigInt(header.count);
    this.nextOffset = end < until ? end : until;
    this.blocksSealed = header.dekVersion === this.#dekVersion ? this.blocksSealed + 1 : 1;
    this.#dekVersion = header.dekVersion;
    this.#timeUs = header.timeUs;
    this.#hash = hash;
  }

  /** Between the ends of the log the place in a segment is not kept: such a projection is continued by offset. */
  head(end: LogHead): LogHead {
    if (this.nextOffset === end.nextOffset) return end;
    return { ...end, nextOffset: this.nextOffset, hash: this.#hash, lastTimeUs: this.#timeUs, position: 0 };
  }

  dek(): { readonly version: number; readonly blocksSealed: number } {
    return { version: this.#dekVersion, blocksSealed: this.blocksSealed };
  }
}

/**
 * Blocks with their records, opened and checked: offsets must be what the header says.
 *
 * @throws `offset_trimmed` for records that were trimmed, unless they are to be passed over
 */
export function* openBlocks(
  parts: Pick<RecoveryParts, "keys" | "tenant">,
  log: TenantLog,
  from: bigint,
  trimmedOnes: "refuse" | "pass over" = "refuse",
): Generator<{
  readonly block: ReturnType<TenantLog["blocks"]> extends Generator<infer B> ? B : never;
  readonly records: LogRecord[];
}> {
  let tombstones: Set<string> | undefined;
  const erased = (subject: Uint8Array): boolean => {
    tombstones ??= readTombstones(parts, log);
    if (!tombstones.has(nameOf(subject))) return false;
    parts.keys.subjects.noteErased(subject);
    return true;
  };
  for (const block of log.blocks(from)) {
    if (isHollow(block.header)) {
      if (trimmedOnes === "refuse") throw trimmed(block.header);
      continue;
    }
    const key = parts.keys.logKey(block.header.dekVersion);
    const records = openBlock(block, key)
      .map(decodeRecord)
      .map((record) => openRows(record, parts.keys, erased));
    for (const [index, record] of records.entries()) {
      if (record.offset !== block.header.firstOffset + BigInt(index)) {
        throw kimberliteError("log_damaged", "a record's offset is not its place", {
          detail: { tenant: parts.tenant, offset: block.header.firstOffset },
        });
      }
    }
    yield { block, records };
  }
}

/** Subjects that the log says were erased: for a key store that is older than their keys. Cost: reads the whole log. */
function readTombstones(parts: Pick<RecoveryParts, "keys">, log: TenantLog): Set<string> {
  const found = new Set<string>();
  for (const block of log.blocks()) {
    if (isHollow(block.header) || !block.header.withSubjects) continue;
    for (const record of openBlock(block, parts.keys.logKey(block.header.dekVersion)).map(decodeRecord)) {
      for (const change of record.changes) {
        if (change.kind === "erase-subject") found.add(nameOf(change.subject));
      }
    }
  }
  return found;
}

function nameOf(subject: Uint8Array): string {
  return Buffer.from(subject).toString("hex");
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
    return { meta: bookkeeping.readMeta(), connection };
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
