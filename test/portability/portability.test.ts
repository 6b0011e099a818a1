/**
 * A tenant that leaves and arrives: whatever an export says follows from its records, one altered byte is found and
 * named, an interrupted one goes on, and what is imported is the tenant, with its history and its proofs.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { parquetReadObjects } from "hyparquet";
import { describe, expect, it } from "vitest";
import { systemDisk } from "../../src/host/disk.ts";
import { type Failpoint, onFailpoint } from "../../src/host/failpoint.ts";
import {
  Duration,
  type Kimberlite,
  openCheckpoint,
  parseVerifierKey,
  type StreamId,
  TenantId,
  verifyConsistency,
  verifyExport,
} from "../../src/index.ts";
import { type DiskCall, faultyDisk, type Interruption, refusing } from "../../src/testing/faulty-disk.ts";
import { filesBelow, flipBit, Scratch } from "../isolation/scratch.ts";

/** Bits that are flipped, one after the other. */
const SWEPT = process.env["KIMBERLITE_SOAK"] === undefined ? 24 : 1_000;
const A = TenantId(7);
const B = TenantId(8);

async function fill(db: Kimberlite): Promise<StreamId> {
  await db.createTenant({ id: A, name: "St. Mary's", retention: Duration.days(30) });
  await db.createTenant({ id: B, name: "other" });
  await db.execute(
    A,
    "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT, weight REAL, scan BLOB, any)",
  );
  await db.execute(A, "CREATE INDEX by_name ON patients (name)");
  await db.execute(A, "CREATE VIEW heavy AS SELECT * FROM patients WHERE weight > 100");
  await db.execute(A, "CREATE VIRTUAL TABLE notes USING fts5(body)");
  await db.execute(A, 'CREATE TABLE "../odd ""name" (a PRIMARY KEY, b) WITHOUT ROWID');
  await db.insert(A, "patients", [
    { name: 'Ann, "the first"\r\n', weight: 1, scan: Buffer.from([0, 255]), any: 1 },
    { name: "", weight: Infinity, scan: null, any: "text" },
    { name: null, weight: -0.5, scan: null, any: 9_007_199_254_740_993n },
    { name: "Zoë\u2028 名", weight: 120, scan: Buffer.alloc(0), any: Buffer.from("blob") },
  ]);
  await db.execute(A, "INSERT INTO notes VALUES ('a cough')");
  await db.execute(A, `INSERT INTO "../odd ""name" VALUES ('k', 2.5)`);
  await db.execute(A, "UPDATE patients SET weight = 2.25 WHERE id = 1", [], {
    actor: "nurse",
    correlationId: "c1",
  });
  await db.execute(A, "DELETE FROM patients WHERE id = 2");
  const visits = await db.createStream(A, "visits");
  await db.append(A, visits, [{ n: 2n ** 60n, at: null, list: [1.5, "x", true], raw: new Uint8Array([1]) }], {
    idempotencyKey: "first",
  });
  return visits;
}

async function exported(scratch: Scratch): Promise<{ readonly dir: string; readonly key: string }> {
  const dir = join(scratch.folder, "export");
  const key = await scratch.with(async (db) => {
    await fill(db);
    await db.exportTenant(A, dir, { actor: "dpo", reason: "they asked" });
    return db.verifierKey();
  });
  return { dir, key };
}

