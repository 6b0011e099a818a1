/**
 * Re-encryption: everything under a new key, nothing else changed, while others read and write; a crash at any step
 * leaves the former state or the new one; and with the former keys destroyed, copies from before are unreadable.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { systemDisk } from "../../src/host/disk.ts";
import { type Failpoint, onFailpoint } from "../../src/host/failpoint.ts";
import { type Kimberlite, TenantId } from "../../src/index.ts";
import { type DiskCall, faultyDisk, type Interruption, refusing } from "../../src/testing/faulty-disk.ts";
import { Scratch } from "../isolation/scratch.ts";

const A = TenantId(1);

async function fill(db: Kimberlite): Promise<void> {
  await db.createTenant({ id: A, name: "A" });
  await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v)");
  await db.execute(A, "CREATE VIRTUAL TABLE s USING fts5(body)");
  await db.execute(A, "INSERT INTO s VALUES ('a cough')");
  const events = await db.createStream(A, "events");
  await db.append(A, events, [{ n: 1 }], { idempotencyKey: "k" });
  for (let n = 0; n < 40; n += 1) await db.insert(A, "t", { v: `row ${n}` });
  await db.execute(A, "DELETE FROM t WHERE id > 38");
}

/** Everything that a reader can see, and what proves it. */
async function picture(db: Kimberlite): Promise<unknown> {
  const size = (await db.describeTenant(A)).size;
  const streams = await db.streams(A);
  const events = streams.find(({ name }) => name === "events");
  return {
    rows: await db.query(A, "SELECT * FROM t ORDER BY id"),
    past: await db.query(A, "SELECT count(*) AS n FROM t", [], { at: 20 }),
    found: await db.query(A, "SELECT body FROM s WHERE s MATCH 'cough'"),
    sequence: await db.query(A, "SELECT * FROM sqlite_sequence"),
    events: events === undefined ? [] : await Array.fromAsync(db.read(A, events.id)),
    proof: await db.inclusionProof(A, 5).then(({ leafHash }) => leafHash),
    ok: (await db.verifyTenant(A)).ok,
    grown: size > 40n,
  };
}

