import { createSecretKey, type KeyObject } from "node:crypto";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemDisk } from "../host/disk.ts";
import { systemRandomness } from "../host/randomness.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { openBlock } from "./block.ts";
import { encodeRecord } from "./record.ts";
import { listSegments, logFolder, segmentPath } from "./segment.ts";
import { type LogHead, TenantLog } from "./tenant-log.ts";
import { type VerifyReport, verifyLog } from "./verify.ts";

const TENANT = TenantId(3);
const KEY: KeyObject = createSecretKey(Buffer.alloc(32, 1));
const SEGMENT_BYTES = 2_000;

let root: string;
let folder: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "kimberlite-log-"));
  folder = logFolder(root, TENANT);
  systemDisk.makeFolder(folder);
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function open(head?: LogHead): TenantLog {
  const randomness = systemRandomness();
  return TenantLog.open({
    tenant: TENANT,
    root,
    disk: systemDisk,
    randomness,
    head,
    segmentMaxBytes: SEGMENT_BYTES,
  });
}

function append(log: TenantLog, sizes: readonly number[]): void {
  const records = sizes.map((size, index) =>
    encodeRecord({
      offset: log.nextOffset + BigInt(index),
      timeUs: 1n,
      actor: "a".repeat(size),
      changes: [],
    }),
  );
  log.advance(log.prepare({ records, key: KEY, dekVersion: 1, epoch: 0n, timeUs: 1n }));
}

function verify(untilOffset?: bigint): Promise<VerifyReport> {
  return verifyLog({ disk: systemDisk, folder, tenant: TENANT, keyOf: () => KEY, untilOffset });
}

function recordsOf(log: TenantLog, from: bigint): number {
  return [...log.blocks(from)].flatMap((block) => openBlock(block, KEY)).length;
}

/** Names, with what each segment begins with. */
function segments(): bigint[] {
  return listSegments(systemDisk, folder);
}

describe("a log that rolls over", () => {
  it("goes on in another segment, is read across them from any offset, and opens with and without its head", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(fc.nat(1_500), { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 25 }),
        async (batches) => {
          rmSync(folder, { recursive: true });
          systemDisk.makeFolder(folder);
          const log = open();
          for (const sizes of batches) append(log, sizes);
          const count = batches.flat().length;
          for (const reopened of [log, open(), open(log.head)]) {
            expect(reopened.head).toEqual(log.head);
            expect(reopened.frontier().root()).toEqual(log.frontier().root());
            for (let from = 0; from <= count; from += 3) {
              const [first] = [...reopened.blocks(BigInt(from))];
              expect(recordsOf(reopened, BigInt(first?.header.firstOffset ?? from))).toBe(
                count - Number(first?.header.firstOffset ?? count),
              );
            }
          }
          for (const first of segments()) {
            const oneBlock = [...log.blocks(first)].filter((block) => block.header.firstOffset === first)[0];
            const size = statSync(segmentPath(folder, first)).size;
            expect(size <= SEGMENT_BYTES || size <= (oneBlock?.totalBytes ?? 0) + 2_200).toBe(true);
          }
          const bytes = segments().reduce((sum, first) => sum + statSync(segmentPath(folder, first)).size, 0);
          expect(log.head.totalBytes).toBe(bytes);
          expect(await verify(log.nextOffset)).toMatchObject({
            ok: true,
            size: log.nextOffset,
            root: log.frontier().root(),
          });
          log.close();
        },
      ),
      { numRuns: 30 },
    );
  });

  it("says before exactly how much it will grow", () => {
    const log = open();
    for (let index = 0; index < 30; index += 1) {
      const records = [
        encodeRecord({ offset: log.nextOffset, timeUs: 1n, actor: "a".repeat(400), changes: [] }),
      ];
      const before = log.head.totalBytes;
      const growth = log.growthBytes(1, records[0]?.length ?? 0);
      log.advance(log.prepare({ records, key: KEY, dekVersion: 1, epoch: 0n, timeUs: 1n }));
      expect(log.head.totalBytes - before).toBe(growth);
    }
    expect(segments().length).toBeGreaterThan(5);
  });

  it("goes on from an older head over the segments that came after it", () => {
    const log = open();
    const heads: LogHead[] = [];
    for (let index = 0; index < 20; index += 1) {
      append(log, [300]);
      heads.push(log.head);
    }
    for (const head of heads) expect(open(head).head).toEqual(log.head);
  });

  it("does not move when what was prepared is not durable, also at the roll", () => {
    const log = open();
    append(log, [1_500]);
    const before = log.head;
    log.prepare({ records: [Buffer.alloc(1_000)], key: KEY, dekVersion: 1, epoch: 0n, timeUs: 1n });
    expect(log.head).toBe(before);
    expect(segments()).toEqual([0n]);
    append(log, [1_500]);
    expect(segments()).toEqual([0n, 1n]);
  });
});

