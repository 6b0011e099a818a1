/**
 * Trimming: what is past its retention is gone, from copies too; what is younger, or held, stays; proofs and tables are
 * what they were.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Failpoint, onFailpoint } from "../../src/host/failpoint.ts";
import {
  type Clock,
  Duration,
  type Kimberlite,
  masterKeyFile,
  openCheckpoint,
  parseVerifierKey,
  restoreNode,
  type StreamId,
  TenantId,
  verifyExport,
  verifyInclusion,
} from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";

const A = TenantId(1);
const DAY_US = 86_400_000_000n;

/** A clock that a test sets, which goes on by a little at each look. */
function settable(): Clock & { set(days: number): void } {
  let nowUs = 1_700_000_000_000_000n;
  const startedUs = nowUs;
  return {
    wallTimeUs: () => (nowUs += 1n),
    monotonicMs: () => Number(nowUs / 1000n),
    set: (days) => {
      nowUs = startedUs + BigInt(days) * DAY_US;
    },
  };
}

/** Ten records on each of ten days. */
async function tenDays(db: Kimberlite, clock: ReturnType<typeof settable>): Promise<StreamId> {
  await db.createTenant({ id: A, name: "A", retention: Duration.days(5) });
  await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, day INT, v TEXT)");
  await db.execute(A, "CREATE VIRTUAL TABLE s USING fts5(body)");
  const events = await db.createStream(A, "events");
  for (let day = 0; day < 10; day += 1) {
    clock.set(day);
    await db.insert(A, "t", { day, v: `row of day ${day}` });
    await db.append(A, events, [{ day }], { idempotencyKey: `day ${day}` });
    await db.execute(A, "INSERT INTO s VALUES (?)", [`note of day ${day}`]);
    await db.execute(A, "UPDATE t SET v = v || '!' WHERE day = ?", [day - 1]);
  }
  return events;
}

const rows = (db: Kimberlite): Promise<unknown> => db.query(A, "SELECT * FROM t ORDER BY id");