describe("re-encryption", () => {
  it("puts everything under the new key, changes nothing else, and destroys the former keys", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open({ logSegmentBytes: 4_096 });
    await fill(db);
    const before = await picture(db);
    const checkpoint = await db.checkpoint(A);
    await db.close();
    const copy = scratch.save("before");
    const again = await scratch.open({ logSegmentBytes: 4_096 });
    const seen: bigint[] = [];
    const report = await again.reencryptTenant(A, {
      destroyFormerKeys: true,
      actor: "security",
      reason: "yearly",
      onProgress: ({ doneRecords }) => seen.push(doneRecords),
    });
    expect(report).toMatchObject({ dekVersion: 2, destroyed: [1] });
    expect(seen.length).toBeGreaterThan(0);
    expect(await picture(again)).toEqual(before);
    expect((await again.verifyTenant(A, { checkpoint })).ok).toBe(true);
    expect((await again.keys(A)).deks.map(({ version }) => version)).toEqual([2]);
    expect((await again.keys(A)).projectionDek).toBe(2);
    expect(fs.readdirSync(scratch.projection(A)).filter((name) => /^[0-9]+\.db$/.test(name))).toEqual([
      "2.db",
    ]);
    await again.insert(A, "t", { v: "goes on" });
    expect(await Array.fromAsync(again.audit(A, { action: "key.reencrypt" }))).toMatchObject([
      { actor: "security", reason: "yearly", outcome: "began" },
    ]);
    await again.close();
    const after = await scratch.open();
    expect(await after.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 39 }]);
    await after.close();
    // Yesterday's disk beside today's keys.
    fs.cpSync(scratch.path("keys"), join(copy, "keys"), { recursive: true });
    fs.rmSync(join(copy, "tenants", "0"), { recursive: true });
    fs.cpSync(scratch.path("tenants", "0"), join(copy, "tenants", "0"), { recursive: true });
    scratch.restore(copy);
    const old = await scratch.open();
    await expect(old.query(A, "SELECT * FROM t")).rejects.toMatchObject({ code: "keys_missing" });
  });

  it("stops neither reads nor writes, and loses none", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    for (let n = 0; n < 3_000; n += 500)
      await Promise.all(Array.from({ length: 500 }, (_, k) => db.insert(A, "t", { v: `bulk ${n + k}` })));
    let working = true;
    const acknowledged: unknown[] = [];
    const writer = (async () => {
      while (working) {
        const { lastInsertRowid } = await db.insert(A, "t", { v: "meanwhile" });
        acknowledged.push(lastInsertRowid);
        await db.query(A, "SELECT count(*) FROM t");
      }
    })();
    for (let round = 0; round < 3; round += 1) await db.reencryptTenant(A, { destroyFormerKeys: true });
    working = false;
    await writer;
    expect(acknowledged.length).toBeGreaterThan(10);
    const ids = (
      (await db.query(A, "SELECT id FROM t WHERE v = 'meanwhile' ORDER BY id")) as { id: number }[]
    ).map(({ id }) => id);
    expect(ids).toEqual(acknowledged);
    expect((await db.verifyTenant(A)).ok).toBe(true);
    await db.rebuildProjection(A);
    expect(await db.query(A, "SELECT count(*) AS n FROM t WHERE v = 'meanwhile'")).toEqual([
      { n: ids.length },
    ]);
  });

  it.each<Failpoint>([
    "reencrypt-after-log",
    "reencrypt-before-mark",
    "reencrypt-after-mark",
    "reencrypt-after-move",
  ])("interrupted at %s leaves a tenant that is whole, and goes on when it is called again", async (at) => {
    await using scratch = new Scratch();
    const crashed = join(scratch.folder, "crashed");
    let before: unknown;
    await scratch.with(async (db) => {
      await fill(db);
      before = await picture(db);
      onFailpoint((name) => {
        if (name === at && !fs.existsSync(crashed)) fs.cpSync(scratch.dataDir, crashed, { recursive: true });
      });
      try {
        await db.reencryptTenant(A);
      } finally {
        onFailpoint(undefined);
      }
    });
    scratch.restore(crashed);
    const db = await scratch.open();
    expect(await picture(db)).toEqual(before);
    await db.insert(A, "t", { v: "after the crash" });
    const { dekVersion } = await db.reencryptTenant(A, { destroyFormerKeys: true });
    expect((await db.keys(A)).deks.map(({ version }) => version)).toEqual([dekVersion]);
    expect(fs.readdirSync(scratch.path("tenants", "1")).sort()).toEqual(["log", "projection"]);
    expect(await db.query(A, "SELECT v FROM t ORDER BY id DESC LIMIT 1")).toEqual([{ v: "after the crash" }]);
    expect((await db.verifyTenant(A)).ok).toBe(true);
  });

  it("that a full disk or a signal stops leaves the tenant as it was", async () => {
    await using scratch = new Scratch();
    let broken: string | undefined;
    const full = ({ operation, path }: DiskCall): Interruption | undefined =>
      ["write", "replaceFile"].includes(operation) && broken !== undefined && path.includes(broken)
        ? refusing("ENOSPC")
        : undefined;
    const db = await scratch.open({ disk: faultyDisk(systemDisk, full) });
    await fill(db);
    const before = await picture(db);
    for (const part of ["log.new", "reencryption.json"]) {
      broken = part;
      await expect(db.reencryptTenant(A)).rejects.toMatchObject({ code: "disk_full" });
      broken = undefined;
      expect(await picture(db)).toEqual(before);
    }
    await expect(db.reencryptTenant(A, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "aborted",
    });
    await expect(db.reencryptTenant(TenantId(9))).rejects.toMatchObject({ code: "tenant_not_found" });
    await db.reencryptTenant(A);
    expect(await picture(db)).toEqual(before);
  });
});
