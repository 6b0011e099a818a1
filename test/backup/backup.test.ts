/**
 * Backups: taken while the node is written, as large as what is new, sealed as the data is, apart from their keys; and
 * what comes back from them is what was there, at the moment that was asked for, and never a tenant that was erased.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { systemClock } from "../../src/host/clock.ts";
import {
  type BackupPlace,
  Duration,
  type Kimberlite,
  masterKeyFile,
  openCheckpoint,
  parseVerifierKey,
  restoreNode,
  s3Target,
  TenantId,
  type VerifiedBackup,
  type VerifyBackupOptions,
  verifyBackup,
} from "../../src/index.ts";
import { issuerOf, makeSigner, ORIGIN, sign } from "../auth/credentials.ts";
import { CREDENTIALS } from "../emulators/aws-kms.ts";
import { S3Emulator } from "../emulators/s3.ts";
import { filesBelow, flipBit, Scratch } from "../isolation/scratch.ts";

const A = TenantId(1);
const B = TenantId(2);

async function fill(db: Kimberlite, ids: readonly TenantId[] = [A, B]): Promise<void> {
  for (const id of ids) {
    await db.createTenant({ id, name: `tenant ${id}`, retention: Duration.days(1) });
    await db.execute(id, "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)");
    await db.insert(id, "notes", { id: 1, text: `secret of ${id}` });
  }
}

const rows = (db: Kimberlite, id: TenantId): Promise<unknown> =>
  db.query(id, "SELECT * FROM notes ORDER BY id");

/** Where backups go: directories beside the scratch directory, or buckets of an emulator of S3. */
interface Places extends AsyncDisposable {
  readonly data: BackupPlace;
  readonly keys: BackupPlace;
  /** Everything that lies there. */
  bytes(): Buffer[];
}

