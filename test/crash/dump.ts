/** Everything that a projection holds, as text to compare: schema, rows with rowids and types, our own bookkeeping. */
import { join } from "node:path";
import { systemClock } from "../../src/host/clock.ts";
import { systemDisk } from "../../src/host/disk.ts";
import { systemRandomness } from "../../src/host/randomness.ts";
import { masterKeyFile } from "../../src/index.ts";
import { KeyStore } from "../../src/keys/key-store.ts";
import { TenantKeys } from "../../src/keys/tenant-keys.ts";
import { projectionFolder } from "../../src/pipeline/projection-base.ts";
import { DEFAULT_LIMITS, openConnection } from "../../src/projection/connection.ts";
import type { SqliteDatabase } from "../../src/projection/sqlite.ts";
import { TenantId } from "../../src/tenant/tenant-id.ts";

/** Of a data directory that no process has open. Tables and rows in order, a line each. */
export async function dumpProjection(
  at: { readonly dataDir: string; readonly masterKey: string },
  tenant: number,
): Promise<string[]> {
  const keys = await TenantKeys.load({
    tenant: TenantId(tenant),
    master: masterKeyFile(at.masterKey),
    store: await KeyStore.open(join(at.dataDir, "keys"), systemDisk),
    randomness: systemRandomness(),
    clock: systemClock,
  });
  const { version, key } = keys.projectionKey();
  const path = join(projectionFolder(at.dataDir, TenantId(tenant)), `${version}.db`);
  const { db } = openConnection({ path, key, role: "read", limits: DEFAULT_LIMITS });
  try {
    return [...dumpDatabase(db)];
  } finally {
    db.close();
    keys.close();
  }
}

function* dumpDatabase(db: SqliteDatabase): Generator<string> {
  const schema = db
    .prepare("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
    .all() as {
    type: string;
    name: string;
    sql: string | null;
  }[];
  for (const item of schema) yield JSON.stringify(item);
  for (const { type, name, sql } of schema) {
    if (type !== "table" || sql?.startsWith("CREATE VIRTUAL") === true) continue;
    const columns = columnsOf(db, name);
    const rowid = /WITHOUT\s+ROWID/i.test(sql ?? "") ? [] : ["rowid"];
    const wanted = [...rowid, ...columns].flatMap((column) => [`typeof(${column})`, `quote(${column})`]);
    const rows = db
      .prepare(`SELECT ${wanted.join(", ")} FROM "${name}"`)
      .raw()
      .all() as unknown[][];
    const lines = rows.map((row) => `${name}: ${row.join(" ")}`);
    yield* name === "sqlite_sequence"
      ? lines.map((line) => line.replace(/: \S+ \S+/, ":")).sort()
      : lines.sort();
  }
}

/** Seals are counted on the safe side: one that failed, or was under way when the key changed, counts too. */
function columnsOf(db: SqliteDatabase, table: string): string[] {
  const sql = "SELECT name FROM pragma_table_xinfo(?) ORDER BY cid";
  const names = (db.prepare(sql).all(table) as { name: string }[]).map((column) => column.name);
  return names
    .filter((name) => table !== "_kimberlite_meta" || name !== "blocks_sealed")
    .map((name) => `"${name}"`);
}
