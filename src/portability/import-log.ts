/**
 * The log of an imported tenant: the records of its export with their salts, sealed under keys of this installation. Its
 * Merkle tree is that of the export, so every proof and checkpoint about the tenant still holds.
 */
import type { KeyObject } from "node:crypto";
import { kimberliteError } from "../errors.ts";
import type { LogBuilder } from "../log/log-builder.ts";
import { decodeRecord, isAboutSubjects, type LogRecord } from "../log/record.ts";
import type { ExportedRecord } from "./export-reader.ts";
import type { Turns } from "./turns.ts";

const BLOCK_RECORDS = 1_000;
const BLOCK_BYTES = 4 * 1024 * 1024;

/** What a build needs beside the records. */
export interface ImportTask {
  readonly builder: LogBuilder;
  readonly key: KeyObject;
  readonly dekVersion: number;
  readonly turns: Turns;
  readonly onRecords: (done: bigint) => void;
  /** Sees each record before it is sealed; what it throws ends the import. */
  readonly onRecord?: ((record: LogRecord) => void) | undefined;
}

/** Builds the log, durable when it resolves. Records of one commit time share a block. @throws `export_invalid`, `disk_full` */
export async function importRecords(records: Iterable<ExportedRecord>, task: ImportTask): Promise<void> {
  const { builder, turns } = task;
  let block: ExportedRecord[] = [];
  let bytes = 0;
  let timeUs = 0n;
  let withSubjects = false;
  let next = builder.head.nextOffset;
  const flush = (): void => {
    if (block.length === 0) return;
    builder.add({
      records: block.map(({ record }) => record),
      salts: block.map(({ salt }) => salt),
      timeUs,
      withSubjects,
      epoch: 0n,
      key: task.key,
      dekVersion: task.dekVersion,
    });
    block = [];
    bytes = 0;
    withSubjects = false;
  };
  for (const one of records) {
    const record = decodeRecord(one.record);
    if (record.offset !== next || record.timeUs < timeUs) {
      throw kimberliteError("export_invalid", `record ${next} of the export is out of order`, {
        detail: { offset: next },
      });
    }
    if (record.timeUs !== timeUs || block.length >= BLOCK_RECORDS || bytes >= BLOCK_BYTES) flush();
    timeUs = record.timeUs;
    withSubjects ||= record.changes.some(isAboutSubjects);
    task.onRecord?.(record);
    block.push(one);
    bytes += one.record.length;
    next += 1n;
    if (!turns.over) continue;
    task.onRecords(next);
    await turns.next();
  }
  flush();
  await builder.sync();
  task.onRecords(next);
}