const jsonLines = (dir: string): Record<string, unknown>[] =>
  fs
    .readFileSync(join(dir, "events-000001.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

const table = (dir: string, name: string, ending: string): Buffer => {
  const found = fs.readdirSync(join(dir, "tables")).find((file) => file.endsWith(`-${name}.${ending}`));
  return fs.readFileSync(join(dir, "tables", found ?? ""));
};

describe("an export", () => {
  it("holds every event, table and the schema, and verifies offline", async () => {
    await using scratch = new Scratch();
    const { dir, key } = await exported(scratch);
    expect(await verifyExport(dir, { key })).toMatchObject({ tenant: "7", trusted: true });
    const lines = jsonLines(dir);
    expect(lines.map(({ offset }) => offset)).toEqual(lines.map((_, index) => String(index)));
    expect(lines.find(({ actor }) => actor === "nurse")).toMatchObject({
      correlationId: "c1",
      changes: [
        { kind: "update", key: "1", after: [1, 'Ann, "the first"\r\n', 2.25, { base64: "AP8=" }, 1] },
      ],
    });
    expect(JSON.stringify(lines)).toContain('{"integer":"1152921504606846976"}');
    // The export's own record is in the export.
    expect(JSON.stringify(lines.at(-1)?.["changes"])).toContain("tenant.export");
    expect(table(dir, "patients", "csv").toString("utf8")).toBe(
      [
        "id,name,weight,scan,any",
        '1,"Ann, ""the first""\r\n",2.25,\\x00ff,1',
        "3,,-0.5,,9007199254740993",
        "4,Zoë\u2028 名,120.0,\\x,\\x626c6f62",
        "",
      ].join("\r\n"),
    );
    const bytes = table(dir, "patients", "parquet");
    const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
    const rows = await parquetReadObjects({ file, utf8: false });
    expect(rows.map(({ id, weight, any }) => [id, weight, any])).toEqual([
      [1n, 2.25, "1"],
      [3n, -0.5, "9007199254740993"],
      [4n, 120, '{"base64":"YmxvYg=="}'],
    ]);
    expect(table(dir, "notes", "csv").toString()).toBe("body\r\na cough\r\n");
    expect(table(dir, "_odd_name", "csv").toString()).toBe("a,b\r\nk,2.5\r\n");
    const schema = fs.readFileSync(join(dir, "schema.sql"), "utf8");
    expect(schema).toContain("CREATE INDEX by_name");
    expect(schema).not.toContain("notes_content");
    expect(fs.statSync(join(dir, "manifest.json")).mode & 0o077).toBe(0);
  });

  it("holds values of a kind that its column had not shown in twenty thousand rows", async () => {
    await using scratch = new Scratch();
    const dir = join(scratch.folder, "export");
    const key = await scratch.with(async (db) => {
      await db.createTenant({ id: A, name: "late" });
      await db.execute(A, "CREATE TABLE late (n, m)");
      await db.execute(
        A,
        `WITH RECURSIVE r (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 20500)
         INSERT INTO late SELECT i, iif(i > 20400, 'text', NULL) FROM r`,
      );
      await db.execute(A, "INSERT INTO late VALUES ('last', 0.5)");
      await db.exportTenant(A, dir, {});
      return db.verifierKey();
    });
    await verifyExport(dir, { key });
    const bytes = table(dir, "late", "parquet");
    const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
    const rows = await parquetReadObjects({ file, utf8: false });
    expect(rows.length).toBe(20_501);
    expect([rows[0], rows[20_499], rows[20_500]].map((row) => [row?.["n"], row?.["m"]])).toEqual([
      ["1", null],
      ["20500", '"text"'],
      ['"last"', "0.5"],
    ]);
  });

  it("altered in one byte anywhere is refused, with the first wrong line", async () => {
    await using scratch = new Scratch();
    const { dir, key } = await exported(scratch);
    const files = filesBelow(dir);
    const pick = fc.record({
      file: fc.nat(files.length - 1),
      at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      bit: fc.nat(7),
    });
    await fc.assert(
      fc.asyncProperty(pick, async ({ file, at, bit }) => {
        const path = files[file] as string;
        const size = fs.statSync(path).size;
        if (size === 0) return;
        const position = Math.floor(at * size);
        flipBit(path, position, bit);
        const before = fs.readFileSync(path).subarray(0, position);
        const refusal = await verifyExport(dir, { key }).then(
          () => undefined,
          (error: unknown) => error,
        );
        flipBit(path, position, bit);
        expect(refusal).toMatchObject({ code: expect.stringMatching(/^export_invalid$/) });
        if (!path.endsWith(".jsonl")) return;
        const line = before.filter((byte) => byte === 10).length + 1;
        const { detail } = refusal as { detail: Record<string, unknown> };
        expect(detail).toMatchObject({ file: "events-000001.jsonl" });
        // A line end that was flipped away shows in the line that it ended.
        expect(Math.abs(Number(detail["line"]) - line)).toBeLessThanOrEqual(1);
      }),
      { numRuns: SWEPT, seed: 20_261 },
    );
    expect(await verifyExport(dir, { key })).toMatchObject({ trusted: true });
  });

  it("with a line removed, doubled, moved or a file missing is refused", async () => {
    await using scratch = new Scratch();
    const { dir, key } = await exported(scratch);
    const path = join(dir, "events-000001.jsonl");
    const text = fs.readFileSync(path, "utf8");
    const lines = text.split("\n");
    const changed = [
      lines.toSpliced(3, 1),
      lines.toSpliced(3, 0, lines[3] as string),
      lines.toSpliced(3, 2, lines[4] as string, lines[3] as string),
    ];
    for (const one of changed) {
      fs.writeFileSync(path, one.join("\n"));
      await expect(verifyExport(dir, { key })).rejects.toMatchObject({
        code: "export_invalid",
        detail: { file: "events-000001.jsonl" },
      });
    }
    fs.writeFileSync(path, text);
    fs.rmSync(join(dir, "schema.sql"));
    await expect(verifyExport(dir, { key })).rejects.toMatchObject({ detail: { file: "schema.sql" } });
  });

  it("signed by another key than the trusted one is refused", async () => {
    await using scratch = new Scratch();
    await using other = new Scratch();
    const { dir } = await exported(scratch);
    const key = await other.with(async (db) => db.verifierKey());
    await expect(verifyExport(dir, { key })).rejects.toMatchObject({ code: "export_invalid" });
    expect(await verifyExport(dir)).toMatchObject({ trusted: false });
  });

  it("goes on where a signal stopped it, and is then as whole as any", async () => {
    await using scratch = new Scratch();
    const dir = join(scratch.folder, "export");
    await scratch.with(async (db) => {
      await fill(db);
      const filler = "x".repeat(4_000);
      await db.execute(A, "CREATE TABLE big (id INTEGER PRIMARY KEY, v)");
      for (let at = 0; at < 3_000; at += 500) {
        await Promise.all(
          Array.from({ length: 500 }, (_, n) => db.insert(A, "big", { id: at + n, v: filler })),
        );
      }
      const stop = new AbortController();
      const stopped = db.exportTenant(A, dir, {
        signal: stop.signal,
        onProgress: ({ bytes }) => {
          if (bytes > 18_000_000) stop.abort();
        },
      });
      await expect(stopped).rejects.toMatchObject({ code: "aborted" });
      expect(fs.existsSync(join(dir, "manifest.json"))).toBe(false);
      await expect(verifyExport(dir)).rejects.toMatchObject({ code: "export_invalid" });
      const firstFile = fs.statSync(join(dir, "events-000001.jsonl")).mtimeMs;
      // What comes meanwhile is behind the moment of the export.
      await db.insert(A, "big", { id: 999_999, v: "late" });
      const report = await db.exportTenant(A, dir);
      expect(fs.statSync(join(dir, "events-000001.jsonl")).mtimeMs).toBe(firstFile);
      const found = await verifyExport(dir, { key: db.verifierKey() });
      expect(found.size).toBe(report.size);
      expect(table(dir, "big", "csv").toString()).not.toContain("late");
      await expect(db.exportTenant(A, dir)).rejects.toMatchObject({ code: "destination_exists" });
      const before = await Array.fromAsync(db.audit(A, { action: "tenant.export" }));
      await expect(db.exportTenant(A, dir)).rejects.toMatchObject({ code: "destination_exists" });
      const after = await Array.fromAsync(db.audit(A, { action: "tenant.export" }));
      expect(after.slice(before.length)).toMatchObject([{ outcome: "refused", code: "destination_exists" }]);
      await expect(db.exportTenant(B, dir)).rejects.toMatchObject({ code: "destination_exists" });
    });
  });

  it("into a full disk fails, loses nothing, and goes on when there is room", async () => {
    await using scratch = new Scratch();
    let broken: string | undefined;
    const full = ({ operation, path }: DiskCall): Interruption | undefined =>
      ["write", "replaceFile"].includes(operation) && broken !== undefined && path.includes(broken)
        ? refusing("ENOSPC")
        : undefined;
    const dir = join(scratch.folder, "export");
    const db = await scratch.open({ disk: faultyDisk(systemDisk, full) });
    await fill(db);
    for (const file of ["patients.csv", "events-000001", "manifest.json"]) {
      broken = file;
      await expect(db.exportTenant(A, dir)).rejects.toMatchObject({ code: "disk_full" });
      broken = undefined;
    }
    await db.exportTenant(A, dir);
    expect(await verifyExport(dir, { key: db.verifierKey() })).toMatchObject({ trusted: true });
    await db.close();
  });
});

describe("an import", () => {
  it("is the tenant: rows, history, streams, offsets, proofs, retention, holds, under new keys", async () => {
    await using from = new Scratch();
    await using to = new Scratch();
    const dir = join(from.folder, "export");
    const source = await from.open();
    const visits = await fill(source);
    await source.placeLegalHold(A, { name: "case 1", reason: "a court asks", actor: "counsel" });
    const early = openCheckpoint(await source.checkpoint(A), parseVerifierKey(source.verifierKey()));
    await source.exportTenant(A, dir);
    const db = await to.open();
    const entry = await db.importTenant(dir, {
      key: source.verifierKey(),
      tenant: A,
      actor: "admin",
      reason: "moved",
    });
    expect(entry).toMatchObject({ id: A, name: "St. Mary's", retentionMs: 30 * 86_400_000 });
    expect(entry.legalHolds).toMatchObject([{ name: "case 1", actor: "counsel" }]);
    for (const sql of [
      "SELECT * FROM patients",
      "SELECT * FROM notes WHERE notes MATCH 'cough'",
      "SELECT * FROM heavy",
    ]) {
      expect(await db.query(A, sql)).toEqual(await source.query(A, sql));
    }
    const past = { at: 9 };
    expect(await db.query(A, "SELECT * FROM patients", [], past)).toEqual(
      await source.query(A, "SELECT * FROM patients", [], past),
    );
    const events = await Array.fromAsync(source.read(A, visits));
    expect(await Array.fromAsync(db.read(A, visits))).toEqual(events);
    const proof = await db.consistencyProof(A, early.size, (await db.describeTenant(A)).size);
    expect(Buffer.from(early.root)).toEqual(Buffer.from(proof.fromRoot));
    expect(() => verifyConsistency(proof)).not.toThrow();
    expect((await db.verifyTenant(A)).ok).toBe(true);
    // The idempotency key is known here too.
    expect(
      await db.append(
        A,
        visits,
        [{ n: 2n ** 60n, at: null, list: [1.5, "x", true], raw: new Uint8Array([1]) }],
        { idempotencyKey: "first" },
      ),
    ).toMatchObject({ offset: 0n, count: 1 });
    await db.insert(A, "patients", { name: "new here" });
    const audited = await Array.fromAsync(db.audit(A, { action: "tenant.import" }));
    expect(audited).toMatchObject([{ actor: "admin", reason: "moved", detail: { source: 7n } }]);
    await expect(db.importTenant(dir, { key: source.verifierKey() })).rejects.toMatchObject({
      code: "tenant_exists",
    });
    await db.importTenant(dir, { key: source.verifierKey(), as: TenantId(99) });
    await db.close();
    const again = await to.open();
    expect(await again.query(TenantId(99), "SELECT count(*) AS n FROM patients")).toEqual([{ n: 3 }]);
    expect((await again.verifyTenant(TenantId(99))).ok).toBe(true);
    await source.close();
  });

  it("of what is altered, of another tenant, or signed by nobody trusted leaves nothing", async () => {
    await using from = new Scratch();
    await using to = new Scratch();
    const { dir, key } = await exported(from);
    const db = await to.open();
    await expect(db.importTenant(dir, { key: db.verifierKey() })).rejects.toMatchObject({
      code: "export_invalid",
    });
    await expect(db.importTenant(dir, { key, tenant: B })).rejects.toMatchObject({ code: "export_invalid" });
    flipBit(join(dir, "events-000001.jsonl"), 300);
    await expect(db.importTenant(dir, { key })).rejects.toMatchObject({ code: "export_invalid" });
    flipBit(join(dir, "events-000001.jsonl"), 300);
    await expect(db.importTenant(dir, { key, signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "aborted",
    });
    expect(await db.listTenants()).toEqual([]);
    expect(fs.existsSync(to.keys(A))).toBe(false);
    expect(fs.existsSync(to.path("tenants", "7"))).toBe(false);
    await db.eraseTenant((await db.importTenant(dir, { key })).id, { reason: "r", overrideRetention: true });
    await expect(db.importTenant(dir, { key })).rejects.toMatchObject({ code: "tenant_erased" });
  });

  it.each<Failpoint>(["import-after-keys", "import-after-log", "import-after-entry"])(
    "that a crash interrupts at %s is whole or nothing at the next start",
    async (at) => {
      await using from = new Scratch();
      await using to = new Scratch();
      const { dir, key } = await exported(from);
      const crashed = join(to.folder, "crashed");
      await to.with(async (db) => {
        onFailpoint((name) => {
          if (name === at) fs.cpSync(to.dataDir, crashed, { recursive: true });
        });
        try {
          await db.importTenant(dir, { key });
        } finally {
          onFailpoint(undefined);
        }
      });
      to.restore(crashed);
      const db = await to.open();
      const present = (await db.listTenants()).length;
      expect(present).toBe(at === "import-after-entry" ? 1 : 0);
      if (present === 0) {
        expect(fs.existsSync(to.keys(A))).toBe(false);
        await db.importTenant(dir, { key });
      }
      expect((await db.verifyTenant(A)).ok).toBe(true);
      expect(fs.readdirSync(to.path("imports"))).toEqual([]);
    },
  );
});
