/**
 * Makes the golden data directory of format version 1, once: `node test/golden/make.ts test/golden/data/v1`.
 *
 * What it made is checked in and never made again: it stands for the installations that are out there. A later format
 * gets a folder of its own beside it. It is left as a kill would leave it: the last commit of tenant 2
 * is in the journal alone. Tenant 2 and the last tenant come without a projection, and segments are short, so that
 * all of this is read too.
 */
import * as fs from "node:fs";
import { dirname, join } from "node:path";
import type { Clock } from "../../src/host/clock.ts";
import { systemDisk } from "../../src/host/disk.ts";
import { systemRandomness } from "../../src/host/randomness.ts";
import {
  createMasterKeyFile,
  Duration,
  Kimberlite,
  masterKeyFile,
  Region,
  TenantId,
} from "../../src/index.ts";
import { KeyStore } from "../../src/keys/key-store.ts";
import { TenantKeys } from "../../src/keys/tenant-keys.ts";
import { openBlock } from "../../src/log/block.ts";
import { type Change, decodeRecord } from "../../src/log/record.ts";
import { TenantLog } from "../../src/log/tenant-log.ts";
import { SYSTEM_TENANT } from "../../src/tenant/tenant-id.ts";

const HOSPITAL = TenantId(1);
const CLINIC = TenantId(2);
const LAST = TenantId(2n ** 63n - 1n);
const TABLES = new Map([
  [HOSPITAL, ["patients", "visits", "codes", "plain", "renamed"]],
  [CLINIC, ["patients"]],
  [LAST, ["ledger"]],
]);

/** One second a call from the first of 2026 on. */
function steppingClock(): Clock {
  let timeUs = 1_767_225_600_000_000n;
  return {
    wallTimeUs: () => {
      timeUs += 1_000_000n;
      return timeUs;
    },
    monotonicMs: () => performance.now(),
  };
}

async function fillHospital(db: Kimberlite): Promise<void> {
  const id = HOSPITAL;
  await db.execute(id, "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL, dob TEXT, extra)");
  await db.execute(
    id,
    "CREATE TABLE visits (no INTEGER PRIMARY KEY AUTOINCREMENT, patient INTEGER, at TEXT)",
  );
  await db.execute(
    id,
    "CREATE TABLE codes (system TEXT, code TEXT, label TEXT, PRIMARY KEY (system, code)) WITHOUT ROWID",
  );
  await db.execute(id, "CREATE TABLE plain (value)");
  await db.insert(id, "patients", { id: 123, name: "Alice Smith", dob: "1985-03-15", extra: null });
  await Promise.all(
    [0, 23, 24, 255, 256, 65_535, 65_536, 4_294_967_295, 4_294_967_296, -1, -24, -25, -256, -257].map(
      (value) => db.insert(id, "plain", { value }),
    ),
  );
  await db.transaction(id, [
    { sql: "INSERT INTO plain VALUES (?), (?), (?)", params: [2n ** 63n - 1n, -(2n ** 63n), 1.5] },
    {
      sql: "INSERT INTO plain VALUES (CAST(x'ff4100' AS TEXT)), ('na\u00efve \u{1f3e5}'), (x''), (x'00ff'), ('')",
    },
    "INSERT INTO plain VALUES (CAST(2 AS REAL)), (9e999), (-9e999)",
  ]);
  await db.insert(id, "visits", [
    { patient: 123, at: "2026-01-02" },
    { patient: 123, at: "2026-01-09" },
  ]);
  await db.insert(id, "codes", [
    { system: "icd", code: "J45", label: "Asthma" },
    { system: "icd", code: "E11", label: "Diabetes" },
  ]);
  await db.execute(id, "UPDATE codes SET code = 'E11.9' WHERE code = 'E11'");
  await db.execute(id, "DELETE FROM visits WHERE no = 1");
  await db.rotateDek(id);
  await db.transaction(id, async (transaction) => {
    await transaction.execute("INSERT INTO patients VALUES (124, 'Bob Jones', NULL, x'cafe')");
    await transaction.execute("UPDATE patients SET dob = '1990-07-22' WHERE id = 124");
  });
  await db.execute(id, "CREATE TABLE former (a PRIMARY KEY, b)");
  await db.execute(id, "INSERT INTO former VALUES ('x', 1), ('y', 2)");
  await db.execute(id, "ALTER TABLE former RENAME TO renamed");
  await db.execute(id, "CREATE TABLE gone AS SELECT id, name FROM patients");
  await db.execute(id, "DROP TABLE gone");
  await db.execute(id, "PRAGMA user_version = 7");
  await db.execute(id, "CREATE VIRTUAL TABLE notes USING fts5(body)");
  await db.insert(id, "notes", { body: "breathes freely" });
  const stream = await db.createStream(id, "vitals", { actor: "device:7", correlationId: "req-1" });
  await db.append(id, stream, [{ pulse: 61, tags: ["rest", null, true] }, "text", Uint8Array.of(1, 2, 3)], {
    actor: "device:7",
    correlationId: "req-2",
    idempotencyKey: "batch-1",
  });
  await db.rotateKek(id);
  await db.append(id, stream, [72, -1.25, 2n ** 60n], { expectedOffset: 3 });
}

