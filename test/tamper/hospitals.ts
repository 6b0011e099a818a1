/** Two tenants with tables, events and several blocks each, and everything that can be seen of a tenant. */
import type { Kimberlite, StreamItem } from "../../src/index.ts";
import { StreamId, TenantId } from "../../src/index.ts";

export const A: TenantId = TenantId(1);
export const B: TenantId = TenantId(2);
const ROWS = 6;

/** Fills both tenants with the same number of blocks of the same shape, each with rows of its own. */
export async function fillHospitals(db: Kimberlite): Promise<void> {
  await db.createTenant({ id: A, name: "Hospital A" });
  await db.createTenant({ id: B, name: "Hospital B" });
  for (const id of [A, B]) await fillHospital(db, id);
}

async function fillHospital(db: Kimberlite, id: TenantId): Promise<void> {
  await db.execute(id, "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL)");
  const visits = await db.createStream(id, "visits");
  for (let row = 0; row < ROWS; row += 1) {
    await db.insert(id, "patients", { id: row, name: `patient ${row} of ${id}` });
    await db.append(id, visits, [
      { patient: row, ward: `${id}` },
      { patient: row, note: "left" },
    ]);
  }
}

/** Everything that a reader of a tenant sees, in a form that compares. */
export interface View {
  readonly rows: unknown[];
  readonly events: unknown[];
  readonly changes: unknown[];
}

export async function viewOf(db: Kimberlite, id: TenantId): Promise<View> {
  const streams = await db.streams(id);
  const local = (name: string): StreamId =>
    StreamId(id, streams.find((stream) => stream.name === name)?.id.local ?? 0);
  return {
    rows: await db.query(id, "SELECT * FROM patients ORDER BY id"),
    events: await collect(db.read(id, local("visits"))),
    changes: await collect(db.read(id, local("patients"))),
  };
}

export async function collect(items: AsyncIterable<StreamItem>): Promise<StreamItem[]> {
  const all: StreamItem[] = [];
  for await (const item of items) all.push(item);
  return all;
}
