/**
 * When a tenant's youngest data was committed: what retention counts from. Records of audit alone are not data, or each
 * refused erasure would put the end of its retention off.
 */

import type { Disk } from "../host/disk.ts";
import type { LogRecord } from "../log/record.ts";
import { listSegments, logFolder } from "../log/segment.ts";
import { TenantLog } from "../log/tenant-log.ts";
import { FIRST_USER_STREAM } from "../projection/bookkeeping.ts";
import { openBlocks } from "./log-records.ts";
import type { TenantEngine } from "./tenant-engine.ts";

/**
 * Commit time of the youngest record with data, in microseconds; undefined for a tenant that has none. Where all of them
 * were trimmed, that of the last that was: what they wrote is in the tables still.
 *
 * Cost: reads segments from the newest back until one has data, which nearly always is the first.
 */
export function youngestDataUs(
  engine: TenantEngine,
  place: { readonly root: string; readonly disk: Disk },
): bigint | undefined {
  const { log, tenant } = engine;
  let until = log.nextOffset;
  for (const first of listSegments(place.disk, logFolder(place.root, tenant)).reverse()) {
    let youngest: bigint | undefined;
    for (const { records } of openBlocks(engine, log, first, "pass over")) {
      for (const record of records) {
        if (record.offset >= first && record.offset < until && isData(record)) youngest = record.timeUs;
      }
      if ((records.at(-1)?.offset ?? 0n) + 1n >= until) break;
    }
    if (youngest !== undefined) return youngest;
    until = first;
  }
  return engine.firstOffset === 0n ? undefined : timeOfBlockAt(log, engine.firstOffset - 1n);
}

/** Commit time of the block that holds a record. */
function timeOfBlockAt(log: TenantLog, offset: bigint): bigint | undefined {
  for (const { header } of log.blocks(offset)) return header.timeUs;
  return undefined;
}

/**
 * Commit time of the last block, which needs no key: no data is younger. Undefined for an empty log.
 *
 * @throws `log_damaged`
 */
export function lastBlockUs(options: Parameters<typeof TenantLog.open>[0]): bigint | undefined {
  const log = TenantLog.open(options);
  try {
    return log.nextOffset === 0n ? undefined : timeOfBlockAt(log, log.nextOffset - 1n);
  } finally {
    log.close();
  }
}

function isData(record: LogRecord): boolean {
  return record.changes.some((change) =>
    "stream" in change ? change.stream >= FIRST_USER_STREAM : change.kind !== "erase-subject",
  );
}
