/**
 * I-5: a person who was erased within a tenant is nowhere: not in its tables, not at any earlier moment, not in its
 * streams, not in bytes of its files that its keys open; everybody else's rows, every offset and every proof stay.
 */
import { describe, expect, it } from "vitest";
import {
  type Kimberlite,
  openCheckpoint,
  parseVerifierKey,
  type StreamDescription,
  TenantId,
  verifyConsistency,
  verifySubjectCertificate,
} from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";
import { expectNowhere } from "./everywhere.ts";

const A = TenantId(1);
const REASON = { reason: "request 4711", actor: "dpo" };
const ALICE = "alice-ZQ@first-domain.example";
const BOB = "bob@2nd.test";

async function fill(db: Kimberlite): Promise<void> {
  await db.createTenant({ id: A, name: "Hospital A" });
  await db.execute(A, "CREATE TABLE patients (id INTEGER PRIMARY KEY, email TEXT, name TEXT)");
  await db.execute(A, "CREATE INDEX by_email ON patients (email)");
  await db.execute(
    A,
    "CREATE TABLE visits (email TEXT, day TEXT, note TEXT, PRIMARY KEY (email, day)) WITHOUT ROWID",
  );
  await db.declareSubject(A, { table: "patients", column: "email" }, { actor: "dpo" });
  await db.declareSubject(A, { table: "visits", column: "EMAIL" });
  await db.insert(A, "patients", [
    { id: 1, email: ALICE, name: "Alice Marker-One" },
    { id: 2, email: BOB, name: "Bob Stays" },
    { id: 3, email: null, name: "nobody" },
  ]);
  await db.execute(A, "UPDATE patients SET name = 'Alice Marker-Two' WHERE id = 1");
  await db.insert(A, "visits", [
    { email: ALICE, day: "1", note: "Marker-Three" },
    { email: BOB, day: "1", note: "bob's" },
  ]);
}

describe("an erased subject", () => {
  it("is nowhere, and everything else is where it was", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    expect(await db.subjects(A)).toMatchObject([
      { table: "patients", column: "email" },
      { table: "visits", column: "email" },
    ]);
    const before = await db.checkpoint(A);
    const certificate = await db.eraseSubject(A, ALICE, REASON);
    const key = parseVerifierKey(db.verifierKey());
    expect(verifySubjectCertificate(certificate.note, key)).toEqual(certificate);
    expect(certificate).toMatchObject({
      tenant: "1",
      reason: "request 4711",
      actor: "dpo",
      tables: [
        { table: "patients", column: "email", rows: 1 },
        { table: "visits", column: "email", rows: 1 },
      ],
    });
    expect(await db.subjectCertificates(A)).toEqual([certificate]);
    expect(await db.query(A, "SELECT id FROM patients ORDER BY id")).toEqual([{ id: 2 }, { id: 3 }]);
    const patients = (await db.streams(A)).find(({ name }) => name === "patients") as StreamDescription;
    const kinds = (await Array.fromAsync(db.read(A, patients.id))).map(({ kind }) => kind);
    expect(kinds).toEqual(["erased", "insert", "insert", "erased", "erased"]);
    const old = openCheckpoint(before, key);
    const now = openCheckpoint(await db.checkpoint(A), key);
    const proof = await db.consistencyProof(A, old.size, now.size);
    verifyConsistency(proof);
    expect([proof.fromRoot, proof.toRoot]).toEqual([old.root, now.root]);
    expect(await db.verifyTenant(A, { checkpoint: before })).toMatchObject({ ok: true });
    expect((await db.verifyTenant(A)).ok).toBe(true);
    await expectNowhere(db, scratch, A, [ALICE, "Marker-One", "Marker-Two", "Marker-Three"]);
    await expect(db.eraseSubject(A, ALICE, REASON)).rejects.toMatchObject({ code: "subject_not_found" });
    await db.insert(A, "patients", { id: 9, email: ALICE, name: "came back" });
    expect(await db.query(A, "SELECT name FROM patients WHERE email = ?", [ALICE])).toEqual([
      { name: "came back" },
    ]);
  });
});