describe("trimming", () => {
  it("destroys what is past its retention, and keeps tables, proofs and everything younger", async () => {
    await using scratch = new Scratch();
    const clock = settable();
    const options = { clock, maxClockGap: Duration.days(1_000), logSegmentBytes: 4_096 };
    const db = await scratch.open(options);
    const events = await tenDays(db, clock);
    const before = { rows: await rows(db), past: await db.query(A, "SELECT * FROM t", [], { at: 38 }) };
    const checkpoint = await db.checkpoint(A);
    const early = await db.inclusionProof(A, 4);
    const report = await db.trimTenant(A, { reason: "retention is over", actor: "records" });
    expect(report.firstOffset).toBeGreaterThan(10n);
    expect(report.trimmed).toBe(report.firstOffset);
    expect(await rows(db)).toEqual(before.rows);
    expect(await db.query(A, "SELECT body FROM s WHERE s MATCH 'note'")).toHaveLength(10);
    expect(await db.query(A, "SELECT * FROM t", [], { at: 38 })).toEqual(before.past);
    expect((await db.verifyTenant(A, { checkpoint })).ok).toBe(true);
    const proof = await db.inclusionProof(A, 4);
    expect(Buffer.from(proof.leafHash)).toEqual(Buffer.from(early.leafHash));
    expect(() => verifyInclusion(proof)).not.toThrow();
    const gone = { code: "offset_trimmed" };
    await expect(db.query(A, "SELECT * FROM t", [], { at: 4 })).rejects.toMatchObject(gone);
    await expect(Array.fromAsync(db.read(A, events))).rejects.toMatchObject({
      ...gone,
      detail: { firstOffset: 5n },
    });
    const left = await Array.fromAsync(db.read(A, events, { from: 5 }));
    expect(left.map((item) => (item.kind === "event" ? item.data : undefined))).toEqual(
      [5, 6, 7, 8, 9].map((day) => ({ day })),
    );
    const [table] = (await db.streams(A)).filter(({ name }) => name === "t");
    await expect(Array.fromAsync(db.read(A, table?.id as StreamId))).rejects.toMatchObject(gone);
    expect((await db.describeTenant(A)).firstOffset).toBe(report.firstOffset);
    expect(await Array.fromAsync(db.audit(A, { action: "tenant.trim" }))).toMatchObject([
      { actor: "records", outcome: "began" },
    ]);
    // An append of before is still known by its key.
    expect(await db.append(A, events, [{ day: 0 }], { idempotencyKey: "day 0" })).toMatchObject({
      offset: 0n,
    });
    expect(await db.trimTenant(A, { reason: "again" })).toMatchObject({ trimmed: 0n });
    await db.rebuildProjection(A);
    expect(await rows(db)).toEqual(before.rows);
    await db.close();
    const again = await scratch.open(options);
    expect(await rows(again)).toEqual(before.rows);
    await again.insert(A, "t", { day: 10, v: "goes on" });
    await again.reencryptTenant(A, { destroyFormerKeys: true });
    expect(await again.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 11 }]);
    await again.rebuildProjection(A);
    expect(await again.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 11 }]);
    clock.set(13);
    expect((await again.trimTenant(A, { reason: "more" })).firstOffset).toBeGreaterThan(report.firstOffset);
    expect(await again.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 11 }]);
    expect((await again.verifyTenant(A, { checkpoint })).ok).toBe(true);
  });

  it("that was stopped keeps what it has built, also when the projection in force is built anew", async () => {
    await using scratch = new Scratch();
    const clock = settable();
    const db = await scratch.open({ clock, maxClockGap: Duration.days(1_000) });
    await tenDays(db, clock);
    const before = await rows(db);
    const stop = new AbortController();
    const onProgress = ({
      doneRecords,
      totalRecords,
    }: {
      doneRecords: bigint;
      totalRecords: bigint;
    }): void => {
      if (doneRecords === totalRecords && built().includes("2.db")) stop.abort();
    };
    const built = (): string[] =>
      fs
        .readdirSync(scratch.path("tenants", A.toString(), "projection"))
        .filter((name) => /^2\.db$|\.next$/.test(name));
    await expect(db.trimTenant(A, { reason: "over", onProgress, signal: stop.signal })).rejects.toMatchObject(
      { code: "aborted" },
    );
    const kept = built();
    expect(kept).toHaveLength(2);
    await db.rebuildProjection(A);
    expect(built()).toEqual(kept);
    expect((await db.trimTenant(A, { reason: "over" })).firstOffset).toBeGreaterThan(10n);
    expect(await rows(db)).toEqual(before);
  });

  it("is not cheated by holds, compliance, or a clock that is set", async () => {
    await using scratch = new Scratch();
    const clock = settable();
    const db = await scratch.open({ clock, maxClockGap: Duration.days(1) });
    await tenDays(db, clock);
    await db.placeLegalHold(A, { name: "case", reason: "court" });
    await expect(db.trimTenant(A, { reason: "over" })).rejects.toMatchObject({ code: "legal_hold" });
    await db.releaseLegalHold(A, { name: "case", reason: "closed" });
    const far = new Date(Number((clock.wallTimeUs() + 400n * DAY_US) / 1000n));
    const all = { reason: "all of it", before: far };
    const { firstOffset } = await db.trimTenant(A, all);
    expect((await db.describeTenant(A)).size).toBeGreaterThan(firstOffset + 5n);
    await db.setRetention(A, Duration.days(5), { mode: "compliance" });
    await expect(db.trimTenant(A, { ...all, overrideRetention: true })).rejects.toMatchObject({
      code: "retention_locked",
    });
    const refused = await Array.fromAsync(db.nodeAudit({ action: "tenant.trim" }));
    expect(refused.map(({ outcome, code }) => code ?? outcome)).toContain("retention_locked");
    await db.close();
    // The machine's clock jumps a year between two runs: no more than the allowed gap is believed.
    clock.set(375);
    const later = await scratch.open({ clock, maxClockGap: Duration.days(1) });
    const { firstOffset: then } = await later.trimTenant(A, { reason: "a year later?" });
    expect(then).toBeLessThan((await later.describeTenant(A)).size - 5n);
  });

  it("is exported with what is left, backed up and restored, and not imported", async () => {
    await using scratch = new Scratch();
    await using into = new Scratch();
    const clock = settable();
    const db = await scratch.open({ clock, maxClockGap: Duration.days(1_000) });
    await tenDays(db, clock);
    const [to, keysTo] = [`file:${join(scratch.folder, "b")}`, `file:${join(scratch.folder, "k")}`];
    await db.backup({ to, keysTo });
    await db.trimTenant(A, { reason: "over" });
    const dir = join(scratch.folder, "export");
    await db.exportTenant(A, dir);
    expect((await verifyExport(dir, { key: db.verifierKey() })).trusted).toBe(true);
    const lines = fs.readFileSync(join(dir, "events-000001.jsonl"), "utf8").split("\n");
    expect(lines[0]).toMatch(/^\{"offset":"0","trimmed":true,"leaf":"[0-9a-f]{64}"\}$/);
    await expect(db.importTenant(dir, { key: db.verifierKey(), as: TenantId(5) })).rejects.toMatchObject({
      code: "export_invalid",
    });
    await db.backup({ to, keysTo });
    const expected = await rows(db);
    const note = openCheckpoint(await db.checkpoint(A), parseVerifierKey(db.verifierKey()));
    await expect(db.restoreTenant({ from: to, tenant: A, as: TenantId(6) })).rejects.toMatchObject({
      code: "offset_trimmed",
    });
    await db.close();
    const masterKey = masterKeyFile(scratch.masterKeyPath);
    await restoreNode({ from: to, keysFrom: keysTo, dataDir: into.dataDir, masterKey });
    fs.copyFileSync(scratch.masterKeyPath, into.masterKeyPath);
    const again = await into.open({ clock });
    expect(await rows(again)).toEqual(expected);
    const report = await again.verifyTenant(A);
    expect([report.ok, report.size, Buffer.from(note.root)]).toEqual([true, note.size, report.root]);
    // The backup from before the trimming holds ciphertext that no key opens any more.
    fs.rmSync(into.dataDir, { recursive: true });
    const ids = await into.with((other) => other.backups(to)).catch(() => []);
    expect(ids).toEqual([]);
  });

  it.each<Failpoint>([
    "reencrypt-after-log",
    "reencrypt-before-mark",
    "reencrypt-after-mark",
    "reencrypt-after-move",
  ])("interrupted at %s loses nothing that was not to go, and goes on", async (at) => {
    await using scratch = new Scratch();
    const crashed = join(scratch.folder, "crashed");
    const clock = settable();
    const options = { clock, maxClockGap: Duration.days(1_000) };
    let before: unknown;
    await scratch.with(async (db) => {
      await tenDays(db, clock);
      before = await rows(db);
      onFailpoint((name) => {
        if (name === at && !fs.existsSync(crashed)) fs.cpSync(scratch.dataDir, crashed, { recursive: true });
      });
      try {
        await db.trimTenant(A, { reason: "over" });
      } finally {
        onFailpoint(undefined);
      }
    }, options);
    scratch.restore(crashed);
    const db = await scratch.open(options);
    expect(await rows(db)).toEqual(before);
    await db.trimTenant(A, { reason: "over" });
    await db.rebuildProjection(A);
    expect(await rows(db)).toEqual(before);
    expect((await db.verifyTenant(A)).ok).toBe(true);
    await expect(db.query(A, "SELECT * FROM t", [], { at: 4 })).rejects.toMatchObject({
      code: "offset_trimmed",
    });
  });
});
