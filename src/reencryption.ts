/**
 * Writing a tenant's log and projection anew under a new DEK, while it is read and written, so that the former DEKs can be
 * destroyed: then nothing that was ever encrypted under them can be read again, here or in a copy.
 *
 * Order: a new DEK version → log and projection are built beside the present ones, and catch up until little is left → the
 * tenant is closed for that little → the journal is emptied → a mark says that the new ones are in force, which is the
 * point of no return → they take their places. Records, offsets, leaves and the Merkle tree are the same; the chain of
 * blocks is a new one. Kept: until the mark the former ones are in force, whole; from then on the new ones, whatever
 * happens: whoever opens the tenant finishes it. Survives: a crash or a full disk at any step; called again it goes on.
 */
import { join } from "node:path";
import { auditTenant, type GovernanceOptions, governanceEvent } from "./administration.ts";
import { KimberliteError, kimberliteError } from "./errors.ts";
import { failpoint } from "./host/failpoint.ts";
import type { TenantKeys } from "./keys/tenant-keys.ts";
import { type Block, isHollow, openSaltedRecords } from "./log/block.ts";
import { LogBuilder } from "./log/log-builder.ts";
import { TenantLog } from "./log/tenant-log.ts";
import type { NodeState } from "./node-state.ts";
import { copyFile, findBase, nextBaseName, projectionFolder, syncFile } from "./pipeline/projection-base.ts";
import { removeProjection } from "./pipeline/recovery.ts";
import {
  encodeReencryptionMark,
  finishReencryption,
  REENCRYPTED_LOG,
  REENCRYPTION_MARK,
  readReencryptionMark,
  UNFINISHED_BASE,
} from "./pipeline/reencryption-mark.ts";
import { type ReplayParts, replayInto } from "./pipeline/replay-into.ts";
import { refuseIfAborted, Turns } from "./portability/turns.ts";
import { rekeyFile } from "./projection/connection.ts";
import { isProjectionDamage } from "./projection/sqlite-error.ts";
import { parseCallback, parseOptions, parseSignal } from "./tenant/call-options.ts";
import type { TenantId } from "./tenant/tenant-id.ts";

export interface ReencryptOptions extends GovernanceOptions {
  /** True to destroy the former DEK versions afterwards. Backups from before are then unreadable. */
  readonly destroyFormerKeys?: boolean;
  readonly onProgress?: (progress: ReencryptProgress) => void;
  readonly signal?: AbortSignal;
}

export interface ReencryptProgress {
  readonly doneRecords: bigint;
  readonly totalRecords: bigint;
}

export interface ReencryptReport {
  /** DEK version that everything is under now. */
  readonly dekVersion: number;
  readonly records: bigint;
  /** DEK versions that were destroyed. */
  readonly destroyed: readonly number[];
}

const SYNC_BYTES = 64 * 1024 * 1024;
/** What is left to do while the tenant is closed. */
const LITTLE_RECORDS = 200n;
const MAX_ROUNDS = 20;

/** @throws as `Kimberlite.reencryptTenant` */
export async function reencryptTenant(
  node: NodeState,
  id: TenantId,
  options: ReencryptOptions | undefined,
): Promise<ReencryptReport> {
  const given = parseOptions(options);
  const { destroyFormerKeys = false } = given;
  if (typeof destroyFormerKeys !== "boolean")
    throw kimberliteError("invalid_argument", "destroyFormerKeys is true or false");
  const onProgress = parseCallback(given.onProgress, "onProgress");
  const signal = parseSignal(given.signal);
  refuseIfAborted(signal);
  node.directory.get(id);
  const event = governanceEvent(id, {
    action: "key.reencrypt",
    options: given,
    detail: { destroyFormerKeys },
  });
  await node.directory.note(await auditTenant(node, id, { ...event, outcome: "began" }));
  const requireGoingOn = (): void => {
    refuseIfAborted(signal);
    node.directory.get(id);
  };
  return node.maintain(id, async () => {
    const done = await writeAnew(node, id, { requireGoingOn, onProgress });
    const destroyed = destroyFormerKeys ? await destroyFormer(node, id, done.dekVersion) : [];
    await node.directory.note({ ...event, detail: { ...event.detail, dekVersion: done.dekVersion } });
    return { ...done, destroyed };
  });
}

export interface WriteAnewOptions {
  /** Asked at each turn; what it throws ends the work, which can be gone on with. */
  readonly requireGoingOn: () => void;
  readonly onProgress: ReencryptOptions["onProgress"];
  /** Records to leave out, from the first on: the end of a block. What was left out before stays out. */
  readonly trimBefore?: bigint;
}

