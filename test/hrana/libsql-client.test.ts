/** The unmodified client of libSQL against a tenant, over HTTP and WebSocket. */
import { execFile } from "node:child_process";
import { symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Client, createClient } from "@libsql/client";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { TenantId } from "../../src/index.ts";
import { readCheckoutFile } from "../docs/checkout.ts";
import { scratchFolder } from "../e2e/command.ts";
import { type Served, serve, tokenOf } from "./served.ts";

let served: Served;
beforeAll(async () => {
  served = await serve();
});

const clients: Client[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

function connect(
  scheme: "http" | "ws",
  { token = tokenOf(1), intMode = "number" as "number" | "bigint" | "string", path = "" } = {},
): Client {
  const client = createClient({
    url: served.url.replace("http", scheme) + path,
    authToken: token,
    intMode,
  });
  clients.push(client);
  return client;
}

describe.each(["http", "ws"] as const)("over %s", (scheme) => {
  const table = `t_${scheme}`;

  it("makes a schema, writes and reads every kind of value", async () => {
    const client = connect(scheme, { intMode: "bigint" });
    await client.execute(`CREATE TABLE ${table} (id INTEGER PRIMARY KEY, f REAL, s TEXT, b BLOB, n)`);
    const inserted = await client.execute({
      sql: `INSERT INTO ${table} VALUES (?, ?, ?, ?, ?)`,
      args: [9_007_199_254_740_993n, 1.5, "žába 🐸", new Uint8Array([0, 1, 255]), null],
    });
    expect(inserted.rowsAffected).toBe(1);
    expect(inserted.lastInsertRowid).toBe(9_007_199_254_740_993n);
    const found = await client.execute(`SELECT *, -9223372036854775808 AS least, 1.0 AS one FROM ${table}`);
    expect(found.columns).toEqual(["id", "f", "s", "b", "n", "least", "one"]);
    expect(found.columnTypes.slice(0, 4)).toEqual(["INTEGER", "REAL", "TEXT", "BLOB"]);
    const [row] = found.rows;
    expect(row?.["id"]).toBe(9_007_199_254_740_993n);
    expect(row?.["f"]).toBe(1.5);
    expect(row?.["s"]).toBe("žába 🐸");
    expect(new Uint8Array(row?.["b"] as ArrayBuffer)).toEqual(new Uint8Array([0, 1, 255]));
    expect(row?.["n"]).toBe(null);
    expect(row?.["least"]).toBe(-(2n ** 63n));
    expect(row?.["one"]).toBe(1);
    expect(await served.db.query(TenantId(1), `SELECT typeof(id) AS t FROM ${table}`)).toEqual([
      { t: "integer" },
    ]);
  });

  it("binds by name, whatever the sign", async () => {
    const client = connect(scheme);
    const found = await client.execute({
      sql: "SELECT :a AS a, @b AS b, $c AS c",
      args: { a: "1", b: "2", $c: "3" },
    });
    expect({ ...found.rows[0] }).toMatchObject({ a: "1", b: "2", c: "3" });
  });

  it("gives SQLite's own error codes", async () => {
    const client = connect(scheme);
    await client.execute(`CREATE TABLE ${table}_e (id INTEGER PRIMARY KEY, u TEXT UNIQUE NOT NULL)`);
    await client.execute(`INSERT INTO ${table}_e VALUES (1, 'a')`);
    const failing = async (sql: string): Promise<unknown> =>
      client.execute(sql).catch((error: unknown) => (error as { code?: string }).code);
    expect(await failing(`INSERT INTO ${table}_e VALUES (2, 'a')`)).toBe("SQLITE_CONSTRAINT_UNIQUE");
    expect(await failing(`INSERT INTO ${table}_e VALUES (1, 'b')`)).toBe("SQLITE_CONSTRAINT_PRIMARYKEY");
    expect(await failing(`INSERT INTO ${table}_e VALUES (3, NULL)`)).toBe("SQLITE_CONSTRAINT_NOTNULL");
    expect(await failing("SELEC 1")).toBe("SQLITE_ERROR");
    expect(await failing("ATTACH 'x' AS y")).toBe("SQLITE_AUTH");
    expect(await failing("SELECT ?")).toBe("SQLITE_RANGE");
  });

  it("runs a batch as one transaction", async () => {
    const client = connect(scheme);
    await client.execute(`CREATE TABLE ${table}_b (id INTEGER PRIMARY KEY)`);
    const before = (await served.db.describeTenant(TenantId(1))).size;
    const results = await client.batch(
      [
        { sql: `INSERT INTO ${table}_b VALUES (?)`, args: [1] },
        { sql: `INSERT INTO ${table}_b VALUES (?)`, args: [2] },
        `SELECT count(*) AS n FROM ${table}_b`,
      ],
      "write",
    );
    expect(results[2]?.rows[0]?.["n"]).toBe(2);
    expect((await served.db.describeTenant(TenantId(1))).size - before).toBe(1n);
    const failed = client.batch(
      [`INSERT INTO ${table}_b VALUES (3)`, `INSERT INTO ${table}_b VALUES (1)`],
      "write",
    );
    await expect(failed).rejects.toMatchObject({ code: "SQLITE_CONSTRAINT_PRIMARYKEY" });
    expect((await client.execute(`SELECT count(*) AS n FROM ${table}_b`)).rows[0]?.["n"]).toBe(2);
    const read = await client.batch([`SELECT count(*) AS n FROM ${table}_b`, "SELECT 1 AS one"], "read");
    expect(read.map((each) => each.rows.length)).toEqual([1, 1]);
  });

  it("holds a transaction over several requests, commits it and rolls it back", async () => {
    const client = connect(scheme);
    await client.execute(`CREATE TABLE ${table}_x (id INTEGER PRIMARY KEY)`);
    for (const mode of ["write", "deferred"] as const) {
      const transaction = await client.transaction(mode);
      await transaction.execute(`INSERT INTO ${table}_x VALUES (NULL)`);
      await transaction.batch([
        `INSERT INTO ${table}_x VALUES (NULL)`,
        `INSERT INTO ${table}_x VALUES (NULL)`,
      ]);
      await transaction.executeMultiple(`SAVEPOINT a; DELETE FROM ${table}_x; ROLLBACK TO a; RELEASE a;`);
      await transaction.commit();
    }
    const undone = await client.transaction("write");
    await undone.execute(`DELETE FROM ${table}_x`);
    await undone.rollback();
    const forgotten = await client.transaction("write");
    await forgotten.execute(`DELETE FROM ${table}_x`);
    forgotten.close();
    expect((await client.execute(`SELECT count(*) AS n FROM ${table}_x`)).rows[0]?.["n"]).toBe(6);
    const reading = await client.transaction("read");
    await expect(reading.execute(`DELETE FROM ${table}_x`)).rejects.toMatchObject({
      code: "SQLITE_READONLY",
    });
    expect((await reading.execute(`SELECT count(*) AS n FROM ${table}_x`)).rows[0]?.["n"]).toBe(6);
    await reading.commit();
  });

  it("runs many statements of one text", async () => {
    const client = connect(scheme);
    await client.executeMultiple(`
      CREATE TABLE ${table}_m (id INTEGER PRIMARY KEY, note TEXT DEFAULT 'a;b');
      CREATE TRIGGER ${table}_m_t AFTER INSERT ON ${table}_m BEGIN UPDATE ${table}_m SET note = 'c;d' WHERE id = NEW.id; END;
      INSERT INTO ${table}_m (id) VALUES (1); -- the end
    `);
    expect((await client.execute(`SELECT note FROM ${table}_m`)).rows[0]?.["note"]).toBe("c;d");
  });

  it("migrates with foreign keys off, and replays to the same", async () => {
    const client = connect(scheme);
    await client.executeMultiple(`
      CREATE TABLE ${table}_p (id INTEGER PRIMARY KEY);
      CREATE TABLE ${table}_c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES ${table}_p ON DELETE CASCADE);
      INSERT INTO ${table}_p VALUES (1);
      INSERT INTO ${table}_c VALUES (7, 1);
    `);
    await client.migrate([
      `CREATE TABLE ${table}_new (id INTEGER PRIMARY KEY, name TEXT)`,
      `INSERT INTO ${table}_new SELECT id, 'x' FROM ${table}_p`,
      `DROP TABLE ${table}_p`,
      `ALTER TABLE ${table}_new RENAME TO ${table}_p`,
    ]);
    const children = `SELECT id, p FROM ${table}_c`;
    expect((await client.execute(children)).rows.length).toBe(1);
    await served.db.rebuildProjection(TenantId(1));
    expect((await client.execute(children)).rows.length).toBe(1);
    await client.execute(`DELETE FROM ${table}_p`);
    expect((await client.execute(children)).rows.length).toBe(0);
  });

  it("reads and writes its own tenant alone", async () => {
    const mine = connect(scheme, { path: "/tenants/1/" });
    await mine.execute(`CREATE TABLE ${table}_own (id INTEGER PRIMARY KEY)`);
    const other = connect(scheme, { token: tokenOf(2) });
    await expect(other.execute(`SELECT * FROM ${table}_own`)).rejects.toMatchObject({ code: "SQLITE_ERROR" });
    const crossed = connect(scheme, { token: tokenOf(2), path: "/tenants/1/" });
    await expect(crossed.execute("SELECT 1")).rejects.toMatchObject({ code: "not_authorized" });
  });

  it("lets a reader read, and a writer change rows", async () => {
    const admin = connect(scheme);
    await admin.execute(`CREATE TABLE ${table}_r (id INTEGER PRIMARY KEY)`);
    const writer = connect(scheme, { token: tokenOf(1, "writer") });
    const reader = connect(scheme, { token: tokenOf(1, "reader") });
    await writer.execute(`INSERT INTO ${table}_r VALUES (1)`);
    expect((await reader.execute(`SELECT count(*) AS n FROM ${table}_r`)).rows[0]?.["n"]).toBe(1);
    const refusals: [Client, string, string][] = [
      [reader, `INSERT INTO ${table}_r VALUES (2)`, "SQLITE_READONLY"],
      [reader, `WITH a AS (SELECT 2) INSERT INTO ${table}_r SELECT * FROM a`, "SQLITE_READONLY"],
      [writer, `DROP TABLE ${table}_r`, "not_authorized"],
      [writer, `CREATE INDEX ${table}_i ON ${table}_r (id)`, "not_authorized"],
      [writer, "PRAGMA user_version = 7", "not_authorized"],
      [writer, "PRAGMA foreign_keys = off", "not_authorized"],
    ];
    for (const [client, sql, code] of refusals) {
      await expect(client.execute(sql), sql).rejects.toMatchObject({ code });
    }
    await expect(reader.batch([`INSERT INTO ${table}_r VALUES (3)`], "write")).rejects.toMatchObject({
      code: "SQLITE_READONLY",
    });
    await expect(writer.batch([`ALTER TABLE ${table}_r ADD COLUMN x`], "write")).rejects.toMatchObject({
      code: "not_authorized",
    });
    expect((await admin.execute("PRAGMA user_version")).rows[0]?.["user_version"]).toBe(0);
    expect((await admin.execute(`SELECT count(*) AS n FROM ${table}_r`)).rows[0]?.["n"]).toBe(1);
  });

  it("refuses who is unknown", async () => {
    const nobody = connect(scheme, { token: "nonsense" });
    await expect(nobody.execute("SELECT 1")).rejects.toMatchObject({ code: "unauthenticated" });
  });
});

it.each(["http", "ws"])("docs/hrana.md runs as written, over %s", async (scheme) => {
  const page = readCheckoutFile("docs/hrana.md");
  const programs = [...page.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)];
  // A block of another kind would have to be run too.
  expect(programs.map(([, language]) => language)).toEqual(["ts"]);
  const program = programs[0]?.[2] ?? "";
  const own = await serve();
  const folder = scratchFolder();
  symlinkSync(fileURLToPath(new URL("../../node_modules", import.meta.url)), join(folder, "node_modules"));
  const path = join(folder, "page.ts");
  const url = own.url.replace("http", scheme);
  writeFileSync(path, program.replace('"http://127.0.0.1:8080"', JSON.stringify(url)));
  const { stdout } = await promisify(execFile)(process.execPath, ["--no-warnings", path], {
    env: { ...process.env, TOKEN: tokenOf(1) },
  });
  const shown = [...program.matchAll(/\/\/ shows: (.*)$/gm)].map(([, text]) => text);
  expect(stdout.trim().split("\n")).toEqual(shown);
  await own.close();
});