async function fillOthers(db: Kimberlite): Promise<void> {
  await db.execute(CLINIC, "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT)");
  await db.insert(CLINIC, "patients", { id: 123, name: "Bob Johnson" });
  await db.execute(LAST, "CREATE TABLE ledger (entry INTEGER PRIMARY KEY, amount INTEGER)");
  for (let entry = 1; entry <= 12; entry += 1)
    await db.insert(LAST, "ledger", { entry, amount: entry * 100 });
}

/** A table's rows with exact types, as SQLite itself tells them. */
async function rowsOf(db: Kimberlite, tenant: TenantId, table: string): Promise<unknown[]> {
  const { columns } = await db.executeArrays(tenant, `SELECT * FROM "${table}" LIMIT 0`);
  const cells = columns.map((column) => {
    const name = `"${column}"`;
    return `typeof(${name}), CASE typeof(${name}) WHEN 'integer' THEN CAST(${name} AS TEXT) WHEN 'real'
      THEN ${name} ELSE hex(${name}) END`;
  });
  const { rows } = await db.executeArrays(tenant, `SELECT ${cells.join(", ")} FROM "${table}"`);
  return rows.map((row) =>
    columns.map((_, index) => `${String(row[2 * index])} ${String(row[2 * index + 1] ?? "")}`),
  );
}

function plainChange(change: Change): unknown {
  const hex = (bytes: Uint8Array | null): string | null =>
    bytes === null ? null : Buffer.from(bytes).toString("hex");
  switch (change.kind) {
    case "row": {
      const key = typeof change.key === "bigint" ? change.key.toString() : { bytes: hex(change.key) };
      return { row: change.stream, key, before: hex(change.before), after: hex(change.after) };
    }
    case "ddl":
      return { ddl: change.sql, bindings: change.bindings.map(({ stream, name }) => [stream, name]) };
    case "sequence":
      return { sequence: change.table, value: change.value?.toString() ?? null };
    case "create-stream":
      return { stream: change.stream, name: change.name };
    case "events":
      return { events: change.stream, first: change.firstOffset.toString(), items: change.events.map(hex) };
  }
}

/** What the engine itself reads from a tenant's log, in the words of `reader.ts`. */
async function recordsOf(root: string, master: string, tenant: TenantId): Promise<unknown[]> {
  const keys = await TenantKeys.load({
    tenant,
    master: masterKeyFile(master),
    store: await KeyStore.open(join(root, "keys"), systemDisk),
    randomness: systemRandomness(),
    clock: steppingClock(),
  });
  const log = TenantLog.open({ tenant, root, disk: systemDisk, randomness: systemRandomness() });
  const records: unknown[] = [];
  for (const block of log.blocks()) {
    const { firstOffset, dekVersion } = block.header;
    for (const encoded of openBlock(block, keys.logKey(dekVersion))) {
      const { offset, timeUs, actor, idempotencyKey, correlationId, changes } = decodeRecord(encoded);
      records.push({
        block: firstOffset.toString(),
        dekVersion,
        offset: offset.toString(),
        timeUs: timeUs.toString(),
        actor,
        ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
        ...(correlationId === undefined ? {} : { correlationId }),
        changes: changes.map(plainChange),
      });
    }
  }
  log.close();
  keys.close();
  return records;
}

