/**
 * I-5: after an erasure nothing of the tenant can be read: not from its files, not from a copy of yesterday, not over the
 * API; other tenants do not notice; holds and retention stand before it; a crash at any step finishes it.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Failpoint, onFailpoint } from "../../src/host/failpoint.ts";
import {
  type Clock,
  Duration,
  type Kimberlite,
  parseVerifierKey,
  TenantId,
  verifyErasureCertificate,
} from "../../src/index.ts";
import { openCheckpoint } from "../../src/log/checkpoint.ts";
import { filesBelow, Scratch } from "../isolation/scratch.ts";

const A = TenantId(1);
const B = TenantId(2);
const REASON = { reason: "the contract has ended", actor: "dpo" };

async function twoTenants(db: Kimberlite): Promise<void> {
  for (const id of [A, B]) {
    await db.createTenant({ id, name: `tenant ${id}` });
    await db.execute(id, "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT)");
    await db.insert(id, "patients", { id: 1, name: `Alice of ${id}` });
  }
}

async function expectOnlyOther(db: Kimberlite): Promise<void> {
  for (const attempt of [
    () => db.query(A, "SELECT * FROM patients"),
    () => db.query(A, "SELECT * FROM patients", [], { at: 1 }),
    () => db.insert(A, "patients", { id: 2 }),
    () => db.describeTenant(A),
    () => db.keys(A),
    () => db.checkpoint(A),
    () => db.resumeTenant(A),
    () => db.createTenant({ id: A, name: "again" }),
    () => Array.fromAsync(db.audit(A)),
  ]) {
    await expect(attempt()).rejects.toMatchObject({ code: "tenant_erased" });
  }
  expect(await db.query(B, "SELECT name FROM patients")).toEqual([{ name: "Alice of 2" }]);
  expect((await db.verifyTenant(B)).ok).toBe(true);
}

describe("an erased tenant", () => {
  it("is gone from every file, for ever, and its certificate verifies offline", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const before = openCheckpoint(await db.checkpoint(A), parseVerifierKey(db.verifierKey()));
    const certificate = await db.eraseTenant(A, REASON);
    await expectOnlyOther(db);
    expect(fs.existsSync(scratch.path("tenants", "1"))).toBe(false);
    expect(fs.existsSync(scratch.keys(A))).toBe(false);
    const key = parseVerifierKey(db.verifierKey());
    expect(verifyErasureCertificate(certificate.note, key)).toEqual(certificate);
    expect(certificate).toMatchObject({
      tenant: "1",
      actor: "dpo",
      reason: REASON.reason,
      keysDestroyed: { kek: 1, deks: [1] },
      ciphertextKept: false,
    });
    const last = openCheckpoint(certificate.log?.checkpoint ?? "", key);
    expect(last.size).toBe(before.size + 1n);
    await db.close();
    const again = await scratch.open();
    await expectOnlyOther(again);
    expect((await again.erasureCertificate(A)).note).toBe(certificate.note);
    expect((await again.listTenants()).map(({ id, state }) => [id, state])).toEqual([
      [A, "erased"],
      [B, "active"],
    ]);
    const node = await Array.fromAsync(again.nodeAudit({ action: "tenant.erase" }));
    expect(node.map(({ outcome, tenant, actor, reason }) => [outcome, tenant, actor, reason])).toEqual([
      ["began", A, "dpo", REASON.reason],
      ["done", A, "dpo", REASON.reason],
    ]);
  });

  it("stays unreadable when yesterday's data is put back beside today's keys", async () => {
    await using scratch = new Scratch();
    await scratch.with(twoTenants);
    const yesterday = scratch.save("yesterday");
    await scratch.with((db) => db.eraseTenant(A, REASON));
    const keys = fs.cpSync(scratch.path("keys"), join(scratch.folder, "keys-today"), { recursive: true });
    expect(keys).toBeUndefined();
    scratch.restore(yesterday);
    fs.rmSync(scratch.path("keys"), { recursive: true });
    fs.cpSync(join(scratch.folder, "keys-today"), scratch.path("keys"), { recursive: true });
    const db = await scratch.open();
    for (const attempt of [() => db.query(A, "SELECT * FROM patients"), () => db.rebuildProjection(A)]) {
      await expect(attempt()).rejects.toMatchObject({ code: "keys_missing" });
    }
    expect(await db.query(B, "SELECT name FROM patients")).toEqual([{ name: "Alice of 2" }]);
  });

  it("stays erased when only its folder is put back", async () => {
    await using scratch = new Scratch();
    await scratch.with(twoTenants);
    const yesterday = scratch.save("yesterday");
    await scratch.with((db) => db.eraseTenant(A, REASON));
    fs.cpSync(join(yesterday, "tenants", "1"), scratch.path("tenants", "1"), { recursive: true });
    await scratch.with(expectOnlyOther);
  });

  it("leaves a log that still verifies without keys, if its ciphertext is kept", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const certificate = await db.eraseTenant(A, { ...REASON, keepCiphertext: true });
    expect(certificate.ciphertextKept).toBe(true);
    expect(filesBelow(scratch.logFolder(A))).toHaveLength(1);
    expect(fs.existsSync(scratch.projection(A))).toBe(false);
    const report = await db.verifyTenant(A);
    expect(report).toMatchObject({ ok: true, sealsOpened: false, size: BigInt(certificate.log?.size ?? 0) });
    expect(report.root.toString("base64")).toBe(certificate.log?.root);
  });

  it("is erased also when its key or its log is gone", async () => {
    await using scratch = new Scratch();
    await scratch.with(twoTenants);
    fs.writeFileSync(scratch.segment(A), "not a segment");
    fs.rmSync(scratch.keys(A));
    const db = await scratch.open();
    const certificate = await db.eraseTenant(A, REASON);
    expect(certificate.log).toBeNull();
    await expectOnlyOther(db);
  });

  it("is erased while it is written, read and tailed", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const stream = await db.createStream(A, "visits");
    const tail = (async () => {
      for await (const _ of db.subscribe(A, stream, { signal: new AbortController().signal }));
    })();
    let acknowledged = 0;
    const writers = Array.from({ length: 8 }, async (_, writer) => {
      for (let n = 0; ; n += 1) {
        await db.insert(A, "patients", { id: 100 + writer + n * 8 });
        acknowledged += 1;
      }
    });
    const ended = Promise.allSettled([...writers, tail]);
    while (acknowledged < 50) await new Promise((resolve) => setTimeout(resolve, 5));
    const certificate = await db.eraseTenant(A, REASON);
    for (const outcome of await ended) {
      expect(outcome).toMatchObject({
        reason: { code: expect.stringMatching(/^tenant_eras|^closed|^overloaded/) },
      });
    }
    expect(Number(certificate.log?.size)).toBeGreaterThanOrEqual(acknowledged);
    await expectOnlyOther(db);
  });

  it.each<Failpoint>(["erase-after-begin", "erase-after-keys", "erase-after-journal", "erase-after-files"])(
    "is finished at the next start after a crash at %s",
    async (name) => {
      await using scratch = new Scratch();
      const db = await scratch.open();
      await twoTenants(db);
      const saved = join(scratch.folder, "crashed");
      onFailpoint((reached) => {
        if (reached === name && !fs.existsSync(saved)) fs.cpSync(scratch.dataDir, saved, { recursive: true });
      });
      await db.eraseTenant(A, REASON).finally(() => onFailpoint(undefined));
      await db.close();
      scratch.restore(saved);
      const again = await scratch.open();
      await expectOnlyOther(again);
      const certificate = await again.erasureCertificate(A);
      expect(certificate).toMatchObject({ tenant: "1", keysDestroyed: { deks: [1] } });
      expect(fs.existsSync(scratch.path("tenants", "1"))).toBe(false);
      expect(fs.existsSync(scratch.keys(A))).toBe(false);
    },
  );

  it("is erased once, whoever asks twice", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const [first, second] = await Promise.allSettled([db.eraseTenant(A, REASON), db.eraseTenant(A, REASON)]);
    expect(first.status).toBe("fulfilled");
    expect(second).toMatchObject({ reason: { code: "operation_running" } });
    await expect(db.eraseTenant(A, REASON)).rejects.toMatchObject({ code: "tenant_erased" });
  });
});

describe("a certificate", () => {
  it("does not verify with any byte altered, or under another installation's key", async () => {
    await using scratch = new Scratch();
    await using other = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const { note } = await db.eraseTenant(A, REASON);
    const key = parseVerifierKey(db.verifierKey());
    const bytes = Buffer.from(note);
    for (let at = 0; at < bytes.length; at += 1) {
      const altered = Buffer.from(bytes);
      altered[at] = (altered[at] as number) ^ 1;
      expect(() => verifyErasureCertificate(altered, key), `byte ${at}`).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^(signature|certificate)_invalid$/) }),
      );
    }
    const stranger = parseVerifierKey((await other.open()).verifierKey());
    expect(() => verifyErasureCertificate(note, stranger)).toThrow(
      expect.objectContaining({ code: "signature_invalid" }),
    );
  });
});

const DAY_US = 86_400_000_000n;

/** A machine whose clock a test sets. */
function machine(): Clock & { wallUs: bigint; monoMs: number } {
  const clock = {
    wallUs: 1_800_000_000_000_000n,
    monoMs: 5,
    wallTimeUs: () => clock.wallUs,
    monotonicMs: () => clock.monoMs,
  };
  return clock;
}