/** Writes a tenant's log and projection anew; nothing else happens to its files meanwhile (`NodeState.maintain`). */
export function writeAnew(
  node: NodeState,
  id: TenantId,
  options: WriteAnewOptions,
): Promise<Omit<ReencryptReport, "destroyed">> {
  return new Reencryption(node, id, options).run();
}

class Reencryption {
  readonly #node: NodeState;
  readonly #id: TenantId;
  readonly #folder: string;
  readonly #onProgress: ReencryptOptions["onProgress"];
  readonly #requireGoingOn: () => void;
  readonly #turns: Turns;
  #trimBefore: bigint;

  constructor(node: NodeState, id: TenantId, options: WriteAnewOptions) {
    this.#node = node;
    this.#id = id;
    this.#folder = join(node.root, "tenants", id.toString());
    this.#requireGoingOn = options.requireGoingOn;
    this.#onProgress = options.onProgress;
    this.#turns = new Turns(options.requireGoingOn);
    const present = findBase({ ...node, tenant: id })?.size ?? 0n;
    const wanted = options.trimBefore ?? 0n;
    this.#trimBefore = wanted > present ? wanted : present;
  }

  async run(): Promise<Omit<ReencryptReport, "destroyed">> {
    const version = await this.#begin();
    if (version === undefined) {
      const dekVersion = await this.#node.tenants.use(this.#id, (engine) => engine.pipeline.rotateDek());
      return { dekVersion, records: 0n };
    }
    const builder = this.#openBuilder();
    try {
      for (let round = 0; round < MAX_ROUNDS; round += 1) {
        const behind = await this.#catchUp(builder, version);
        if (behind <= LITTLE_RECORDS) break;
      }
      await this.#node.tenants.exclusively(this.#id, () => this.#cutOver(builder, version));
    } finally {
      builder.close();
    }
    return { dekVersion: version, records: builder.head.nextOffset };
  }

  /** @returns the version to go on with; undefined for a tenant without a log */
  async #begin(): Promise<number | undefined> {
    const { disk, tenants } = this.#node;
    const left = readReencryptionMark(disk, this.#folder);
    return tenants.use(this.#id, async (engine) => {
      if (engine.log.nextOffset === 0n) return undefined;
      const same = left?.trimmed === this.#trimBefore.toString();
      if (left !== undefined && same && left.version === engine.keys.current.version) return left.version;
      this.#discard();
      const version = await engine.pipeline.rotateDek();
      await disk.replaceFile(this.#markPath, this.#mark(version, false));
      return version;
    });
  }