describe("the first segment", () => {
  it("is there whole before the first block, and the log is empty still", async () => {
    const log = open();
    await log.makeFirstSegment();
    await log.makeFirstSegment();
    const bare = readFileSync(segmentPath(folder, 0n));
    const reopened = open();
    expect(reopened.nextOffset).toBe(0n);
    await reopened.makeFirstSegment();
    expect(await verify(0n)).toMatchObject({ ok: true, size: 0n });
    for (const each of [log, reopened]) {
      writeFileSync(segmentPath(folder, 0n), bare);
      append(each, [10, 10]);
      append(each, [3_000]);
      expect(open().head).toEqual(each.head);
      expect(await verify(3n)).toMatchObject({ ok: true, size: 3n });
      for (const first of segments().slice(1)) rmSync(segmentPath(folder, first));
    }
  });

  it("takes a block that is larger than a segment, and is not begun twice", async () => {
    await open().makeFirstSegment();
    const log = open();
    append(log, [SEGMENT_BYTES * 2]);
    append(log, [10]);
    expect(segments()).toEqual([0n, 1n]);
    expect(recordsOf(open(), 0n)).toBe(2);
    expect(await verify(2n)).toMatchObject({ ok: true });
  });
});

describe("a log that was interrupted or damaged", () => {
  it("is cut back to its last whole block, wherever the last one is torn", () => {
    const log = open();
    append(log, [100]);
    const kept = log.head;
    append(log, [100]);
    const whole = readFileSync(segmentPath(folder, 0n));
    for (let length = kept.position; length < whole.length; length += 7) {
      writeFileSync(segmentPath(folder, 0n), whole.subarray(0, length));
      expect(open(kept).head).toEqual(kept);
      expect(statSync(segmentPath(folder, 0n)).size).toBe(kept.position);
    }
    writeFileSync(
      segmentPath(folder, 0n),
      Buffer.concat([whole.subarray(0, kept.position), Buffer.alloc(300)]),
    );
    expect(open().head).toEqual(kept);
  });

  it("is refused when it ends before its head, or lacks a segment", () => {
    const log = open();
    for (let index = 0; index < 12; index += 1) append(log, [300]);
    const damaged = expect.objectContaining({ code: "log_damaged" });
    const [, second] = segments();
    const last = segments().at(-1) as bigint;
    const bytes = readFileSync(segmentPath(folder, last));
    truncateSync(segmentPath(folder, last), bytes.length - 1);
    expect(() => open(log.head)).toThrow(damaged);
    rmSync(segmentPath(folder, last));
    expect(() => open(log.head)).toThrow(damaged);
    writeFileSync(segmentPath(folder, last), bytes);
    rmSync(segmentPath(folder, second as bigint));
    const reopened = open(log.head);
    expect(() => recordsOf(reopened, 0n)).toThrow(damaged);
    rmSync(segmentPath(folder, 0n));
    expect(() => open()).toThrow(damaged);
    expect(readdirSync(folder).length).toBeGreaterThan(1);
  });
});
