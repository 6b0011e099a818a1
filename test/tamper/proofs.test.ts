/**
 * I-6: what the public API gives as proof verifies with nothing but the library's checkers and the node's public key,
 * across restarts, rotations of keys and rebuilds; and a checkpoint holds a log to what it was.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Checkpoint,
  type Kimberlite,
  openCheckpoint,
  parseVerifierKey,
  verifyConsistency,
  verifyInclusion,
} from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";
import { expectCode } from "./expectations.ts";
import { A, B, fillHospitals } from "./hospitals.ts";

let scratch: Scratch;
const notes: string[] = [];
let publicKey: string;

beforeAll(async () => {
  scratch = new Scratch();
  const steps: ((db: Kimberlite) => Promise<unknown>)[] = [
    fillHospitals,
    (db) => db.rotateDek(A),
    (db) => db.rotateKek(A),
    (db) => db.insert(A, "patients", { id: 60, name: "after the rotations" }),
    (db) => db.rebuildProjection(A),
    (db) =>
      db.transaction(A, ["INSERT INTO patients VALUES (61, 'a')", "INSERT INTO patients VALUES (62, 'b')"]),
  ];
  for (const step of steps) {
    await scratch.with(async (db) => {
      await step(db);
      publicKey = db.verifierKey();
      notes.push(await db.checkpoint(A));
    });
  }
});

afterAll(() => scratch[Symbol.asyncDispose]());

const opened = (note: string): Required<Checkpoint> => openCheckpoint(note, parseVerifierKey(publicKey));

describe("checkpoints", () => {
  it("are signed by one key through all restarts, and grow", () => {
    const sizes = notes.map((note) => opened(note).size);
    expect(sizes).toEqual([...sizes].sort((a, b) => Number(a - b)));
    expect(new Set(sizes).size).toBeGreaterThan(2);
  });

  it("of every day still hold the log", async () => {
    await scratch.with(async (db) => {
      for (const note of notes) expect((await db.verifyTenant(A, { checkpoint: note })).ok).toBe(true);
    });
  });

  it("are refused when altered, of another tenant, or of another installation", async () => {
    await using other = new Scratch();
    const foreign = await other.with(async (db) => {
      await fillHospitals(db);
      return db.checkpoint(A);
    });
    await scratch.with(async (db) => {
      const note = notes.at(-1) as string;
      const altered = note.replace(/\n\d+\n/, "\n1\n");
      for (const wrong of [altered, foreign, await db.checkpoint(B), "", "nonsense", note.slice(0, -2)]) {
        await expectCode("signature_invalid", () => db.verifyTenant(A, { checkpoint: wrong }));
      }
    });
  });
});

describe("proofs", () => {
  it("of inclusion verify for every offset against the checkpoint's root", async () => {
    const { size, root } = opened(notes.at(-1) as string);
    await scratch.with(async (db) => {
      for (let offset = 0n; offset < size; offset += 1n) {
        const proof = await db.inclusionProof(A, offset);
        expect(() => verifyInclusion({ ...proof, size, root })).not.toThrow();
        const elsewhere = { ...proof, offset: (offset + 1n) % size, size, root };
        expect(() => verifyInclusion(elsewhere)).toThrow(/does not verify/);
      }
      for (const wrong of [size, size + 1n, 2n ** 62n]) {
        await expectCode("offset_out_of_range", () => db.inclusionProof(A, wrong));
      }
    });
  });

  it("of consistency verify between every two checkpoints", async () => {
    const points = notes.map(opened);
    await scratch.with(async (db) => {
      for (const [index, from] of points.entries()) {
        for (const to of points.slice(index)) {
          const proof = await db.consistencyProof(A, from.size, to.size);
          const claim = { ...proof, fromRoot: from.root, toRoot: to.root };
          expect(() => verifyConsistency(claim)).not.toThrow();
          if (from.size === to.size) continue;
          expect(() => verifyConsistency({ ...claim, fromRoot: to.root })).toThrow(/does not verify/);
        }
      }
    });
  });
});
