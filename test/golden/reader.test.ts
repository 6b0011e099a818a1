/**
 * The golden data directory of format version 1: a reader written from `docs/FORMAT.md` alone and the engine itself
 * both read exactly what was put into it. A change that either cannot read is a new format version, not a new golden
 * directory.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Kimberlite, masterKeyFile, TenantId } from "../../src/index.ts";
import { type Cbor, readCbor } from "./cbor.ts";
import {
  type GoldenLog,
  type GoldenRecord,
  merkleRoot,
  openCheckpointNote,
  readLog,
  readLogKeys,
} from "./reader.ts";

interface Expected {
  readonly verifierKey: string;
  readonly tenants: readonly {
    readonly tenant: string;
    readonly checkpoint: string;
    readonly early?: string;
    readonly tables: Readonly<Record<string, readonly (readonly string[])[]>>;
  }[];
  readonly records: Readonly<Record<string, readonly Record<string, unknown>[]>>;
}

const GOLDEN = fileURLToPath(new URL("./data/v1", import.meta.url));
const MASTER = join(GOLDEN, "master.key");
const ROOT = join(GOLDEN, "data");
const expected = JSON.parse(readFileSync(join(GOLDEN, "expected.json"), "utf8")) as Expected;
const tenants = expected.tenants.map((item) => [item.tenant, item] as const);

function readTenant(tenant: string): GoldenLog {
  const id = BigInt(tenant);
  return readLog(ROOT, id, readLogKeys(ROOT, MASTER, id));
}

describe("a reader written from docs/FORMAT.md", () => {
  it.each(Object.keys(expected.records))("reads every record of tenant %s", (tenant) => {
    expect(readTenant(tenant).records.map(plainRecord)).toEqual(expected.records[tenant]);
  });

  it.each(tenants)("finds the rows of tenant %s by applying its records", (tenant, { tables }) => {
    const found = tablesAfter(readTenant(tenant).records);
    for (const [name, rows] of Object.entries(tables))
      expect(found.get(name)?.toSorted()).toEqual(sorted(rows));
  });

  it.each(tenants)(
    "computes the root that the checkpoint of tenant %s was signed for",
    (tenant, { checkpoint }) => {
      const { leaves } = readTenant(tenant);
      const { origin, size, root } = openCheckpointNote(checkpoint, expected.verifierKey);
      const { installation } = JSON.parse(readFileSync(join(ROOT, "kimberlite.json"), "utf8")) as {
        installation: string;
      };
      expect(origin).toBe(`kimberlite/${installation}/tenant/${tenant}`);
      expect(size).toBe(BigInt(leaves.length));
      expect(root).toBe(merkleRoot(leaves).toString("base64"));
    },
  );

  it("refuses a changed byte, wherever it is", () => {
    const copy = copyGolden();
    const folder = join(copy.root, "tenants", "1", "log");
    const [name = ""] = readdirSync(folder);
    const whole = readFileSync(join(folder, name));
    const keys = readLogKeys(ROOT, MASTER, 1n);
    for (const at of [8, 60, 100, 200, 300, whole.length - 1]) {
      const changed = Buffer.from(whole);
      changed[at] = (changed[at] ?? 0) ^ 1;
      writeFileSync(join(folder, name), changed);
      expect(() => readLog(copy.root, 1n, keys), `byte ${at}`).toThrow();
    }
    copy.remove();
  });
});

describe("the engine", () => {
  let copy: ReturnType<typeof copyGolden>;
  let db: Kimberlite;

  beforeAll(async () => {
    copy = copyGolden();
    db = await Kimberlite.open({ dataDir: copy.root, masterKey: masterKeyFile(copy.master), create: false });
  });

  afterAll(async () => {
    await db.close();
    copy.remove();
  });

  it("knows the tenants", async () => {
    const listed = await db.listTenants();
    expect(listed.map(({ id, name, region }) => [id, name, region])).toEqual([
      [1n, "Hospital A", "us-east"],
      [2n, "Clinic \u00c9", "eu-west"],
      [2n ** 63n - 1n, "Last", "test-1"],
    ]);
  });

  it.each(tenants)("reads the rows of tenant %s", async (tenant, { tables }) => {
    for (const [name, rows] of Object.entries(tables)) {
      expect(await rowsOf(db, TenantId(tenant), name)).toEqual(sorted(rows));
    }
  });

  it.each(tenants)(
    "verifies the log of tenant %s against its checkpoint",
    async (tenant, { checkpoint, early }) => {
      for (const note of [checkpoint, early ?? checkpoint]) {
        const report = await db.verifyTenant(TenantId(tenant), { checkpoint: note });
        expect(report.ok, report.reason).toBe(true);
      }
    },
  );

  it("reads events, finds documents, and knows a used idempotency key", async () => {
    const hospital = TenantId(1);
    const stream = (await db.streams(hospital)).find(({ name }) => name === "vitals");
    if (stream === undefined) throw new Error("the stream is there");
    const events = [];
    for await (const item of db.read(hospital, stream.id)) if (item.kind === "event") events.push(item.data);
    const first = [{ pulse: 61, tags: ["rest", null, true] }, "text", Buffer.of(1, 2, 3)];
    expect(events).toEqual([...first, 72, -1.25, 2n ** 60n]);
    const again = await db.append(hospital, stream.id, first, { idempotencyKey: "batch-1" });
    expect(again.offset).toBe(0n);
    const found = await db.query(hospital, "SELECT body FROM notes WHERE notes MATCH 'freely'");
    expect(found).toEqual([{ body: "breathes freely" }]);
  });

  it("rebuilds the same rows from the log, and goes on writing", async () => {
    const hospital = TenantId(1);
    await db.rebuildProjection(hospital);
    for (const [name, rows] of Object.entries(expected.tenants[0]?.tables ?? {})) {
      expect(await rowsOf(db, hospital, name)).toEqual(sorted(rows));
    }
    const { offset } = await db.insert(hospital, "visits", { patient: 124, at: "2026-03-01" });
    expect(offset).toBe(BigInt(expected.records["1"]?.length ?? 0));
    expect(await db.query(hospital, "SELECT no FROM visits ORDER BY no")).toEqual([{ no: 2 }, { no: 3 }]);
  });
});

it("finds a block that was forged with hashes that are right: the seal does not open", async () => {
  const copy = copyGolden();
  const last = 2n ** 63n - 1n;
  const folder = join(copy.root, "tenants", `${last}`, "log");
  const path = join(folder, readdirSync(folder).at(-1) ?? "");
  const log = readFileSync(path);
  const hashAt = log.length - 32;
  const blockAt = log.lastIndexOf("KBLK");
  log[hashAt - 20] = (log[hashAt - 20] ?? 0) ^ 1;
  createHash("sha256").update(log.subarray(blockAt, hashAt)).digest().copy(log, hashAt);
  writeFileSync(path, log);
  for (const name of ["0.jnl", "1.jnl"]) rmSync(join(copy.root, "journal", name));
  await using db = await Kimberlite.open({ dataDir: copy.root, masterKey: masterKeyFile(copy.master) });
  const report = await db.verifyTenant(TenantId(last));
  const size = BigInt(expected.records[`${last}`]?.length ?? 0);
  expect(report).toMatchObject({ ok: false, firstBadOffset: size - 1n });
  expect(report.reason).toContain("its seal does not open");
});

/** A copy that may be changed; checking out lost the mode that a master key needs. */
function copyGolden(): { readonly root: string; readonly master: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-golden-"));
  const master = join(folder, "master.key");
  cpSync(ROOT, join(folder, "data"), { recursive: true });
  copyFileSync(MASTER, master);
  chmodSync(master, 0o600);
  return { root: join(folder, "data"), master, remove: () => rmSync(folder, { recursive: true }) };
}

