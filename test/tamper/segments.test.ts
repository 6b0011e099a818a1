/** I-6 for logs of several segments: removed, exchanged, renamed, repeated and foreign segments are found. */
import * as fs from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Kimberlite } from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";
import { expectBad, expectCode } from "./expectations.ts";
import { A, B } from "./hospitals.ts";

const LOG_SEGMENT_BYTES = 8_192;
const EVENT_BYTES = 3_000;
const EVENTS = 6;

let scratch: Scratch;
let firsts: bigint[];
let size: bigint;

beforeAll(async () => {
  scratch = new Scratch();
  await withSmallSegments(async (db) => {
    for (const id of [A, B]) await db.createTenant({ id, name: `hospital ${id}` });
    await db.execute(B, "CREATE TABLE t (a)");
    const scans = await db.createStream(A, "scans");
    for (let index = 0; index < EVENTS; index += 1)
      await db.append(A, scans, [Buffer.alloc(EVENT_BYTES, index)]);
    size = (await db.describeTenant(A)).size;
  });
  scratch.forgetJournal();
  firsts = fs.readdirSync(scratch.logFolder(A)).map((name) => BigInt(name.slice(0, 20)));
});

afterAll(() => scratch[Symbol.asyncDispose]());

const withSmallSegments = <T>(work: (db: Kimberlite) => Promise<T>): Promise<T> =>
  scratch.with(work, { logSegmentBytes: LOG_SEGMENT_BYTES });
const first = (index: number): bigint => firsts[index] as bigint;
const path = (index: number): string => scratch.segment(A, first(index));
const exchange = (one: string, other: string): void => {
  fs.renameSync(one, `${one}.aside`);
  fs.renameSync(other, one);
  fs.renameSync(`${one}.aside`, other);
};

describe("a log of several segments", () => {
  it("verifies as it is, also after its projection was removed", async () => {
    expect(firsts.length).toBeGreaterThanOrEqual(3);
    fs.rmSync(scratch.projection(A), { recursive: true });
    await withSmallSegments(async (db) => {
      const report = await db.verifyTenant(A);
      expect(report).toMatchObject({ ok: true, size, segments: firsts.length });
      expect((await db.describeTenant(A)).logBytes).toBe(report.bytes);
    });
  });

  /** Each: damage, the first bad offset, the way back. */
  const cases: readonly (readonly [string, () => void, () => bigint, () => void])[] = [
    [
      "whose middle segment is gone",
      () => fs.renameSync(path(1), `${path(1)}.aside`),
      () => first(1),
      () => fs.renameSync(`${path(1)}.aside`, path(1)),
    ],
    [
      "whose first segment is gone",
      () => fs.renameSync(path(0), `${path(0)}.aside`),
      () => 0n,
      () => fs.renameSync(`${path(0)}.aside`, path(0)),
    ],
    [
      "whose last segment is gone",
      () => fs.renameSync(path(-1 + firsts.length), `${path(0)}.aside`),
      () => first(firsts.length - 1),
      () => fs.renameSync(`${path(0)}.aside`, path(firsts.length - 1)),
    ],
    [
      "with two segments exchanged",
      () => exchange(path(0), path(1)),
      () => 0n,
      () => exchange(path(0), path(1)),
    ],
    [
      "with a segment under another offset",
      () => fs.renameSync(path(1), scratch.segment(A, first(1) + 1n)),
      () => first(1),
      () => fs.renameSync(scratch.segment(A, first(1) + 1n), path(1)),
    ],
    [
      "with a segment too many",
      () => fs.copyFileSync(scratch.segment(B), scratch.segment(A, size)),
      () => size,
      () => fs.rmSync(scratch.segment(A, size)),
    ],
  ];

  it.each(cases)("%s is found by verification", async (_name, damage, offset, mend) => {
    damage();
    try {
      await withSmallSegments((db) => expectBad(db, A, offset()));
      fs.rmSync(scratch.projection(A), { recursive: true });
      // Without its projection a log that lacks its last segment is a shorter log, for checkpoints alone to find.
      if (offset() !== first(firsts.length - 1)) {
        await withSmallSegments(async (db) => {
          await expectCode("log_damaged", () => db.query(A, "SELECT 1"));
          await expectBad(db, A, offset());
          expect(await db.query(B, "SELECT count(*) n FROM t")).toEqual([{ n: 0 }]);
        });
      }
    } finally {
      mend();
    }
    await withSmallSegments(async (db) => expect((await db.verifyTenant(A)).ok).toBe(true));
  });
});
