/**
 * I-6: blocks and whole logs that were removed, repeated, exchanged, cut off, put back or transplanted are found by
 * verification, halt their tenant where they are touched, and nobody else.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Kimberlite } from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";
import { expectBad, expectCode } from "./expectations.ts";
import { A, B, fillHospitals, type View, viewOf } from "./hospitals.ts";
import { type BlockPlace, segmentLayout } from "./layout.ts";

let scratch: Scratch;
let early: string;
let saved: string;
let original: Buffer;
let blocks: BlockPlace[];
let views: { readonly a: View; readonly b: View };
let earlyCheckpoint: string;
let checkpoint: string;
let size: bigint;

beforeAll(async () => {
  scratch = new Scratch();
  await scratch.with(async (db) => {
    await fillHospitals(db);
    earlyCheckpoint = await db.checkpoint(A);
  });
  early = scratch.save("early");
  await scratch.with(async (db) => {
    for (const id of [A, B]) {
      await db.insert(id, "patients", { id: 50, name: "later" });
      await db.insert(id, "patients", { id: 51, name: "last" });
    }
    checkpoint = await db.checkpoint(A);
    views = { a: await viewOf(db, A), b: await viewOf(db, B) };
    size = (await db.describeTenant(A)).size;
  });
  saved = scratch.save();
  original = fs.readFileSync(scratch.segment(A));
  blocks = segmentLayout(original).blocks;
});

beforeEach(() => scratch.restore(saved));
afterAll(() => scratch[Symbol.asyncDispose]());

const bytesOf = (block: BlockPlace): Buffer =>
  original.subarray(block.position, block.position + block.length);
const header = (): Buffer => original.subarray(0, blocks[0]?.position);
const put = (chosen: readonly BlockPlace[]): void =>
  fs.writeFileSync(scratch.segment(A), Buffer.concat([header(), ...chosen.map(bytesOf)]));
const dropProjection = (): void => fs.rmSync(scratch.projection(A), { recursive: true });
const block = (index: number): BlockPlace => blocks.at(index) as BlockPlace;

/** The tenant does not open, verification says where, and the other tenant is as it was. */
async function expectHalted(db: Kimberlite, offset: bigint): Promise<void> {
  for (const work of [
    () => db.query(A, "SELECT * FROM patients"),
    () => db.execute(A, "DELETE FROM patients"),
    () => db.streams(A),
  ]) {
    expect((await expectCode("log_damaged", work)).detail["offset"]).toBe(offset);
  }
  await expectBad(db, A, offset);
  expect(await viewOf(db, B)).toEqual(views.b);
  expect((await db.verifyTenant(B)).ok).toBe(true);
}

describe("blocks of a log, without the projection's help", () => {
  const cases: readonly (readonly [string, () => BlockPlace[], () => bigint])[] = [
    [
      "two exchanged",
      () => [...blocks.slice(0, 3), block(4), block(3), ...blocks.slice(5)],
      () => block(3).firstOffset,
    ],
    ["one removed", () => blocks.filter((_, index) => index !== 3), () => block(3).firstOffset],
    ["the first removed", () => blocks.slice(1), () => 0n],
    ["one repeated", () => [...blocks.slice(0, 4), block(3), ...blocks.slice(4)], () => block(4).firstOffset],
    ["the last repeated", () => [...blocks, block(-1)], () => size],
    [
      "all but the first reversed",
      () => [block(0), ...blocks.slice(1).reverse()],
      () => block(1).firstOffset,
    ],
  ];

  it.each(cases)("%s", async (_name, arrangement, offset) => {
    put(arrangement());
    dropProjection();
    await scratch.with((db) => expectHalted(db, offset()));
  });

  it("another tenant's in the place of one's own", async () => {
    const other = fs.readFileSync(scratch.segment(B));
    const theirs = segmentLayout(other).blocks[3] as BlockPlace;
    const moved = other.subarray(theirs.position, theirs.position + theirs.length);
    const after = original.subarray(block(3).position + block(3).length);
    fs.writeFileSync(
      scratch.segment(A),
      Buffer.concat([original.subarray(0, block(3).position), moved, after]),
    );
    dropProjection();
    await scratch.with((db) => expectHalted(db, block(3).firstOffset));
  });
});