function copyFolder(from: string, to: string, wanted: (path: string) => boolean): void {
  for (const name of fs.readdirSync(from, { recursive: true, encoding: "utf8" }).sort()) {
    const source = join(from, name);
    if (!fs.statSync(source).isFile() || !wanted(name)) continue;
    fs.mkdirSync(dirname(join(to, name)), { recursive: true });
    fs.copyFileSync(source, join(to, name));
  }
}

/** The zeros behind the frames of a journal file are left out: the engine writes them again. */
function copyJournal(from: string, to: string): void {
  fs.mkdirSync(join(to, "journal"), { recursive: true });
  for (const name of ["0.jnl", "1.jnl"]) {
    const bytes = fs.readFileSync(join(from, "journal", name));
    const used = bytes.findLastIndex((byte) => byte !== 0) + 1;
    fs.writeFileSync(join(to, "journal", name), bytes.subarray(0, Math.ceil(used / 512) * 512));
  }
}

async function make(target: string): Promise<void> {
  if (fs.existsSync(target)) throw new Error("the folder is there already: golden data is never made again");
  const work = `${target}.making`;
  const root = join(work, "data");
  const master = join(target, "master.key");
  fs.mkdirSync(work);
  fs.mkdirSync(target);
  createMasterKeyFile(master);
  const clock = steppingClock();
  const options = { dataDir: root, clock, logSegmentBytes: 4_096 };
  const open = (): Promise<Kimberlite> => Kimberlite.open({ ...options, masterKey: masterKeyFile(master) });
  const tenants = [HOSPITAL, CLINIC, LAST];
  let db = await open();
  await db.createTenant({
    id: HOSPITAL,
    name: "Hospital A",
    region: Region.UsEast,
    retention: Duration.days(2555),
  });
  await db.createTenant({
    id: CLINIC,
    name: "Clinic \u00c9",
    region: Region.EuWest,
    quota: { maxLogBytes: 1_000_000 },
  });
  await db.createTenant({ id: LAST, name: "Last", region: Region.of("test-1") });
  await fillHospital(db);
  await fillOthers(db);
  const early = await db.checkpoint(HOSPITAL);
  await db.execute(HOSPITAL, "UPDATE patients SET extra = 'after the checkpoint' WHERE id = 123");
  await db.close();
  const noProjection = new Set([CLINIC, LAST].map((tenant) => join("tenants", `${tenant}`, "projection")));
  const wanted = (path: string): boolean =>
    !path.startsWith("journal") &&
    path !== "lock" &&
    ![...noProjection].some((folder) => path.startsWith(folder));
  copyFolder(root, join(target, "data"), wanted);
  db = await open();
  await db.insert(CLINIC, "patients", { id: 124, name: "In the journal alone" });
  copyJournal(root, join(target, "data"));
  const expected = [];
  for (const tenant of tenants) {
    const tables: Record<string, unknown> = {};
    for (const table of TABLES.get(tenant) ?? []) tables[table] = await rowsOf(db, tenant, table);
    const checkpoint = await db.checkpoint(tenant);
    expected.push({ tenant: `${tenant}`, checkpoint, ...(tenant === HOSPITAL ? { early } : {}), tables });
  }
  const verifierKey = db.verifierKey();
  await db.close();
  const records: Record<string, unknown> = {};
  for (const tenant of [SYSTEM_TENANT, ...tenants])
    records[`${tenant}`] = await recordsOf(root, master, tenant);
  const text = JSON.stringify({ format: 1, verifierKey, tenants: expected, records }, undefined, 1);
  fs.writeFileSync(join(target, "expected.json"), `${text}\n`);
  fs.rmSync(work, { recursive: true });
}

const [target] = process.argv.slice(2);
if (target === undefined) throw new Error("usage: node test/golden/make.ts <new folder>");
await make(target);
