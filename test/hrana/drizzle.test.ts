/** Drizzle, unmodified, with its migrator: over HTTP and WebSocket. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@libsql/client";
import { eq, relations, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/libsql";
import { migrate } from "drizzle-orm/libsql/migrator";
import { blob, integer, real, sqliteTable, text } from "drizzle-orm/sqlite-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TenantId } from "../../src/index.ts";
import { type Served, serve, tokenOf } from "./served.ts";

const wards = sqliteTable("wards", { id: integer("id").primaryKey(), name: text("name").notNull().unique() });
const patients = sqliteTable("patients", {
  id: integer("id").primaryKey({ autoIncrement: true }),
  name: text("name").notNull(),
  ward: integer("ward").references(() => wards.id, { onDelete: "cascade" }),
  weight: real("weight"),
  scan: blob("scan", { mode: "buffer" }),
  file: text("file", { mode: "json" }),
});
const schema = {
  wards,
  patients,
  wardRelations: relations(wards, ({ many }) => ({ patients: many(patients) })),
  patientRelations: relations(patients, ({ one }) => ({
    ward: one(wards, { fields: [patients.ward], references: [wards.id] }),
  })),
};

/** As `drizzle-kit generate` writes them; the second rebuilds a table, for SQLite cannot alter it so. */
const MIGRATIONS = [
  `CREATE TABLE \`wards\` (\`id\` integer PRIMARY KEY NOT NULL, \`name\` text);
--> statement-breakpoint
CREATE TABLE \`patients\` (\`id\` integer PRIMARY KEY AUTOINCREMENT NOT NULL, \`name\` text NOT NULL, \`ward\` integer, \`weight\` real, \`scan\` blob, \`file\` text, FOREIGN KEY (\`ward\`) REFERENCES \`wards\`(\`id\`) ON DELETE cascade);
--> statement-breakpoint
INSERT INTO wards VALUES (1, 'old');
--> statement-breakpoint
INSERT INTO patients (name, ward) VALUES ('Kept', 1);`,
  `PRAGMA foreign_keys=OFF;--> statement-breakpoint
CREATE TABLE \`__new_wards\` (\`id\` integer PRIMARY KEY NOT NULL, \`name\` text NOT NULL);
--> statement-breakpoint
INSERT INTO \`__new_wards\`("id", "name") SELECT "id", "name" FROM \`wards\`;--> statement-breakpoint
DROP TABLE \`wards\`;--> statement-breakpoint
ALTER TABLE \`__new_wards\` RENAME TO \`wards\`;--> statement-breakpoint
PRAGMA foreign_keys=ON;--> statement-breakpoint
CREATE UNIQUE INDEX \`wards_name_unique\` ON \`wards\` (\`name\`);`,
];

function writeMigrations(folder: string): void {
  mkdirSync(join(folder, "meta"), { recursive: true });
  const entries = MIGRATIONS.map((text_, idx) => {
    const tag = `000${idx}_step`;
    writeFileSync(join(folder, `${tag}.sql`), text_);
    return { idx, version: "6", when: 1_700_000_000_000 + idx, tag, breakpoints: true };
  });
  writeFileSync(
    join(folder, "meta", "_journal.json"),
    JSON.stringify({ version: "7", dialect: "sqlite", entries }),
  );
}

let served: Served;
const folder = mkdtempSync(join(tmpdir(), "kimberlite-drizzle-"));
beforeAll(async () => {
  served = await serve();
  writeMigrations(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each([
  ["http", 1],
  ["ws", 2],
] as const)("over %s", (scheme, tenant) => {
  it("migrates, writes, reads and rolls back", async () => {
    const client = createClient({ url: served.url.replace("http", scheme), authToken: tokenOf(tenant) });
    try {
      const db = drizzle(client, { schema });
      await migrate(db, { migrationsFolder: folder });
      await migrate(db, { migrationsFolder: folder });
      expect((await db.select().from(patients)).map(({ name }) => name)).toEqual(["Kept"]);

      await db.insert(wards).values([
        { id: 2, name: "Surgery" },
        { id: 3, name: "Paediatrics" },
      ]);
      const scan = Buffer.from([1, 2, 255]);
      const [made] = await db
        .insert(patients)
        .values({ name: "Žofie", ward: 2, weight: 61.5, scan, file: { allergies: ["nuts"] } })
        .returning();
      expect(made).toMatchObject({ id: 2, name: "Žofie", weight: 61.5, file: { allergies: ["nuts"] } });
      expect(Buffer.from(made?.scan as Uint8Array)).toEqual(scan);
      await expect(db.insert(wards).values({ id: 4, name: "Surgery" })).rejects.toThrow();

      await db.transaction(async (tx) => {
        await tx.update(patients).set({ weight: 62 }).where(eq(patients.name, "Žofie"));
        await tx
          .transaction(async (nested) => {
            await nested.delete(patients);
            nested.rollback();
          })
          .catch(() => undefined);
      });
      await db
        .transaction(async (tx) => {
          await tx.delete(patients);
          throw new Error("undo");
        })
        .catch(() => undefined);
      const batch = await db.batch([
        db.select({ n: sql<number>`count(*)` }).from(patients),
        db.select().from(wards).where(eq(wards.name, "Surgery")),
      ]);
      expect(batch[0]).toEqual([{ n: 2 }]);
      const found = await db.query.wards.findMany({
        with: { patients: { columns: { scan: false } } },
        orderBy: wards.id,
      });
      expect(found.map((ward) => ward.patients.length)).toEqual([1, 1, 0]);
      expect(found[1]?.patients[0]?.weight).toBe(62);

      await db.delete(wards).where(eq(wards.id, 2));
      expect((await db.select().from(patients)).length).toBe(1);
      const before = await served.db.query(TenantId(tenant), "SELECT * FROM patients");
      await served.db.rebuildProjection(TenantId(tenant));
      expect(await served.db.query(TenantId(tenant), "SELECT * FROM patients")).toEqual(before);
    } finally {
      client.close();
    }
  });
});
