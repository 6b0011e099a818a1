/**
 * The records of a tenant's log, opened with its keys: decoded here, or as bytes for whoever applies them.
 *
 * Kept: a record is where the header of its block says; rows of erased subjects are none. Keys of subjects stay here.
 */
import { kimberliteError } from "../errors.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import { type Block, isHollow, openBlock, trimmed } from "../log/block.ts";
import { decodeRecord, type LogRecord } from "../log/record.ts";
import type { TenantLog } from "../log/tenant-log.ts";
import type { ReplayPortion } from "../projection/replay-portion.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { openRows } from "./subject-seal.ts";

export interface LogKeys {
  readonly tenant: TenantId;
  readonly keys: TenantKeys;
}

/** Opens blocks of one log. */
export class BlockOpener {
  readonly #parts: LogKeys;
  readonly #log: TenantLog;
  #tombstones: Set<string> | undefined;

  constructor(parts: LogKeys, log: TenantLog) {
    this.#parts = parts;
    this.#log = log;
  }

  /** @throws `log_damaged`, `keys_missing`, `offset_trimmed` */
  records(block: Block): LogRecord[] {
    const { keys, tenant } = this.#parts;
    const { firstOffset, dekVersion } = block.header;
    const records = openBlock(block, keys.logKey(dekVersion))
      .map(decodeRecord)
      .map((record) => openRows(record, keys, this.#isErased));
    for (const [index, record] of records.entries()) {
      if (record.offset !== firstOffset + BigInt(index)) {
        throw kimberliteError("log_damaged", "a record's offset is not its place", {
          detail: { tenant, offset: firstOffset },
        });
      }
    }
    return records;
  }

  /** The records of a block from one offset on and before another. @throws as `records` */
  portion(block: Block, from: bigint, until: bigint): ReplayPortion {
    const { firstOffset, dekVersion, withSubjects } = block.header;
    const skip = from > firstOffset ? Number(from - firstOffset) : 0;
    const end = Number(until - firstOffset);
    if (withSubjects) return { kind: "decoded", records: this.records(block).slice(skip, end) };
    const records = openBlock(block, this.#parts.keys.logKey(dekVersion)).slice(skip, end);
    return { kind: "bytes", firstOffset: firstOffset + BigInt(skip), records };
  }

  readonly #isErased = (subject: Uint8Array): boolean => {
    const { keys } = this.#parts;
    this.#tombstones ??= readTombstones(this.#parts, this.#log);
    if (!this.#tombstones.has(nameOf(subject))) return false;
    keys.subjects.noteErased(subject);
    return true;
  };
}

/**
 * Blocks with their records, opened and checked.
 *
 * @throws `offset_trimmed` for records that were trimmed, unless they are to be passed over
 */
export function* openBlocks(
  parts: LogKeys,
  log: TenantLog,
  from: bigint,
  trimmedOnes: "refuse" | "pass over" = "refuse",
): Generator<{ readonly block: Block; readonly records: LogRecord[] }> {
  const opener = new BlockOpener(parts, log);
  for (const block of log.blocks(from)) {
    if (!isHollow(block.header)) yield { block, records: opener.records(block) };
    else if (trimmedOnes === "refuse") throw trimmed(block.header);
  }
}

/** Subjects that the log says were erased: for a key store that is older than their keys. Cost: reads the whole log. */
function readTombstones({ keys }: LogKeys, log: TenantLog): Set<string> {
  const found = new Set<string>();
  for (const block of log.blocks()) {
    if (isHollow(block.header) || !block.header.withSubjects) continue;
    for (const record of openBlock(block, keys.logKey(block.header.dekVersion)).map(decodeRecord)) {
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
