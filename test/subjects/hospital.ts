/** A hospital whose patients are subjects, and one of them who will be erased. */
import { type Kimberlite, TenantId } from "../../src/index.ts";

export const A: TenantId = TenantId(1);
export const REASON: { readonly reason: string; readonly actor: string } = {
  reason: "request 4711",
  actor: "dpo",
};
export const ALICE = "alice-ZQ@first-domain.example";
export const BOB = "bob@2nd.test";

export async function fill(db: Kimberlite): Promise<void> {
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

/** What is Alice's alone. */
export const ALICES: readonly string[] = [ALICE, "Marker-One", "Marker-Two", "Marker-Three"];
