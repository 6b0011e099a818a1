/**
 * I-6: one changed bit anywhere in a log is found by verification, at the first bad offset; what a read touches is
 * `log_damaged`, never other data; and no other tenant notices.
 */
import * as fs from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Kimberlite, KimberliteError } from "../../src/index.ts";
import { flipBit, Scratch } from "../isolation/scratch.ts";
import { A, B, fillHospitals, type View, viewOf } from "./hospitals.ts";
import { type Field, segmentLayout } from "./layout.ts";

const SEED = Number(process.env["KIMBERLITE_SEED"] ?? 20_250_101);
const EVERY_BIT = process.env["KIMBERLITE_SOAK"] === "1";

const BITS = [0, 1, 2, 3, 4, 5, 6, 7];

let scratch: Scratch;
let saved: string;
let fields: Field[];
let views: { readonly a: View; readonly b: View };

beforeAll(async () => {
  scratch = new Scratch();
  await scratch.with(async (db) => {
    await fillHospitals(db);
    await db.rotateDek(A);
    await db.insert(A, "patients", { id: 100, name: "under the second key" });
    views = { a: await viewOf(db, A), b: await viewOf(db, B) };
  });
  saved = scratch.save();
  fields = segmentLayout(fs.readFileSync(scratch.segment(A))).fields;
});

afterAll(() => scratch[Symbol.asyncDispose]());

/** One field of each kind, of a block in the middle and of the last one. */
function fieldOfEachKind(): Field[] {
  const offsets = [...new Set(fields.map((field) => field.offset))].sort((a, b) => Number(a - b));
  const chosen = [0n, offsets[offsets.length >> 1] as bigint, offsets.at(-1) as bigint];
  const seen = new Set<string>();
  return fields.filter((field) => {
    const kind = `${field.name} ${field.offset}`;
    if (seen.has(kind) || !chosen.includes(field.offset)) return false;
    seen.add(kind);
    return true;
  });
}

function bitOf(position: number): number {
  return (position * 2_654_435_761 + SEED) % 8;
}

describe(`one flipped bit in a log (seed ${SEED})`, () => {
  it("is found in every byte by verification, at the first bad offset", async () => {
    await scratch.with(async (db) => {
      expect((await db.verifyTenant(A)).ok).toBe(true);
      for (const field of fields) {
        for (let at = field.position; at < field.position + field.length; at += 1) {
          for (const bit of EVERY_BIT ? BITS : [bitOf(at)]) await expectFound(db, field, { at, bit });
        }
      }
      expect((await db.verifyTenant(A)).ok).toBe(true);
      expect((await db.verifyTenant(B)).ok).toBe(true);
    });
  });

  async function expectFound(
    db: Kimberlite,
    field: Field,
    { at, bit }: { at: number; bit: number },
  ): Promise<void> {
    flipBit(scratch.segment(A), at, bit);
    const report = await db.verifyTenant(A);
    flipBit(scratch.segment(A), at, bit);
    const found = { ok: report.ok, offset: report.firstBadOffset };
    expect(found, `${field.name}, bit ${bit} of byte ${at}`).toEqual({ ok: false, offset: field.offset });
  }

  it("never gives other events while the database is open: the ones before, then log_damaged", async () => {
    await scratch.with(async (db) => {
      const visits = (await db.streams(A)).find((stream) => stream.name === "visits");
      if (visits === undefined) throw new Error("there is no stream");
      for (const field of fieldOfEachKind()) {
        flipBit(scratch.segment(A), field.position, bitOf(field.position));
        const seen: unknown[] = [];
        const failure = await (async () => {
          for await (const item of db.read(A, visits.id)) seen.push(item);
        })().catch((error: unknown) => error);
        flipBit(scratch.segment(A), field.position, bitOf(field.position));
        expect(seen, field.name).toEqual(views.a.events.slice(0, seen.length));
        if (seen.length < views.a.events.length) expectDamaged(failure, field);
      }
    });
  });

  it("makes a rebuild of the projection fail with log_damaged and its offset, for that tenant alone", async () => {
    for (const field of fieldOfEachKind()) {
      scratch.restore(saved);
      flipBit(scratch.segment(A), field.position, bitOf(field.position));
      fs.rmSync(scratch.projection(A), { recursive: true });
      await scratch.with(async (db) => {
        expectDamaged(await db.query(A, "SELECT 1").catch((error: unknown) => error), field);
        expectDamaged(await db.execute(A, "DELETE FROM patients").catch((error: unknown) => error), field);
        const report = await db.verifyTenant(A);
        expect([report.ok, report.firstBadOffset], field.name).toEqual([false, field.offset]);
        expect(await viewOf(db, B)).toEqual(views.b);
      });
    }
    scratch.restore(saved);
  });

  it("of a length is never taken for a torn tail, which would be cut off", async () => {
    const lengths = fields.filter(
      (field) => field.name === "block sealed length" || field.name === "block count",
    );
    for (const field of [lengths[2], lengths.at(-2), lengths.at(-1)] as Field[]) {
      for (const [byte, bit] of [
        [0, 7],
        [1, 6],
        [2, 0],
        [2, 6],
      ] as const) {
        scratch.restore(saved);
        flipBit(scratch.segment(A), field.position + byte, bit);
        fs.rmSync(scratch.projection(A), { recursive: true });
        const before = fs.readFileSync(scratch.segment(A));
        await scratch.with(async (db) => {
          expectDamaged(await db.query(A, "SELECT 1").catch((error: unknown) => error), field);
        });
        expect(fs.readFileSync(scratch.segment(A)).equals(before)).toBe(true);
      }
    }
    scratch.restore(saved);
  });

  it("leaves the rows of an intact projection as they are", async () => {
    for (const field of fieldOfEachKind().slice(0, 12)) {
      scratch.restore(saved);
      flipBit(scratch.segment(A), field.position, bitOf(field.position));
      await scratch.with(async (db) => {
        const rows = await db.query(A, "SELECT * FROM patients ORDER BY id").catch((error: unknown) => error);
        if (Array.isArray(rows)) expect(rows).toEqual(views.a.rows);
        else expectDamaged(rows, field);
      });
    }
    scratch.restore(saved);
  });

  it("in the time of the last block is found, though nothing comes after it", async () => {
    const last = fields.findLast((field) => field.name === "block time") as Field;
    await scratch.with(async (db) => {
      await expectFound(db, last, { at: last.position, bit: 0 });
    });
  });
});

function expectDamaged(error: unknown, field: Field): void {
  if (!(error instanceof KimberliteError)) expect.fail(`${field.name}: ${String(error)}`);
  // A flipped bit of a version looks like a later version until its hash is read, which only this version knows where.
  const codes = field.name.endsWith("version") ? ["log_damaged", "format_too_new"] : ["log_damaged"];
  expect(codes, `${field.name}: ${error.message}`).toContain(error.code);
  if (error.code === "log_damaged") expect(error.detail["offset"], field.name).toBe(field.offset);
}