describe("a log that was cut off", () => {
  it.each([0, 1, 5, 200])(
    "%i bytes into its last block but one is found against the projection",
    async (bytes) => {
      fs.truncateSync(scratch.segment(A), block(-2).position + bytes);
      const before = fs.readFileSync(scratch.segment(A));
      await scratch.with((db) => expectHalted(db, block(-2).firstOffset));
      expect(fs.readFileSync(scratch.segment(A)).equals(before)).toBe(true);
    },
  );

  it("in the middle of a block, without its projection, ends at the last whole one: a checkpoint finds it", async () => {
    fs.truncateSync(scratch.segment(A), block(-1).position + 100);
    dropProjection();
    await scratch.with(async (db) => {
      expect(await db.query(A, "SELECT count(*) n FROM patients WHERE id = 51")).toEqual([{ n: 0 }]);
      expect((await db.verifyTenant(A)).ok).toBe(true);
      expect((await db.verifyTenant(A, { checkpoint: earlyCheckpoint })).ok).toBe(true);
      const failure = await expectCode("checkpoint_mismatch", () => db.verifyTenant(A, { checkpoint }));
      expect(failure.detail).toMatchObject({ size: size - 1n, checkpointSize: size });
      await expectCode("offset_out_of_range", () => db.consistencyProof(A, 1, size));
    });
  });

  it("at a block's border and written on differs from the checkpoint of what was there", async () => {
    fs.truncateSync(scratch.segment(A), block(-1).position);
    dropProjection();
    await scratch.with(async (db) => {
      await db.insert(A, "patients", { id: 51, name: "last" });
      expect((await db.describeTenant(A)).size).toBe(size);
      await expectCode("checkpoint_mismatch", () => db.verifyTenant(A, { checkpoint }));
    });
  });

  it("wholly is damage, and not an empty tenant", async () => {
    fs.rmSync(scratch.segment(A));
    await scratch.with((db) => expectHalted(db, 0n));
    dropProjection();
    await scratch.with((db) => expectHalted(db, 0n));
    fs.rmSync(scratch.path("tenants", "1"), { recursive: true });
    await scratch.with((db) => expectHalted(db, 0n));
  });

  it("to nothing, or inside its header, is damage", async () => {
    for (const length of [0, 10, 90]) {
      scratch.restore(saved);
      fs.truncateSync(scratch.segment(A), length);
      await scratch.with((db) => expectHalted(db, 0n));
      dropProjection();
      await scratch.with((db) => expectHalted(db, 0n));
    }
  });
});

describe("a log in the place of another", () => {
  it("of another tenant", async () => {
    fs.copyFileSync(scratch.segment(B), scratch.segment(A));
    await scratch.with((db) => expectHalted(db, 0n));
    dropProjection();
    await scratch.with((db) => expectHalted(db, 0n));
  });

  it("of another tenant, with its projection", async () => {
    for (const folder of ["log", "projection"]) {
      fs.rmSync(scratch.path("tenants", "1", folder), { recursive: true });
      fs.cpSync(scratch.path("tenants", "2", folder), scratch.path("tenants", "1", folder), {
        recursive: true,
      });
    }
    await scratch.with((db) => expectHalted(db, 0n));
  });

  it("of the tenant itself, of an earlier day, is found against the projection", async () => {
    fs.copyFileSync(join(early, "tenants", "1", "log", "00000000000000000000.seg"), scratch.segment(A));
    await scratch.with((db) => expectHalted(db, block(-2).firstOffset));
  });

  it("with its projection of that day, is found against a checkpoint", async () => {
    fs.rmSync(scratch.path("tenants", "1"), { recursive: true });
    fs.cpSync(join(early, "tenants", "1"), scratch.path("tenants", "1"), { recursive: true });
    await scratch.with(async (db) => {
      expect((await db.verifyTenant(A)).ok).toBe(true);
      await expectCode("checkpoint_mismatch", () => db.verifyTenant(A, { checkpoint }));
    });
  });

  it("that went another way from an earlier day on, with the same length, is found against the projection", async () => {
    scratch.restore(early);
    await scratch.with(async (db) => {
      await db.insert(A, "patients", { id: 50, name: "other" });
      await db.insert(A, "patients", { id: 51, name: "diff" });
    });
    const forked = fs.readFileSync(scratch.segment(A));
    expect(forked.length).toBe(original.length);
    scratch.restore(saved);
    fs.writeFileSync(scratch.segment(A), forked);
    await scratch.with((db) => expectHalted(db, size - 1n));
    fs.writeFileSync(scratch.segment(A), original);
    await scratch.with(async (db) => {
      await db.query(A, "SELECT 1");
      fs.writeFileSync(scratch.segment(A), forked);
      await expectBad(db, A, size - 1n);
    });
  });

  it("of another data directory, with the same tenant's id, is found", async () => {
    await using other = new Scratch();
    await other.with(fillHospitals);
    fs.copyFileSync(other.segment(A), scratch.segment(A));
    dropProjection();
    await scratch.with((db) => expectHalted(db, 0n));
  });
});
