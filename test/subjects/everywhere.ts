/**
 * Looks for a person in everything that can be had of a tenant: its tables now and at every earlier moment, its streams, the
 * records of its log, and the bytes of every file of the data directory, the projection's once more with its cipher taken
 * off, free pages included.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3-multiple-ciphers";
import { expect } from "vitest";
import type { Kimberlite, TenantId } from "../../src/index.ts";
import { openBlock } from "../../src/log/block.ts";
import { Needles, textSecret } from "../at-rest/scanner.ts";
import { filesBelow, type Scratch } from "../isolation/scratch.ts";
import { keysOf } from "./tenant-keys.ts";

/** Closes nothing: `db` goes on. */
export async function expectNowhere(
  db: Kimberlite,
  scratch: Scratch,
  tenant: TenantId,
  secrets: readonly string[],
): Promise<void> {
  expect(await whereIs(db, scratch, tenant, secrets)).toEqual([]);
}

export async function whereIs(
  db: Kimberlite,
  scratch: Scratch,
  tenant: TenantId,
  secrets: readonly string[],
): Promise<string[]> {
  const found: string[] = [];
  const look = (where: string, what: unknown): void => {
    const text = JSON.stringify(what, (_, value: unknown) =>
      typeof value === "bigint"
        ? String(value)
        : value instanceof Uint8Array
          ? Buffer.from(value).toString("latin1")
          : value,
    );
    for (const secret of secrets) if (text?.includes(secret) === true) found.push(`${where}: ${secret}`);
  };
  const tables = await db.query(
    tenant,
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%\\_data' ESCAPE '\\'",
  );
  const { size } = await db.describeTenant(tenant);
  for (const name of tables.map((row) => String(row["name"]))) {
    const sql = `SELECT * FROM "${name}"`;
    look(name, await db.query(tenant, sql));
    // A projection of its own is built for each moment.
    for (let at = size - 1n; at >= 0n; at -= 4n) {
      look(`${name} at ${at}`, await db.query(tenant, sql, [], { at }).catch(() => null));
    }
  }
  for (const { id, name } of await db.streams(tenant))
    look(name, await Array.fromAsync(db.read(tenant, id)).catch(() => null));
  look("audit", await Array.fromAsync(db.audit(tenant)));
  look("certificates", await db.subjectCertificates(tenant));
  found.push(...(await inFiles(scratch, tenant, secrets)));
  return found;
}

/** In the files as they are, in the records under the log's key, in the pages under the projection's. */
async function inFiles(scratch: Scratch, tenant: TenantId, secrets: readonly string[]): Promise<string[]> {
  const needles = new Needles(secrets.map(textSecret));
  const findings = filesBelow(scratch.path()).flatMap((path) => needles.findIn(fs.readFileSync(path), path));
  await using keys = await keysOf(scratch, tenant);
  for (const block of keys.log.blocks()) {
    if (block.header.dekVersion === 0) continue;
    for (const record of openBlock(block, keys.keys.logKey(block.header.dekVersion)))
      findings.push(...needles.findIn(record, `record of block ${block.header.firstOffset}`));
  }
  const folder = scratch.path("tenants", tenant.toString(), "projection");
  for (const name of fs.readdirSync(folder)) {
    if (!name.endsWith(".db")) continue;
    findings.push(...needles.findIn(plainPages(join(folder, name), keys.keys.projectionKey().key), name));
  }
  return findings.map(({ path, secret }) => `${path}: ${secret}`);
}

/** Every page of a copy of the file, also the free ones, in clear. */
function plainPages(path: string, key: Buffer): Buffer {
  const copy = join(fs.mkdtempSync(join(path, "..", "..", "..", "..", "..", "plain-")), "copy.db");
  for (const suffix of ["", "-wal"])
    if (fs.existsSync(path + suffix)) fs.copyFileSync(path + suffix, copy + suffix);
  const db = new Database(copy);
  db.pragma("cipher='aegis'");
  db.pragma(`key='raw:${key.toString("hex")}'`);
  db.pragma("journal_mode=DELETE");
  db.pragma("rekey=''");
  db.close();
  const bytes = fs.readFileSync(copy);
  fs.rmSync(join(copy, ".."), { recursive: true });
  return bytes;
}
