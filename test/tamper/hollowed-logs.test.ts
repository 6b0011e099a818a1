/**
 * I-6: who holds the disk and no key can take the contents out of blocks and chain the log anew, leaves and tree as they
 * were, as trimming does. What was not trimmed is found all the same; what was trimmed is said to be.
 */
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Duration, type Kimberlite } from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";
import { expectBad, expectCode } from "./expectations.ts";
import { A, B, fillHospitals, type View, viewOf } from "./hospitals.ts";
import { type BlockPlace, segmentLayout } from "./layout.ts";

const DAY_US = 86_400_000_000n;

let scratch: Scratch;
let saved: string;
let trimmedSaved: string;
let checkpoint: string;
let viewOfB: View;
let firstOffset: bigint;
let size: bigint;

beforeAll(async () => {
  scratch = new Scratch();
  let nowUs = 1_700_000_000_000_000n;
  const clock = { wallTimeUs: () => (nowUs += 1n), monotonicMs: () => Number(nowUs / 1000n) };
  const db = await scratch.open({ clock, maxClockGap: Duration.days(100) });
  await fillHospitals(db);
  viewOfB = await viewOf(db, B);
  await db.close();
  saved = scratch.save("whole");
  const later = await scratch.open({ clock, maxClockGap: Duration.days(100) });
  nowUs += 10n * DAY_US;
  ({ firstOffset } = await later.trimTenant(A, { reason: "over" }));
  await later.insert(A, "patients", { id: 60, name: "younger" });
  await later.insert(A, "patients", { id: 61, name: "youngest" });
  checkpoint = await later.checkpoint(A);
  ({ size } = await later.describeTenant(A));
  await later.close();
  trimmedSaved = scratch.save("trimmed");
});

afterAll(() => scratch[Symbol.asyncDispose]());

/** Empties the blocks from that one on: what comes behind an emptied block has another chain value before it. */
function hollowFrom(index: number): BlockPlace[] {
  const bytes = fs.readFileSync(scratch.segment(A));
  const { blocks } = segmentLayout(bytes);
  const parts: Buffer[] = [bytes.subarray(0, blocks[index]?.position)];
  let previous: Buffer =
    index === 0 ? bytes.subarray(24, 56) : hashOf(bytes, blocks[index - 1] as BlockPlace);
  for (const { position, count } of blocks.slice(index)) {
    const header = Buffer.from(bytes.subarray(position, position + 96 + 32 * count));
    header.writeUInt16LE(2, 4);
    header.writeUInt32LE(0, 28);
    previous.copy(header, 48);
    header.fill(0, 80, 96);
    previous = createHash("sha256").update(header).digest();
    parts.push(header, previous);
  }
  fs.writeFileSync(scratch.segment(A), Buffer.concat(parts));
  return blocks;
}

function hashOf(bytes: Buffer, { position, length }: BlockPlace): Buffer {
  return bytes.subarray(position + length - 32, position + length);
}

async function expectHaltedAt(db: Kimberlite, offset: bigint): Promise<void> {
  await expectBad(db, A, offset);
  await expectCode("log_damaged", () => db.query(A, "SELECT * FROM patients"));
  expect(await viewOf(db, B)).toEqual(viewOfB);
}

describe("a log whose blocks were emptied", () => {
  beforeEach(() => scratch.restore(saved));

  it("all of them, with the projection gone too, is damaged from its first record on", async () => {
    hollowFrom(0);
    fs.rmSync(scratch.projection(A), { recursive: true });
    await scratch.with((db) => expectHaltedAt(db, 0n));
  });

  it("the last ones, with the projection gone too, is damaged where they begin", async () => {
    const block = hollowFrom(4)[4] as BlockPlace;
    fs.rmSync(scratch.projection(A), { recursive: true });
    await scratch.with((db) => expectHaltedAt(db, block.firstOffset));
  });

  it("with the projection there does not end in what was committed", async () => {
    hollowFrom(0);
    await scratch.with((db) => expectHaltedAt(db, 0n));
  });
});

describe("a log that was trimmed", () => {
  beforeEach(() => scratch.restore(trimmedSaved));

  it("is whole, and says how many of its records are gone", async () => {
    await scratch.with(async (db) => {
      const report = await db.verifyTenant(A, { checkpoint });
      expect(report).toMatchObject({ ok: true, size, trimmed: firstOffset });
    });
  });

  it("and then emptied further is damaged from there on", async () => {
    const bytes = fs.readFileSync(scratch.segment(A));
    const index = segmentLayout(bytes).blocks.findIndex((block) => block.firstOffset >= firstOffset);
    hollowFrom(index);
    for (const name of fs.readdirSync(scratch.projection(A)))
      if (!name.startsWith("base-")) fs.rmSync(`${scratch.projection(A)}/${name}`);
    await scratch.with(async (db) => {
      const report = await db.verifyTenant(A);
      expect(report).toMatchObject({ ok: false, firstBadOffset: firstOffset });
      await expectCode("log_damaged", () => db.query(A, "SELECT * FROM patients"));
    });
  });

  it("and whose base claims more than it holds is damaged from there on", async () => {
    hollowFrom(0);
    for (const name of fs.readdirSync(scratch.projection(A))) {
      const path = `${scratch.projection(A)}/${name}`;
      const renamed = path.replace(/base-\d+-/, `base-${size}-`);
      if (renamed === path) fs.rmSync(path);
      else fs.renameSync(path, renamed);
    }
    await scratch.with(async (db) => {
      const report = await db.verifyTenant(A);
      expect(report).toMatchObject({ ok: false, firstBadOffset: firstOffset });
      await expectCode("log_damaged", () => db.query(A, "SELECT * FROM patients"));
    });
  });
});
