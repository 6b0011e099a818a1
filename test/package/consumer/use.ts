/** A user's TypeScript: the first page of the documentation, type-checked under strict settings and run. */
import assert from "node:assert/strict";
import { Duration, Kimberlite, masterKeyFile, Region, TenantId } from "kimberlite";

await using db = await Kimberlite.open({ dataDir: "./db/data", masterKey: masterKeyFile("./db/master.key") });
const clinic = TenantId(2);
await db.createTenant({
  id: clinic,
  name: "Clinic B",
  region: Region.UsEast,
  retention: Duration.days(2555),
  quota: { maxLogBytes: 10_000_000, maxOpsPerSec: 1000 },
});
await db.execute(clinic, "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL, dob TEXT)");
await db.insert(clinic, "patients", { id: 123, name: "Alice Smith", dob: "1985-03-15" });
const rows = await db.query(clinic, "SELECT name FROM patients WHERE id = ?", [123]);
assert.deepEqual(
  rows.map((row) => row.name),
  ["Alice Smith"],
);

// @ts-expect-error a bare number is not a tenant
export const bare: Parameters<Kimberlite["query"]>[0] = 2;
