/**
 * I-5: a person who was erased within a tenant is nowhere: not in its tables, not at any earlier moment, not in its
 * streams, not in bytes of its files that its keys open; everybody else's rows, every offset and every proof stay.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Failpoint, onFailpoint } from "../../src/host/failpoint.ts";
import {
  masterKeyFile,
  openCheckpoint,
  parseVerifierKey,
  restoreNode,
  type StreamDescription,
  TenantId,
  verifyConsistency,
  verifyExport,
  verifySubjectCertificate,
} from "../../src/index.ts";
import { Needles, textSecret } from "../at-rest/scanner.ts";
import { filesBelow, Scratch } from "../isolation/scratch.ts";
import { expectNowhere } from "./everywhere.ts";
import { A, ALICE, ALICES, BOB, fill, REASON } from "./hospital.ts";

describe("an erased subject", () => {
  it("is nowhere, and everything else is where it was", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    expect(await db.subjects(A)).toMatchObject([
      { table: "patients", column: "email" },
      { table: "visits", column: "email" },
    ]);
    const before = await db.checkpoint(A);
    const certificate = await db.eraseSubject(A, ALICE, REASON);
    const key = parseVerifierKey(db.verifierKey());
    expect(verifySubjectCertificate(certificate.note, key)).toEqual(certificate);
    const bytes = Buffer.from(certificate.note);
    for (let at = 0; at < bytes.length; at += 1) {
      const altered = Buffer.from(bytes);
      altered[at] = (altered[at] as number) ^ 1;
      expect(() => verifySubjectCertificate(altered, key), `byte ${at}`).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^(signature|certificate)_invalid$/) }),
      );
    }
    expect(certificate).toMatchObject({
      tenant: "1",
      reason: "request 4711",
      actor: "dpo",
      tables: [
        { table: "patients", column: "email", rows: 1 },
        { table: "visits", column: "email", rows: 1 },
      ],
    });
    expect(await db.subjectCertificates(A)).toEqual([certificate]);
    expect(await db.query(A, "SELECT id FROM patients ORDER BY id")).toEqual([{ id: 2 }, { id: 3 }]);
    const patients = (await db.streams(A)).find(({ name }) => name === "patients") as StreamDescription;
    const kinds = (await Array.fromAsync(db.read(A, patients.id))).map(({ kind }) => kind);
    expect(kinds).toEqual(["erased", "insert", "insert", "erased", "erased"]);
    const old = openCheckpoint(before, key);
    const now = openCheckpoint(await db.checkpoint(A), key);
    const proof = await db.consistencyProof(A, old.size, now.size);
    verifyConsistency(proof);
    expect([proof.fromRoot, proof.toRoot]).toEqual([old.root, now.root]);
    expect(await db.verifyTenant(A, { checkpoint: before })).toMatchObject({ ok: true });
    expect((await db.verifyTenant(A)).ok).toBe(true);
    await expectNowhere(db, scratch, A, ALICES);
    await expect(db.eraseSubject(A, ALICE, REASON)).rejects.toMatchObject({ code: "subject_not_found" });
    await db.insert(A, "patients", { id: 9, email: ALICE, name: "came back" });
    expect(await db.query(A, "SELECT name FROM patients WHERE email = ?", [ALICE])).toEqual([
      { name: "came back" },
    ]);
  });

  it.each<Failpoint>([
    "subject-after-mark",
    "subject-after-tombstone",
    "subject-after-key",
    "subject-before-swap",
    "subject-after-rebuild",
    "subject-after-certificate",
  ])("is erased wholly or not at all after a crash at %s", async (name) => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    const saved = join(scratch.folder, "crashed");
    onFailpoint((reached) => {
      if (reached === name && !fs.existsSync(saved)) fs.cpSync(scratch.dataDir, saved, { recursive: true });
    });
    await db.eraseSubject(A, ALICE, REASON).finally(() => onFailpoint(undefined));
    await db.close();
    scratch.restore(saved);
    const again = await scratch.open();
    if (name === "subject-after-mark") {
      expect(await again.query(A, "SELECT count(*) AS n FROM patients")).toEqual([{ n: 3 }]);
      await again.eraseSubject(A, ALICE, REASON);
    }
    await expect(again.eraseSubject(A, ALICE, REASON)).rejects.toMatchObject({ code: "subject_not_found" });
    expect(await again.subjectCertificates(A)).toMatchObject([{ reason: REASON.reason }]);
    expect(fs.readdirSync(scratch.path("subject-erasures"))).toEqual([]);
    await expectNowhere(again, scratch, A, ALICES);
    expect(await again.query(A, "SELECT id FROM patients ORDER BY id")).toEqual([{ id: 2 }, { id: 3 }]);
    expect((await again.verifyTenant(A)).ok).toBe(true);
  });

  it("does not come back with an earlier key store", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    const subjects = scratch.path("keys", "1.subjects");
    const earlier = fs.readFileSync(subjects);
    await db.eraseSubject(A, ALICE, REASON);
    await db.close();
    fs.writeFileSync(subjects, earlier);
    const again = await scratch.open();
    await again.rebuildProjection(A);
    await expectNowhere(again, scratch, A, ALICES);
    expect(fs.readFileSync(subjects).equals(earlier)).toBe(false);
    await again.close();
    // One that never knew of the subject: the log says that it was erased, so that nothing is missing.
    fs.writeFileSync(subjects, earlier.subarray(0, 128));
    const newer = await scratch.open();
    await expect(newer.rebuildProjection(A)).rejects.toMatchObject({ code: "keys_missing" });
  });

  it("stays erased through rotations, re-encryption and a rebuild; the others stay readable", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    await db.rotateKek(A);
    await db.rotateDek(A);
    await db.eraseSubject(A, ALICE, REASON);
    await db.reencryptTenant(A, { destroyFormerKeys: true });
    await db.rebuildProjection(A);
    await expectNowhere(db, scratch, A, ALICES);
    expect(await db.query(A, "SELECT note FROM visits")).toEqual([{ note: "bob's" }]);
    await db.close();
    const again = await scratch.open();
    await again.eraseSubject(A, BOB, REASON);
    expect(await again.query(A, "SELECT id FROM patients")).toEqual([{ id: 3 }]);
    expect((await again.verifyTenant(A)).ok).toBe(true);
  });

  it("is in no base of a trimmed tenant", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    const before = new Date(Date.now() + 1);
    await new Promise((resolve) => setTimeout(resolve, 5));
    await db.execute(A, "INSERT INTO patients VALUES (7, 'later', 'x')");
    await db.trimTenant(A, { before, reason: "old" });
    expect((await db.describeTenant(A)).firstOffset).toBeGreaterThan(0n);
    await db.eraseSubject(A, ALICE, REASON);
    await expectNowhere(db, scratch, A, ALICES);
    expect(await db.query(A, "SELECT id FROM patients ORDER BY id")).toEqual([
      { id: 2 },
      { id: 3 },
      { id: 7 },
    ]);
    await db.rebuildProjection(A);
    await expectNowhere(db, scratch, A, ALICES);
  });
});

describe("leaving and coming back", () => {
  it("an export is read with the keys of its subjects, and never has one that was erased", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    await db.eraseSubject(A, ALICE, REASON);
    const [dir, keys] = [join(scratch.folder, "export"), join(scratch.folder, "subject-keys.json")];
    await expect(db.exportTenant(A, dir, { subjectKeysTo: join(dir, "keys.json") })).rejects.toMatchObject({
      code: "invalid_argument",
    });
    await db.exportTenant(A, dir, { subjectKeysTo: keys });
    const key = db.verifierKey();
    await verifyExport(dir, { key });
    const needles = new Needles(ALICES.map(textSecret));
    expect(filesBelow(dir).flatMap((path) => needles.findIn(fs.readFileSync(path), path))).toEqual([]);
    await using other = new Scratch();
    const there = await other.open();
    await expect(there.importTenant(dir, { key })).rejects.toMatchObject({ code: "keys_missing" });
    await there.importTenant(dir, { key, as: TenantId(5), subjectKeys: keys });
    const sql = "SELECT * FROM patients ORDER BY id";
    expect(await there.query(TenantId(5), sql)).toEqual(await db.query(A, sql));
    expect(await there.subjectCertificates(TenantId(5))).toHaveLength(1);
    await there.eraseSubject(TenantId(5), BOB, REASON);
    expect(await there.query(TenantId(5), sql)).toEqual([{ id: 3, email: null, name: "nobody" }]);
    expect(await db.query(A, "SELECT name FROM patients WHERE id = 2")).toEqual([{ name: "Bob Stays" }]);
  });

  it("a backup from before the erasure brings everybody back but the erased", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    const [to, keysTo] = ["data", "keys"].map((name) => `file:${join(scratch.folder, `backup-${name}`)}`) as [
      string,
      string,
    ];
    const first = await db.backup({ to, keysTo });
    await db.restoreTenant({ from: to, tenant: A, as: TenantId(8) });
    expect(await db.query(TenantId(8), "SELECT count(*) AS n FROM patients")).toEqual([{ n: 3 }]);
    await db.eraseSubject(A, ALICE, REASON);
    await db.restoreTenant({ from: to, backup: first.id, tenant: A, as: TenantId(9) });
    const sql = "SELECT id FROM patients ORDER BY id";
    expect(await db.query(TenantId(9), sql)).toEqual([{ id: 2 }, { id: 3 }]);
    await db.backup({ to, keysTo });
    await db.close();
    await using into = new Scratch();
    fs.copyFileSync(scratch.masterKeyPath, into.masterKeyPath);
    const masterKey = masterKeyFile(into.masterKeyPath);
    await restoreNode({ from: to, keysFrom: keysTo, dataDir: into.dataDir, masterKey, backup: first.id });
    const restored = await into.open();
    expect(await restored.query(A, sql)).toEqual([{ id: 2 }, { id: 3 }]);
    await expectNowhere(restored, into, A, ALICES);
  });

  it("a backup of a trimmed tenant from before the erasure restores nobody who was erased", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    const before = new Date(Date.now() + 1);
    await new Promise((resolve) => setTimeout(resolve, 5));
    await db.execute(A, "INSERT INTO patients VALUES (7, 'later', 'x')");
    await db.trimTenant(A, { before, reason: "old" });
    const [to, keysTo] = [
      `file:${join(scratch.folder, "backup-data")}`,
      `file:${join(scratch.folder, "backup-keys")}`,
    ];
    const first = await db.backup({ to, keysTo });
    await db.eraseSubject(A, ALICE, REASON);
    await db.backup({ to, keysTo });
    await db.close();
    await using into = new Scratch();
    fs.copyFileSync(scratch.masterKeyPath, into.masterKeyPath);
    const masterKey = masterKeyFile(into.masterKeyPath);
    await restoreNode({ from: to, keysFrom: keysTo, dataDir: into.dataDir, masterKey, backup: first.id });
    const restored = await into.open();
    expect(await restored.query(A, "SELECT id FROM patients ORDER BY id")).toEqual([
      { id: 2 },
      { id: 3 },
      { id: 7 },
    ]);
    await expectNowhere(restored, into, A, ALICES);
  });
});