/** A record in the words of `expected.json`. */
function plainRecord({ block, dekVersion, record }: GoldenRecord): Record<string, unknown> {
  const names = { o: "offset", t: "timeUs", a: "actor", i: "idempotencyKey", r: "correlationId" };
  const head = Object.entries(names).filter(([key]) => record.has(key));
  return {
    block: `${block}`,
    dekVersion,
    ...Object.fromEntries(head.map(([key, name]) => [name, `${record.get(key) as bigint | string}`])),
    changes: changesOf(record).map(plainChange),
  };
}

function changesOf(record: Map<string, Cbor>): Cbor[][] {
  return record.get("c") as Cbor[][];
}

function plainChange([kind, ...items]: Cbor[]): unknown {
  const [first, second, third, fourth] = items as [Cbor, Cbor, Cbor, Cbor];
  if (kind === "r") {
    const key = typeof second === "bigint" ? `${second}` : { bytes: hex(second) };
    return { row: Number(first), key, before: hex(third), after: hex(fourth) };
  }
  if (kind === "d") return { ddl: first, bindings: bindingsOf(second) };
  if (kind === "q") return { sequence: first, value: second === null ? null : `${second as bigint}` };
  if (kind === "s") return { stream: Number(first), name: second };
  if (kind === "e")
    return { events: Number(first), first: `${second as bigint}`, items: (third as Cbor[]).map(hex) };
  throw new Error("a change of no known kind");
}