describe("retention", () => {
  it("refuses an erasure until the youngest data is old enough, and records who asked", async () => {
    await using scratch = new Scratch();
    const clock = machine();
    const db = await scratch.open({ clock });
    await db.createTenant({ id: A, name: "A", retention: Duration.days(10) });
    await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    const until = clock.wallUs + 10n * DAY_US;
    await expect(db.eraseTenant(A, REASON)).rejects.toMatchObject({
      code: "retention_not_over",
      detail: { untilUs: until },
    });
    expect(await db.refusedErasures(A)).toMatchObject([{ ...REASON, code: "retention_not_over" }]);
    clock.wallUs += 9n * DAY_US;
    clock.monoMs += 9 * 86_400_000;
    await expect(db.eraseTenant(A, REASON)).rejects.toMatchObject({ code: "retention_not_over" });
    clock.wallUs += 1n * DAY_US;
    clock.monoMs += 86_400_000;
    const audit = await Array.fromAsync(db.audit(A));
    expect(audit.map(({ action, outcome, code }) => [action, outcome, code])).toEqual([
      ["tenant.erase", "refused", "retention_not_over"],
      ["tenant.erase", "refused", "retention_not_over"],
    ]);
    await db.eraseTenant(A, REASON);
  });

  it("is overridden in governance mode alone, and the certificate says so", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    for (const [id, retentionMode] of [
      [A, "governance"],
      [B, "compliance"],
    ] as const) {
      await db.createTenant({ id, name: "T", retention: Duration.days(10), retentionMode });
      await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    }
    const override = { ...REASON, overrideRetention: true };
    expect((await db.eraseTenant(A, override)).retentionOverriddenUntil).toMatch(/^\d{4}-/);
    await expect(db.eraseTenant(B, override)).rejects.toMatchObject({ code: "retention_locked" });
    await expect(db.setRetention(B, Duration.days(9), REASON)).rejects.toMatchObject({
      code: "retention_locked",
    });
    await expect(db.setRetention(B, Duration.days(11), { mode: "governance" })).rejects.toMatchObject({
      code: "retention_locked",
    });
    expect((await db.setRetention(B, Duration.days(11))).retentionMs).toBe(11 * 86_400_000);
  });

  it("is shortened in governance mode only with a reason, which is recorded", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await db.createTenant({ id: A, name: "A", retention: Duration.days(10) });
    await expect(db.setRetention(A, Duration.days(5))).rejects.toMatchObject({ code: "invalid_argument" });
    await db.setRetention(A, Duration.days(5), { reason: "the law changed", actor: "counsel" });
    const [refused, entry] = await Array.fromAsync(db.audit(A, { action: "retention.set" }));
    expect(refused).toMatchObject({ outcome: "refused", code: "invalid_argument" });
    expect(entry).toMatchObject({
      actor: "counsel",
      reason: "the law changed",
      detail: { toMs: 5 * 86_400_000 },
    });
  });

  it("is not cheated by a clock that is set ahead, while running or between two runs", async () => {
    await using scratch = new Scratch();
    const clock = machine();
    const db = await scratch.open({ clock });
    await db.createTenant({ id: A, name: "A", retention: Duration.days(365) });
    await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    clock.wallUs += 400n * DAY_US;
    await expect(db.eraseTenant(A, REASON)).rejects.toMatchObject({ code: "retention_not_over" });
    await db.close();
    for (let restart = 0; restart < 3; restart += 1) {
      const again = await scratch.open({ clock });
      await expect(again.eraseTenant(A, REASON)).rejects.toMatchObject({ code: "retention_not_over" });
      const gaps = await Array.fromAsync(again.nodeAudit({ action: "clock.gap" }));
      expect(gaps.length).toBeGreaterThan(0);
      await again.close();
    }
  });

  it("is not cheated by a clock that is set a year ahead and back again, neither for erasing nor for trimming", async () => {
    await using scratch = new Scratch();
    const clock = machine();
    const options = { clock, maxClockGap: Duration.days(1) };
    const refusedAt = async (db: Kimberlite, when: string): Promise<void> => {
      const { size } = await db.describeTenant(A);
      await expect(db.eraseTenant(A, REASON), when).rejects.toMatchObject({ code: "retention_not_over" });
      const before = new Date(Number((clock.wallUs + 1_000n * DAY_US) / 1_000n));
      expect((await db.trimTenant(A, { before, ...REASON })).firstOffset, when).toBe(0n);
      expect((await db.query(A, "SELECT count(*) AS n FROM t"))[0], when).toEqual({ n: 1 });
      expect((await db.describeTenant(A)).size, when).toBeGreaterThanOrEqual(size);
    };
    await scratch.with(async (db) => {
      await db.createTenant({ id: A, name: "A", retention: Duration.days(300) });
      await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
      await db.insert(A, "t", { id: 1 });
      for (const [when, days] of [
        ["running, ahead", 365n],
        ["running, back", -365n],
        ["running, a year before", -365n],
        ["running, right again", 365n],
      ] as const) {
        clock.wallUs += days * DAY_US;
        await refusedAt(db, when);
      }
    }, options);
    for (const [when, days] of [
      ["started ahead", 365n],
      ["started back", -365n],
      ["started a year before", -365n],
      ["started right again", 365n],
    ] as const) {
      clock.wallUs += days * DAY_US;
      await scratch.with((db) => refusedAt(db, when), options);
    }
    // What is over in truth is over.
    clock.wallUs += 300n * DAY_US;
    await scratch.with(async (db) => {
      clock.monoMs += 301 * 86_400_000;
      expect((await db.eraseTenant(A, REASON)).reason).toBe(REASON.reason);
    }, options);
  });

  it("is not cheated by a clock that is set back and put right again", async () => {
    await using scratch = new Scratch();
    const clock = machine();
    await scratch.with((db) => db.createTenant({ id: B, name: "B" }), { clock });
    const now = clock.wallUs;
    clock.wallUs -= 400n * DAY_US;
    await scratch.with(
      async (db) => {
        await db.createTenant({ id: A, name: "A", retention: Duration.days(365) });
        await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
      },
      { clock },
    );
    clock.wallUs = now + DAY_US;
    const db = await scratch.open({ clock });
    await expect(db.eraseTenant(A, REASON)).rejects.toMatchObject({ code: "retention_not_over" });
  });
});

