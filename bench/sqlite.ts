/**
 * One plain SQLite file a tenant: the library that Kimberlite itself uses, without a cipher, in WAL mode with
 * `synchronous=FULL`, statements prepared once. No log, no audit, no keys, no quota: the floor of what a file costs.
 */

import { join } from "node:path";
import Database from "better-sqlite3-multiple-ciphers";
import { type Dataset, newNote, patient, RANGE_ROWS } from "./dataset.ts";
import type { Subject } from "./subject.ts";

interface TenantFile {
  readonly db: Database.Database;
  readonly insert: Database.Statement;
  readonly point: Database.Statement;
  readonly range: Database.Statement;
  readonly update: Database.Statement;
}

export function prepareSqlite(folder: string, dataset: Dataset): Subject {
  const files = Array.from({ length: dataset.tenants }, (_, index) =>
    openFile(join(folder, `${index + 1}.db`), dataset),
  );
  const of = (tenant: number): TenantFile => files[tenant - 1] as TenantFile;
  return {
    name: "SQLite",
    blocking: true,
    insert(tenant, id) {
      const { name, dob, note } = patient(id);
      return of(tenant).insert.run(id, name, dob, note);
    },
    point: (tenant, id) => of(tenant).point.all(id),
    range: (tenant, from) => of(tenant).range.all(from, from + RANGE_ROWS - 1),
    update: (tenant, id, turn) => of(tenant).update.run(newNote(turn), id),
    close: async () => {
      for (const { db } of files) db.close();
    },
  };
}

function openFile(path: string, dataset: Dataset): TenantFile {
  const db = new Database(path);
  db.pragma("journal_mode=WAL");
  db.pragma("synchronous=FULL");
  db.exec(
    "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL, dob TEXT NOT NULL, note TEXT NOT NULL)",
  );
  const insert = db.prepare("INSERT INTO patients VALUES (?, ?, ?, ?)");
  db.transaction(() => {
    for (let id = 1; id <= dataset.rowsEach; id += 1) {
      const { name, dob, note } = patient(id);
      insert.run(id, name, dob, note);
    }
  })();
  return {
    db,
    insert,
    point: db.prepare("SELECT id, name, dob, note FROM patients WHERE id = ?"),
    range: db.prepare("SELECT id, name, dob, note FROM patients WHERE id BETWEEN ? AND ?"),
    update: db.prepare("UPDATE patients SET note = ? WHERE id = ?"),
  };
}