  #mark(version: number, inForce: boolean): Buffer {
    return encodeReencryptionMark({ version, inForce, trimmed: this.#trimBefore.toString() });
  }

  /**
   * The base of the new projection: the present one under the new key, brought to where the records will begin.
   *
   * @throws `disk_full`, `disk_failed`, `log_damaged`
   */
  async #makeBase(keys: TenantKeys, version: number): Promise<void> {
    const size = this.#trimBefore;
    const place = { ...this.#node, tenant: this.#id };
    if (size === 0n || this.#node.disk.has(this.#basePath(version))) return;
    const folder = projectionFolder(this.#node.root, this.#id);
    const unfinished = join(folder, UNFINISHED_BASE);
    removeProjection(this.#node.disk, unfinished);
    const present = findBase(place);
    const { key } = keys.projectionKey(version);
    if (present !== undefined) {
      await copyFile(this.#node.disk, present.path, unfinished);
      rekeyFile(unfinished, { from: keys.projectionKey(present.version).key, to: key });
    }
    const log = TenantLog.open({ ...this.#node.logOptions(this.#id), root: this.#node.root });
    try {
      await replayInto(this.#replayParts(keys), { log, path: unfinished, key, version, untilOffset: size });
    } finally {
      log.close();
    }
    await syncFile(this.#node.disk, unfinished);
    this.#node.disk.move(unfinished, this.#basePath(version));
    this.#node.disk.syncFolder(folder);
  }

  #basePath(version: number): string {
    const folder = projectionFolder(this.#node.root, this.#id);
    return join(folder, nextBaseName(this.#trimBefore, version));
  }

  /** What an earlier call built is continued, unless a crash left it with a hole. */
  #openBuilder(): LogBuilder {
    const options = { ...this.#node.logOptions(this.#id), folder: this.#builtFolder };
    try {
      return new LogBuilder(options);
    } catch (error) {
      if (!(error instanceof KimberliteError) || error.code !== "log_damaged") throw error;
      this.#node.disk.removeFolder(this.#builtFolder);
      return new LogBuilder(options);
    }
  }

  #discard(): void {
    const { disk, root } = this.#node;
    disk.removeFolder(this.#builtFolder);
    const projections = projectionFolder(root, this.#id);
    for (const name of disk.list(projections))
      if (name.endsWith(".next")) disk.removeFile(join(projections, name));
    disk.removeFile(this.#markPath);
  }

  get #builtFolder(): string {
    return join(this.#folder, REENCRYPTED_LOG);
  }

  get #markPath(): string {
    return join(this.#folder, REENCRYPTION_MARK);
  }

  /** Builds up to where the log ends now, log first. @returns how many records came meanwhile */
  #catchUp(builder: LogBuilder, version: number): Promise<bigint> {
    return this.#node.tenants.use(this.#id, async (engine) => {
      const { log, keys } = engine;
      await this.#makeBase(keys, version);
      const until = log.nextOffset;
      let unsynced = 0;
      for (const block of log.blocks(builder.head.nextOffset)) {
        if (block.header.firstOffset >= until) break;
        this.#addBlock(builder, block, { keys, version });
        unsynced += block.totalBytes;
        if (unsynced >= SYNC_BYTES) {
          await builder.sync();
          unsynced = 0;
        }
        if (!this.#turns.over) continue;
        this.#onProgress?.({ doneRecords: builder.head.nextOffset, totalRecords: until });
        await this.#turns.next();
        engine.requireOpen();
      }
      await builder.sync();
      failpoint("reencrypt-after-log");
      await this.#buildProjection(keys, version, until);
      this.#onProgress?.({ doneRecords: builder.head.nextOffset, totalRecords: until });
      return log.nextOffset - until;
    });
  }

  /** From what was built, so that it is known to be what it is built from. */
  async #buildProjection(keys: TenantKeys, version: number, untilOffset: bigint): Promise<void> {
    const { root } = this.#node;
    const log = TenantLog.open({ ...this.#node.logOptions(this.#id), root, folder: this.#builtFolder });
    const path = join(projectionFolder(root, this.#id), `${version}.db`);
    try {
      const { key } = keys.projectionKey(version);
      const size = this.#trimBefore;
      const base = size === 0n ? undefined : { path: this.#basePath(version), size };
      await replayInto(this.#replayParts(keys), { log, path, key, base, untilOffset });
    } catch (error) {
      // What was built of it is no use: the next call begins it anew.
      if (isProjectionDamage(error)) removeProjection(this.#node.disk, path);
      throw error;
    } finally {
      log.close();
    }
  }

  #replayParts(keys: TenantKeys): ReplayParts {
    const { root, disk, randomness, limits, lanes } = this.#node;
    // At each turn: the tenant may be erased meanwhile.
    const requireGoingOn = this.#requireGoingOn;
    return { tenant: this.#id, root, disk, randomness, keys, limits, lanes, requireGoingOn };
  }

  #addBlock(
    builder: LogBuilder,
    block: Block,
    under: { readonly keys: TenantKeys; readonly version: number },
  ): void {
    const { firstOffset, count } = block.header;
    const leftOut = isHollow(block.header) || firstOffset + BigInt(count) <= this.#trimBefore;
    if (leftOut) builder.addHollow(block);
    else sealAnew(builder, block, under);
  }

  /** The tenant is closed, and nobody opens it. */
  async #cutOver(builder: LogBuilder, version: number): Promise<void> {
    const { disk, root, journal } = this.#node;
    this.#requireGoingOn();
    await this.#node.withKeys(this.#id, async (keys) => {
      await journal.settle(this.#id);
      const log = TenantLog.open({ ...this.#node.logOptions(this.#id), root });
      try {
        for (const block of log.blocks(builder.head.nextOffset))
          this.#addBlock(builder, block, { keys, version });
        await builder.sync();
        await this.#buildProjection(keys, version, log.nextOffset);
      } finally {
        log.close();
      }
      // What the journal has of the tenant belongs into the former log: written into the new one, it would damage it.
      await journal.release(this.#id);
      failpoint("reencrypt-before-mark");
      await disk.replaceFile(this.#markPath, this.#mark(version, true));
      failpoint("reencrypt-after-mark");
      await finishReencryption({ disk, root, tenant: this.#id }, keys);
    });
  }
}

/** The records of a block, sealed under another key; everything else of it stays. */
function sealAnew(
  builder: LogBuilder,
  block: Block,
  { keys, version }: { readonly keys: TenantKeys; readonly version: number },
): void {
  const { dekVersion, epoch, timeUs, withSubjects } = block.header;
  const salted = openSaltedRecords(block, keys.logKey(dekVersion));
  builder.add({
    records: salted.map(({ record }) => record),
    salts: salted.map(({ salt }) => salt),
    timeUs,
    epoch,
    withSubjects,
    key: keys.logKey(version),
    dekVersion: version,
  });
}

/** Destroys the DEK versions that nothing is under any more. */
export async function destroyFormer(
  node: NodeState,
  id: TenantId,
  version: number,
): Promise<readonly number[]> {
  return node.tenants.use(id, (engine) => engine.keys.destroyDeksBefore(version));
}
