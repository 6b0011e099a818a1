/** Kysely, unmodified, with the dialect that libSQL's makers publish and its own migrator. */
import { LibsqlDialect } from "@libsql/kysely-libsql";
import { Kysely, sql } from "kysely";
import { type Migration, Migrator } from "kysely/migration";
import { beforeAll, describe, expect, it } from "vitest";
import { type Served, serve, tokenOf } from "./served.ts";

interface Database {
  readonly people: { id: number | undefined; name: string; born: number | null };
}

const migrations: Record<string, Migration> = {
  "001": {
    up: async (db) => {
      await db.schema
        .createTable("people")
        .addColumn("id", "integer", (column) => column.primaryKey().autoIncrement())
        .addColumn("name", "text", (column) => column.notNull().unique())
        .execute();
    },
  },
  "002": {
    up: async (db) => {
      await db.schema.alterTable("people").addColumn("born", "integer").execute();
      await db.schema.createIndex("people_born").on("people").column("born").execute();
    },
    down: async (db) => {
      await db.schema.dropIndex("people_born").execute();
    },
  },
};

let served: Served;
beforeAll(async () => {
  served = await serve();
});

describe.each([
  ["http", 1],
  ["ws", 2],
] as const)("over %s", (scheme, tenant) => {
  it("migrates up and down, writes, reads and rolls back", async () => {
    const url = served.url.replace("http", scheme);
    const db = new Kysely<Database>({ dialect: new LibsqlDialect({ url, authToken: tokenOf(tenant) }) });
    try {
      const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } });
      const up = await migrator.migrateToLatest();
      expect(up.error).toBeUndefined();
      expect(up.results?.map(({ status }) => status)).toEqual(["Success", "Success"]);

      const inserted = await db
        .insertInto("people")
        .values([
          { id: undefined, name: "Ada", born: 1815 },
          { id: undefined, name: "Emmy", born: 1882 },
        ])
        .returning(["id", "name"])
        .execute();
      expect(inserted).toEqual([
        { id: 1, name: "Ada" },
        { id: 2, name: "Emmy" },
      ]);
      const refused = db.insertInto("people").values({ id: undefined, name: "Ada", born: null }).execute();
      await expect(refused).rejects.toMatchObject({ code: "SQLITE_CONSTRAINT_UNIQUE" });

      await db.transaction().execute(async (trx) => {
        await trx.updateTable("people").set({ born: 1816 }).where("name", "=", "Ada").execute();
      });
      const undone = db.transaction().execute(async (trx) => {
        await trx.deleteFrom("people").execute();
        throw new Error("undo");
      });
      await expect(undone).rejects.toThrow("undo");
      const found = await db.selectFrom("people").select(["name", "born"]).orderBy("born").execute();
      expect(found).toEqual([
        { name: "Ada", born: 1816 },
        { name: "Emmy", born: 1882 },
      ]);
      const tables = await db.introspection.getTables();
      expect(tables.map(({ name }) => name)).toContain("people");
      expect((await sql<{ n: number }>`SELECT count(*) AS n FROM people`.execute(db)).rows).toEqual([
        { n: 2 },
      ]);
      expect((await migrator.migrateDown()).error).toBeUndefined();
    } finally {
      await db.destroy();
    }
  });
});