async function directories(scratch: Scratch): Promise<Places> {
  const [data, keys] = [join(scratch.folder, "backup"), join(scratch.folder, "backup-keys")];
  return {
    data: `file:${data}`,
    keys: `file:${keys}`,
    bytes: () => [...filesBelow(data), ...filesBelow(keys)].map((path) => fs.readFileSync(path)),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

async function buckets(): Promise<Places & { readonly emulator: S3Emulator }> {
  const emulator = await S3Emulator.start();
  const client = { credentials: CREDENTIALS };
  return {
    emulator,
    data: await s3Target(emulator.uriOf("backups", "node/one"), { client }),
    keys: await s3Target(emulator.uriOf("other-backups", ""), { client }),
    bytes: () => [...emulator.objects.values()],
    [Symbol.asyncDispose]: () => emulator[Symbol.asyncDispose](),
  };
}

async function restored(
  scratch: Scratch,
  places: Places,
  options: { at?: Date; backup?: string; keepCredentials?: boolean } = {},
): Promise<Scratch> {
  const into = new Scratch();
  fs.copyFileSync(scratch.masterKeyPath, into.masterKeyPath);
  await restoreNode({
    from: places.data,
    keysFrom: places.keys,
    dataDir: into.dataDir,
    masterKey: masterKeyFile(into.masterKeyPath),
    actor: "operator",
    ...options,
  });
  return into;
}

afterEach(() => {
  vi.unstubAllEnvs();
});

it("ends API keys and issuers with the restore of a node, for nobody knows which were withdrawn since", async () => {
  await using scratch = new Scratch();
  await using places = await directories(scratch);
  const db = await scratch.open();
  await fill(db);
  const revoked = await db.createApiKey(A, { role: "admin" });
  const other = await db.createApiKey(B, { role: "reader" });
  const operator = await db.createOperatorKey();
  const signer = await makeSigner("https://id.example");
  await db.registerIssuer(A, issuerOf(signer));
  const jwt = await sign(signer, systemClock.wallTimeUs());
  expect(await db.authenticator().authenticate(jwt, ORIGIN)).toMatchObject({ tenant: A });
  await db.backup({ to: places.data, keysTo: places.keys });
  await db.revokeApiKey(A, revoked.key.id);
  await db.removeIssuer(A, signer.issuer);
  await db.close();

  await using ended = await restored(scratch, places);
  for (const start of ["first", "second"]) {
    const anew = await ended.open();
    for (const token of [revoked.token, other.token, operator.token, jwt]) {
      await expect(anew.authenticator().authenticate(token, ORIGIN), start).rejects.toMatchObject({
        code: "unauthenticated",
      });
    }
    expect(await anew.listIssuers(A)).toEqual([]);
    expect(await Array.fromAsync(anew.nodeAudit({ action: "token.revoke" }))).toMatchObject([
      { tenant: A, actor: "operator", detail: { keys: 1, issuers: 1 } },
      { tenant: B, detail: { keys: 1, issuers: 0 } },
      { detail: { keys: 1, issuers: 0 } },
    ]);
    // The tenant held data: still no operator makes its next key.
    await expect(anew.enrolTenant(A)).rejects.toMatchObject({ code: "not_authorized" });
    await anew.close();
  }

  await using kept = await restored(scratch, places, { keepCredentials: true });
  const then = await kept.open();
  for (const token of [revoked.token, other.token, operator.token, jwt]) {
    await then.authenticator().authenticate(token, ORIGIN);
  }
  expect(await Array.fromAsync(then.nodeAudit({ action: "tenant.restore" }))).toMatchObject([
    { detail: { keepCredentials: true } },
  ]);
  await then.close();
});

describe.each(["directories", "an emulator of S3"])("a backup in %s", (kind) => {
  const placesFor = (scratch: Scratch): Promise<Places> =>
    kind === "directories" ? directories(scratch) : buckets();

  it("is sealed, grows by what is new, and brings the node back", async () => {
    await using scratch = new Scratch();
    await using places = await placesFor(scratch);
    const db = await scratch.open();
    await fill(db);
    const first = await db.backup({ to: places.data, keysTo: places.keys, actor: "operator" });
    expect(first).toMatchObject({ tenants: 3, changed: 3, keys: 3 });
    for (const bytes of places.bytes())
      for (const text of ["secret of", "notes"]) expect(bytes.includes(text)).toBe(false);
    await db.insert(A, "notes", { id: 2, text: "later" });
    await db.rotateDek(A);
    await db.insert(A, "notes", { id: 3, text: "under another key" });
    const second = await db.backup({ to: places.data, keysTo: places.keys });
    // The system tenant's log grew by the records of the backups themselves.
    expect(second).toMatchObject({ tenants: 3, changed: 2, keys: 1 });
    expect(second.bytes).toBeLessThan(first.bytes);
    const checkpoint = await db.checkpoint(A);
    const expected = [await rows(db, A), await rows(db, B)];
    const listed = await db.backups(places.data);
    expect(listed.map(({ id }) => id)).toEqual([first.id, second.id]);
    await db.close();
    await using into = await restored(scratch, places);
    const again = await into.open();
    expect([await rows(again, A), await rows(again, B)]).toEqual(expected);
    expect((await again.verifyTenant(A, { checkpoint })).ok).toBe(true);
    expect(await Array.fromAsync(again.nodeAudit({ action: "tenant.restore" }))).toMatchObject([
      { actor: "operator", detail: { backup: second.id } },
    ]);
    await again.insert(B, "notes", { id: 2, text: "goes on" });
    await using earlier = await restored(scratch, places, { backup: first.id });
    expect(await earlier.with((old) => rows(old, A))).toEqual([{ id: 1, text: "secret of 1" }]);
  });
});

describe("a restore", () => {
  it("to a point in time gives every tenant as it was then, and no tenant that came later", async () => {
    await using scratch = new Scratch();
    await using places = await directories(scratch);
    const db = await scratch.open();
    await fill(db);
    await db.backup({ to: places.data, keysTo: places.keys });
    await new Promise((resolve) => setTimeout(resolve, 5));
    const then = new Date();
    await new Promise((resolve) => setTimeout(resolve, 5));
    await db.insert(A, "notes", { id: 2, text: "too late" });
    await fill(db, [TenantId(3)]);
    await db.backup({ to: places.data, keysTo: places.keys });
    await db.close();
    await using into = await restored(scratch, places, { at: then });
    const again = await into.open();
    expect(await rows(again, A)).toEqual([{ id: 1, text: "secret of 1" }]);
    expect((await again.listTenants()).map(({ id }) => id)).toEqual([A, B]);
    expect(fs.existsSync(into.path("tenants", "3"))).toBe(false);
    await fill(again, [TenantId(3)]);
    expect((await again.verifyTenant(A)).ok).toBe(true);
  });

  it("never revives a tenant that was erased after the backup", async () => {
    await using scratch = new Scratch();
    await using places = await directories(scratch);
    const db = await scratch.open();
    await fill(db);
    const before = await db.backup({ to: places.data, keysTo: places.keys });
    await db.eraseTenant(A, { reason: "they left", overrideRetention: true });
    const { note } = await db.erasureCertificate(A);
    await db.backup({ to: places.data, keysTo: places.keys });
    await expect(
      db.restoreTenant({
        from: places.data,
        keysFrom: places.keys,
        tenant: A,
        as: TenantId(9),
        name: "again",
      }),
    ).rejects.toMatchObject({ code: "tenant_erased" });
    await db.close();
    expect(filesBelow(join(scratch.folder, "backup-keys")).filter((path) => /keys\/1-/.test(path))).toEqual(
      [],
    );
    await using into = await restored(scratch, places, { backup: before.id });
    const again = await into.open();
    await expect(rows(again, A)).rejects.toMatchObject({ code: "tenant_erased" });
    await expect(again.createTenant({ id: A, name: "again" })).rejects.toMatchObject({
      code: "tenant_erased",
    });
    expect((await again.erasureCertificate(A)).note).toBe(note);
    expect(await rows(again, B)).toEqual([{ id: 1, text: "secret of 2" }]);
    await again.close();
    expect((await into.with((third) => third.listTenants())).map(({ state }) => state)).toEqual([
      "erased",
      "active",
    ]);
  });

  it("of an altered, incomplete or foreign backup is refused and leaves no node", async () => {
    await using scratch = new Scratch();
    await using other = new Scratch();
    await using places = await directories(scratch);
    await using otherPlaces = await directories(other);
    for (const [one, at] of [
      [scratch, places],
      [other, otherPlaces],
    ] as const) {
      await one.with(async (db) => {
        await fill(db);
        await db.backup({ to: at.data, keysTo: at.keys });
      });
    }
    const into = join(scratch.folder, "restored");
    const attempt = (options: Partial<Parameters<typeof restoreNode>[0]> = {}): Promise<unknown> =>
      restoreNode({
        from: places.data,
        keysFrom: places.keys,
        dataDir: into,
        masterKey: masterKeyFile(scratch.masterKeyPath),
        ...options,
      });
    const masterKey = masterKeyFile(other.masterKeyPath);
    await expect(attempt({ masterKey })).rejects.toMatchObject({ code: "master_key_wrong" });
    await expect(attempt({ keysFrom: otherPlaces.keys })).rejects.toMatchObject({ code: "backup_invalid" });
    await expect(attempt({ keysFrom: places.data })).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(attempt({ backup: "none" })).rejects.toMatchObject({ code: "backup_not_found" });
    await expect(attempt({ from: `file:${join(scratch.folder, "nothing")}` })).rejects.toMatchObject({
      code: "backup_not_found",
    });
    const folder = join(scratch.folder, "backup");
    for (const path of filesBelow(folder).filter((name) => !name.endsWith("installation.json"))) {
      flipBit(path, Math.floor(fs.statSync(path).size / 2));
      await expect(attempt(), path).rejects.toMatchObject({ code: "backup_invalid" });
      flipBit(path, Math.floor(fs.statSync(path).size / 2));
      fs.renameSync(path, `${path}.away`);
      await expect(attempt(), path).rejects.toMatchObject({ code: expect.stringMatching(/^backup_/) });
      fs.renameSync(`${path}.away`, path);
    }
    await expect(scratch.open({ dataDir: into, create: false })).rejects.toMatchObject({
      code: "directory_not_initialised",
    });
    await attempt();
    await expect(attempt()).rejects.toMatchObject({ code: "destination_exists" });
    await using whole = await scratch.open({ dataDir: into });
    expect(await rows(whole, B)).toEqual([{ id: 1, text: "secret of 2" }]);
  });
});

describe("verification", () => {
  it("reads every object of a backup, and names the first that is altered or missing", async () => {
    await using scratch = new Scratch();
    await using places = await directories(scratch);
    const key = await scratch.with(async (db) => {
      await fill(db);
      await db.eraseTenant(B, { reason: "left", overrideRetention: true });
      await db.backup({ to: places.data, keysTo: places.keys });
      return db.verifierKey();
    });
    // The node is down: neither it nor its master key is needed.
    fs.rmSync(scratch.masterKeyPath);
    const attempt = (options: Partial<VerifyBackupOptions> = {}): Promise<VerifiedBackup> =>
      verifyBackup({ from: places.data, keysFrom: places.keys, key, ...options });
    const whole = await attempt();
    expect(whole).toMatchObject({ partial: false, tenants: 2, keys: 2, erased: 1 });
    const [data, keys] = ["backup", "backup-keys"].map((name) => join(scratch.folder, name)) as [
      string,
      string,
    ];
    const names = filesBelow(data).filter((path) => /\.(piece|db)$/.test(path));
    expect(whole.bytes).toBe(names.reduce((sum, path) => sum + fs.statSync(path).size, 0));
    const objects = [...filesBelow(data), ...filesBelow(keys)];
    expect(objects.length).toBeGreaterThan(8);
    for (const path of objects) {
      const wrong = { code: expect.stringMatching(/^(backup_|signature_invalid)/) };
      flipBit(path, Math.floor(fs.statSync(path).size / 2));
      // What names the place may lose a bit that nothing depends on; nothing else may.
      if (!path.endsWith("installation.json")) await expect(attempt(), path).rejects.toMatchObject(wrong);
      flipBit(path, Math.floor(fs.statSync(path).size / 2));
      if (path.includes("erased")) continue;
      fs.renameSync(path, `${path}.away`);
      await expect(attempt(), path).rejects.toMatchObject(wrong);
      fs.renameSync(`${path}.away`, path);
    }
    await expect(attempt({ backup: "none" })).rejects.toMatchObject({ code: "backup_not_found" });
    await expect(attempt({ keysFrom: places.data })).rejects.toMatchObject({ code: "invalid_argument" });
    await using other = new Scratch();
    const stranger = await other.with(async (db) => db.verifierKey());
    await expect(attempt({ key: stranger })).rejects.toMatchObject({ code: "backup_invalid" });
    expect(await attempt()).toEqual(whole);
  });
});

describe("one tenant", () => {
  it("comes back beside the one that is there, up to an offset or a time", async () => {
    await using scratch = new Scratch();
    await using places = await directories(scratch);
    const db = await scratch.open();
    await fill(db);
    await db.placeLegalHold(A, { name: "case", reason: "court" });
    const early = openCheckpoint(await db.checkpoint(A), parseVerifierKey(db.verifierKey()));
    const { offset } = await db.insert(A, "notes", { id: 2, text: "second" });
    const then = new Date();
    await new Promise((resolve) => setTimeout(resolve, 5));
    await db.execute(A, "DELETE FROM notes");
    await db.backup({ to: places.data, tenants: [A] });
    const wanted = [
      { id: 1, text: "secret of 1" },
      { id: 2, text: "second" },
    ];
    const entry = await db.restoreTenant({
      from: places.data,
      tenant: A,
      as: TenantId(7),
      at: offset as bigint,
      actor: "operator",
    });
    expect(entry).toMatchObject({ id: 7n, name: "tenant 1", legalHolds: [{ name: "case" }] });
    await db.restoreTenant({ from: places.data, tenant: A, as: TenantId(8), at: then });
    for (const id of [TenantId(7), TenantId(8)]) {
      expect(await rows(db, id)).toEqual(wanted);
      const { fromRoot } = await db.consistencyProof(id, early.size, early.size + 1n);
      expect(Buffer.from(fromRoot)).toEqual(Buffer.from(early.root));
      expect((await db.verifyTenant(id)).ok).toBe(true);
    }
    expect(await rows(db, A)).toEqual([]);
    const from = { from: places.data, tenant: A };
    await expect(db.restoreTenant(from)).rejects.toMatchObject({ code: "tenant_exists" });
    await expect(db.restoreTenant({ ...from, as: TenantId(10), at: 10_000 })).rejects.toMatchObject({
      code: "offset_out_of_range",
    });
    await expect(db.restoreTenant({ ...from, tenant: B, as: TenantId(10) })).rejects.toMatchObject({
      code: "backup_not_found",
    });
    expect(fs.readdirSync(scratch.path("staging"))).toEqual([]);
    expect(await Array.fromAsync(db.audit(TenantId(7), { action: "tenant.restore" }))).toMatchObject([
      { actor: "operator" },
    ]);
    await db.close();
    expect(await scratch.with((again) => rows(again, TenantId(7)))).toEqual(wanted);
  });
});

describe("the place of backups", () => {
  it("is one installation's, and keys lie apart from data", async () => {
    await using scratch = new Scratch();
    await using other = new Scratch();
    await using places = await directories(scratch);
    const db = await scratch.open();
    await fill(db);
    await db.backup({ to: places.data });
    const stranger = await other.open();
    await expect(stranger.backup({ to: places.data })).rejects.toMatchObject({ code: "destination_exists" });
    await expect(db.backup({ to: places.data, keysTo: places.data })).rejects.toMatchObject({
      code: "invalid_argument",
    });
    await expect(
      db.backup({ to: places.data, keysTo: `file:${join(scratch.folder, "backup", "keys")}` }),
    ).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(db.backup({ to: `file:${scratch.dataDir}` })).rejects.toMatchObject({
      code: "destination_exists",
    });
    await expect(db.backup({ to: "ftp://nowhere" })).rejects.toMatchObject({ code: "invalid_argument" });
    expect(filesBelow(join(scratch.folder, "backup")).some((path) => path.endsWith(".keys"))).toBe(false);
  });

  it("that fails in the middle leaves the backup before, and the next one goes on", async () => {
    await using scratch = new Scratch();
    await using places = await buckets();
    const db = await scratch.open();
    await fill(db);
    const first = await db.backup({ to: places.data, keysTo: places.keys });
    await db.insert(A, "notes", { id: 2, text: "more" });
    for (const part of [".piece", "tenants/1/", "backups/", "keys/", "keys.json"]) {
      await db.rotateKek(B);
      places.emulator.refusePuts = part;
      await expect(db.backup({ to: places.data, keysTo: places.keys })).rejects.toMatchObject({
        code: "storage_failed",
      });
    }
    places.emulator.refusePuts = undefined;
    expect((await db.backups(places.data)).map(({ id }) => id)).toEqual([first.id]);
    places.emulator.internalErrors = 2;
    await db.backup({ to: places.data, keysTo: places.keys });
    places.emulator.denied = true;
    await expect(db.backup({ to: places.data })).rejects.toMatchObject({ code: "not_authorized" });
    places.emulator.denied = false;
    await using into = await restored(scratch, places);
    expect(await into.with((again) => rows(again, A))).toHaveLength(2);
  });

  it("takes a consistent backup while tenants are written, and of thousands of cold ones", async () => {
    await using scratch = new Scratch();
    await using places = await directories(scratch);
    const db = await scratch.open();
    await fill(db);
    for (let n = 10; n < 300; n += 1) await db.createTenant({ id: TenantId(n), name: `cold ${n}` });
    let writing = true;
    let next = 100;
    const writer = (async () => {
      while (writing) {
        await db.insert(A, "notes", { id: next, text: `row ${next}` });
        next += 1;
      }
    })();
    for (let round = 0; round < 4; round += 1) await db.backup({ to: places.data, keysTo: places.keys });
    writing = false;
    await writer;
    await using into = await restored(scratch, places);
    const again = await into.open();
    const ids = (
      (await again.query(A, "SELECT id FROM notes WHERE id >= 100 ORDER BY id")) as { id: number }[]
    ).map(({ id }) => id);
    expect(ids).toEqual(ids.map((_, index) => 100 + index));
    expect(ids.length).toBeGreaterThan(0);
    expect((await again.listTenants({ limit: 10_000 })).length).toBe(292);
  });
});