function bindingsOf(bindings: Cbor): [number, string | null][] {
  return (bindings as [bigint, string | null][]).map(([stream, name]) => [Number(stream), name]);
}

function hex(bytes: Cbor): string | null {
  return bytes === null ? null : (bytes as Buffer).toString("hex");
}

/** The rows of every table after the last record, by the rules of docs/FORMAT.md. */
function tablesAfter(records: readonly GoldenRecord[]): Map<string, string[]> {
  const names = new Map<number, string>();
  const rows = new Map<number, Map<string, string>>();
  for (const change of records.flatMap(({ record }) => changesOf(record))) {
    const [kind, stream, key, , after] = change as [Cbor, Cbor, Cbor, Cbor, Cbor];
    if (kind === "d") {
      for (const [bound, name] of bindingsOf(key)) {
        if (name === null) names.delete(bound);
        else names.set(bound, name);
      }
    } else if (kind === "r") {
      const table = rows.get(Number(stream)) ?? new Map<string, string>();
      rows.set(Number(stream), table);
      const place = typeof key === "bigint" ? `${key}` : `${hex(key)}`;
      if (after === null) table.delete(place);
      else table.set(place, (readCbor(after as Buffer) as Cbor[]).map(plainCell).join(", "));
    }
  }
  return new Map([...names].map(([stream, name]) => [name, [...(rows.get(stream)?.values() ?? [])]]));
}

function plainCell(value: Cbor): string {
  if (value === null) return "null ";
  if (typeof value === "bigint") return `integer ${value}`;
  if (typeof value === "number") return `real ${value}`;
  if (typeof value === "string") return `text ${Buffer.from(value).toString("hex").toUpperCase()}`;
  if (Buffer.isBuffer(value)) return `blob ${value.toString("hex").toUpperCase()}`;
  if (typeof value === "object" && "rawText" in value)
    return `text ${value.rawText.toString("hex").toUpperCase()}`;
  throw new Error("a row image holds a value of no SQLite type");
}

function sorted(rows: readonly (readonly string[])[]): string[] {
  return rows.map((row) => row.join(", ")).toSorted();
}

/** A table's rows with exact types, as SQLite tells them. */
async function rowsOf(db: Kimberlite, tenant: TenantId, table: string): Promise<string[]> {
  const { columns } = await db.executeArrays(tenant, `SELECT * FROM "${table}" LIMIT 0`);
  const cells = columns.map(
    (name) => `typeof("${name}"), CASE typeof("${name}") WHEN 'integer' THEN CAST("${name}" AS TEXT)
      WHEN 'real' THEN "${name}" ELSE hex("${name}") END`,
  );
  const { rows } = await db.executeArrays(tenant, `SELECT ${cells.join(", ")} FROM "${table}"`);
  return sorted(
    rows.map((row) =>
      columns.map((_, index) => `${String(row[2 * index])} ${String(row[2 * index + 1] ?? "")}`),
    ),
  );
}
