/**
 * The records of one batch: made from what callers changed, and checked, inside the savepoint of each, so that what is
 * too large or over quota undoes that caller alone.
 */
import { assert, kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import type { Randomness } from "../host/randomness.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import { recordCostBytes } from "../log/block.ts";
import { type Change, encodeRecord, isAboutSubjects } from "../log/record.ts";
import type { TenantLog } from "../log/tenant-log.ts";
import type { StatementLimits } from "../projection/connection.ts";
import { noteEvents, noteSubject } from "../projection/replay.ts";
import type { ProjectionWriter } from "../projection/writer.ts";
import type { QuotaGate } from "../quota/quota-gate.ts";
import { sealRows } from "./subject-seal.ts";

/** Who asked, and under which names. */
export interface CallContext {
  readonly actor: string;
  readonly correlationId?: string | undefined;
  readonly idempotencyKey?: string | undefined;
  /** True for records of the system's own, such as audit: no storage quota refuses them. */
  readonly unmetered?: boolean;
  /** Name of the subject whose erasure it is. */
  readonly erasing?: Uint8Array | undefined;
}

export interface BatchParts {
  readonly log: TenantLog;
  readonly writer: ProjectionWriter;
  readonly keys: TenantKeys;
  readonly randomness: Randomness;
  readonly clock: Clock;
  readonly gate: QuotaGate;
  readonly limits: StatementLimits;
  readonly pageSize: number;
}

interface Accepted<Job> {
  readonly job: Job;
  readonly value: unknown;
  /** Undefined if it changed nothing: then it has no record. */
  readonly offset: bigint | undefined;
}

/** What a record holds beside its changes. */
const RECORD_HEADROOM_BYTES = 4096;

export class Batch<Job> {
  readonly records: Buffer[] = [];
  readonly accepted: Accepted<Job>[] = [];
  recordBytes = 0;
  /** True once a record of it is about subjects. */
  withSubjects = false;
  /** Commit time of all its records: never before that of an earlier block. */
  readonly timeUs: bigint;
  readonly #parts: BatchParts;

  constructor(parts: BatchParts) {
    this.#parts = parts;
    const now = parts.clock.wallTimeUs();
    const last = parts.log.head.lastTimeUs;
    this.timeUs = now > last ? now : last;
  }

  /**
   * Makes the record of a caller's changes. Call it inside the caller's savepoint: throwing undoes the caller.
   *
   * @returns the record's offset; undefined without changes
   * @throws `transaction_too_large`, `quota_exceeded`
   */
  accept(context: CallContext, changes: readonly Change[]): bigint | undefined {
    if (changes.length === 0) return undefined;
    const { log, writer } = this.#parts;
    const offset = log.nextOffset + BigInt(this.records.length);
    for (const change of changes) {
      if (change.kind === "events") {
        noteEvents(writer.bookkeeping, { offset, idempotencyKey: context.idempotencyKey }, change);
      } else if (change.kind === "declare-subject" || change.kind === "erase-subject") {
        noteSubject(writer.bookkeeping, offset, change);
      }
    }
    const sealed = this.seal(context, offset, changes);
    const record = encodeRecord({ offset, timeUs: this.timeUs, ...context, changes: sealed });
    this.take(record, { metered: context.unmetered !== true });
    return offset;
  }

  /** The changes as the record at that offset holds them. @throws `overloaded` */
  seal(context: CallContext, offset: bigint, changes: readonly Change[]): readonly Change[] {
    const { keys, randomness } = this.#parts;
    if (!keys.hasSubjects || !changes.some(isAboutSubjects)) return changes;
    this.withSubjects = true;
    return sealRows(changes, { subjects: keys.subjects, randomness, offset, erasing: context.erasing });
  }

  /**
   * Adds a record.
   *
   * `pages` of the projection as the caller leaves it are asked of the writer unless given.
   *
   * @throws `transaction_too_large`, `quota_exceeded`
   */
  take(record: Buffer, given: { readonly pages?: number; readonly metered?: boolean } = {}): void {
    const { limits } = this.#parts;
    if (record.length > limits.maxTransactionBytes + RECORD_HEADROOM_BYTES) {
      throw kimberliteError(
        "transaction_too_large",
        "the transaction changes more than one record may hold",
        {
          detail: { maxTransactionBytes: limits.maxTransactionBytes, bytes: record.length },
        },
      );
    }
    if (given.metered !== false) this.#checkStorage(record.length, given.pages);
    this.records.push(record);
    this.recordBytes += record.length;
  }

  #checkStorage(recordBytes: number, pages: number | undefined): void {
    const { gate, log, writer, pageSize } = this.#parts;
    const { maxLogBytes, maxProjectionBytes } = gate.quota;
    if (maxLogBytes === undefined && maxProjectionBytes === undefined) return;
    const growth = log.growthBytes(this.records.length + 1, this.recordBytes + recordBytes);
    assert(growth >= recordCostBytes(recordBytes), "a block is larger than its record");
    gate.checkStorage({
      logBytes: log.head.totalBytes + growth,
      projectionBytes: maxProjectionBytes === undefined ? 0 : (pages ?? writer.pageCount()) * pageSize,
    });
  }
}
