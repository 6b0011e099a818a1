/**
 * Writes a log anew from records that have their salts already: the same offsets, leaves and Merkle tree, under other keys
 * or in another place. The chain of blocks is a new one.
 *
 * Kept: what is built is no tenant's log until its folder is put in place; after `finish` all of it is durable.
 */
import type { KeyObject } from "node:crypto";
import type { Disk } from "../host/disk.ts";
import type { Randomness } from "../host/randomness.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { Block } from "./block.ts";
import { listSegments, segmentPath } from "./segment.ts";
import { type LogHead, TenantLog } from "./tenant-log.ts";

export interface BuiltBlock {
  readonly records: readonly Uint8Array[];
  readonly salts: readonly Uint8Array[];
  readonly timeUs: bigint;
  readonly epoch: bigint;
  readonly key: KeyObject;
  readonly dekVersion: number;
  readonly withSubjects?: boolean;
}

export interface LogBuilderOptions {
  readonly tenant: TenantId;
  /** Where the segments go; made if it is absent. What an earlier build left there is continued. */
  readonly folder: string;
  readonly disk: Disk;
  readonly randomness: Randomness;
  readonly segmentMaxBytes?: number | undefined;
}

export class LogBuilder {
  readonly #options: LogBuilderOptions;
  readonly #log: TenantLog;
  readonly #touched: Set<bigint> = new Set();

  /** @throws `log_damaged` for a folder with something else than the beginning of a build; `disk_full`, `disk_failed` */
  constructor(options: LogBuilderOptions) {
    this.#options = options;
    options.disk.makeFolder(options.folder);
    this.#log = TenantLog.open({ ...options, root: "" });
    // So that the tree grows with the blocks, and is not read again from them at the end.
    this.#log.frontier();
  }

  get head(): LogHead {
    return this.#log.head;
  }

  /** Merkle root over the records so far. */
  root(): Buffer {
    return this.#log.frontier().root();
  }

  /** Appends a block; not yet durable. @throws `disk_full`, `disk_failed` */
  add(block: BuiltBlock): void {
    const prepared = this.#log.prepare(block);
    this.#log.advance(prepared);
    this.#touched.add(prepared.entry.segment);
  }

  /** Appends a block without its records. @throws `disk_full`, `disk_failed` */
  addHollow(block: Block): void {
    const prepared = this.#log.prepareHollow(block);
    this.#log.advance(prepared);
    this.#touched.add(prepared.entry.segment);
  }

  /** Makes what was added since the last time durable. @throws `disk_full`, `disk_failed` */
  async sync(): Promise<void> {
    const { disk, folder } = this.#options;
    for (const segment of this.#touched) {
      const file = disk.open(segmentPath(folder, segment), "update");
      try {
        await file.sync();
      } finally {
        file.close();
      }
    }
    this.#touched.clear();
    if (listSegments(disk, folder).length > 0) disk.syncFolder(folder);
  }

  close(): void {
    this.#log.close();
  }
}