describe("legal holds", () => {
  it("beat every other rule, several at once, also after a restart", async () => {
    await using scratch = new Scratch();
    await scratch.with(async (db) => {
      await twoTenants(db);
      await db.placeLegalHold(A, { name: "case 1", reason: "court", actor: "counsel" });
      await db.placeLegalHold(A, { name: "case 2", reason: "audit", actor: "counsel" });
    });
    const db = await scratch.open();
    const override = { ...REASON, overrideRetention: true };
    await expect(db.eraseTenant(A, override)).rejects.toMatchObject({
      code: "legal_hold",
      detail: { holds: 2 },
    });
    expect(await db.query(A, "SELECT count(*) AS n FROM patients")).toEqual([{ n: 1 }]);
    const first = await db.releaseLegalHold(A, { name: "case 1", reason: "closed" });
    expect(first.legalHolds.map(({ name }) => name)).toEqual(["case 2"]);
    await expect(db.eraseTenant(A, REASON)).rejects.toMatchObject({ code: "legal_hold" });
    const last = await db.releaseLegalHold(A, { name: "case 2", reason: "closed" });
    expect(last.refusedErasures).toMatchObject([
      { ...REASON, code: "legal_hold" },
      { ...REASON, code: "legal_hold" },
    ]);
    await db.eraseTenant(A, REASON);
    await expectOnlyOther(db);
  });

  it("that were acknowledged stop an erasure that is under way", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const [erased, held] = await Promise.allSettled([
      db.eraseTenant(A, REASON),
      db.placeLegalHold(A, { name: "case 1", reason: "court" }),
    ]);
    expect([erased.status, held.status].sort()).toEqual(["fulfilled", "rejected"]);
  });

  it("are placed and released by name, with a reason, in both audit streams", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const hold = await db.placeLegalHold(A, { name: "case 1", reason: "court", actor: "counsel" });
    expect(await db.placeLegalHold(A, { name: "case 1", reason: "court" })).toEqual(hold);
    await expect(db.placeLegalHold(A, { name: "case 1", reason: "another" })).rejects.toMatchObject({
      code: "invalid_argument",
    });
    await expect(db.releaseLegalHold(A, { name: "case 9", reason: "x" })).rejects.toMatchObject({
      code: "invalid_argument",
    });
    await db.releaseLegalHold(A, { name: "case 1", reason: "closed", actor: "counsel" });
    for (const entries of [await Array.fromAsync(db.audit(A)), await Array.fromAsync(db.nodeAudit())]) {
      const all = entries.filter(({ action }) => action.startsWith("hold."));
      expect(all.map(({ outcome }) => outcome)).toEqual(["done", "refused", "refused", "done"]);
      const holds = all.filter(({ outcome }) => outcome === "done");
      expect(
        holds.map(({ action, actor, reason, detail }) => [action, actor, reason, detail?.["hold"]]),
      ).toEqual([
        ["hold.place", "counsel", "court", "case 1"],
        ["hold.release", "counsel", "closed", "case 1"],
      ]);
    }
    expect(await Array.fromAsync(db.audit(B))).toEqual([]);
  });
});
