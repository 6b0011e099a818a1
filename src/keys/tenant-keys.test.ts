/** Over 500 lines because keys, their rotations and their faults are tested on one set-up. */
import { createCipheriv, type KeyObject, randomBytes, sign, verify } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import { type Disk, systemDisk } from "../host/disk.ts";
import { type Randomness, systemRandomness } from "../host/randomness.ts";
import { SYSTEM_TENANT, TenantId } from "../tenant/tenant-id.ts";
import { deriveSubkey } from "./derive.ts";
import type { TenantKeysOptions } from "./first-keys.ts";
import { KeyStore } from "./key-store.ts";
import type { MasterKeyProvider } from "./master-key.ts";
import { createMasterKeyFile, masterKeyFile } from "./master-key-file.ts";
import { rewrapTenant } from "./rewrap-tenant.ts";
import type { StoredKeys } from "./stored-keys.ts";
import { TenantKeys } from "./tenant-keys.ts";

const TENANT = TenantId(7);

let root: string;
let folder: string;
let store: KeyStore;
let master: MasterKeyProvider;
let drawn: Buffer[];
let nowUs: bigint;

const clock: Clock = { wallTimeUs: () => nowUs, monotonicMs: () => Number(nowUs / 1_000n) };

/** Real randomness that remembers every 32 bytes it gave: all keys of a test are among them. */
function recording(source: Randomness = systemRandomness()): Randomness {
  return {
    bytes(size) {
      const bytes = source.bytes(size);
      if (size === 32) drawn.push(Buffer.from(bytes));
      return bytes;
    },
  };
}

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "kimberlite-tenant-keys-"));
  folder = join(root, "keys");
  store = await KeyStore.open(folder, systemDisk);
  master = newMaster("first");
  drawn = [];
  nowUs = 1_700_000_000_000_000n;
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function newMaster(name: string): MasterKeyProvider {
  createMasterKeyFile(join(root, `${name}.key`));
  return masterKeyFile(join(root, `${name}.key`));
}

function options(changed: Partial<TenantKeysOptions> = {}): TenantKeysOptions {
  return { tenant: TENANT, master, store, randomness: recording(), clock, ...changed };
}

function fingerprint(key: KeyObject): string {
  return createCipheriv("aes-256-ecb", key, null).update(Buffer.alloc(16)).toString("hex");
}

function logKeys(keys: TenantKeys): string[] {
  return keys.describe().deks.map((dek) => fingerprint(keys.logKey(dek.version)));
}

function present(tenant: TenantId = TENANT): StoredKeys {
  const stored = store.read(tenant);
  if (stored === undefined) throw new Error("the tenant has no entry");
  return stored;
}

function wrappedOf(stored: StoredKeys): Uint8Array[] {
  const all = [stored.kek, ...stored.deks];
  return [...all, ...(stored.signingKey === undefined ? [] : [stored.signingKey])].map((key) => key.wrapped);
}

/** True if any file of the folder holds the bytes, plain, in hex or in base64 at any alignment. */
function folderHolds(secret: Uint8Array): boolean {
  const bytes = Buffer.from(secret);
  const base64 = [0, 1, 2].map((skip) => bytes.subarray(skip).toString("base64").slice(0, 36));
  const forms = [bytes, bytes.toString("hex"), bytes.toString("hex").toUpperCase(), ...base64];
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => readFileSync(join(folder, name)))
    .some((content) => forms.some((form) => content.includes(form)));
}

/** The machine's disk, but the next replacement of a file ends as `fault` does. */
async function storeOnFaultyDisk(
  fault: (path: string, bytes: Uint8Array) => Promise<void>,
): Promise<KeyStore> {
  let faults = 1;
  const replaceFile: Disk["replaceFile"] = (path, bytes) => {
    faults -= 1;
    return faults === 0 ? fault(path, bytes) : systemDisk.replaceFile(path, bytes);
  };
  return KeyStore.open(folder, { ...systemDisk, replaceFile });
}

const diskFailed = (): Error => kimberliteError("disk_failed", "the disk refused an operation (EIO)");

async function failBeforeRename(path: string, bytes: Uint8Array): Promise<void> {
  writeFileSync(`${path}.new`, bytes);
  throw diskFailed();
}

async function failAfterRename(path: string, bytes: Uint8Array): Promise<void> {
  await systemDisk.replaceFile(path, bytes);
  throw diskFailed();
}

describe("create and load", () => {
  it("persists the keys before it resolves, and loads the same", async () => {
    const made = await TenantKeys.create(options());
    expect(made.current.version).toBe(1);
    expect(made.projectionKey().version).toBe(1);
    const loaded = await TenantKeys.load(options());
    expect(logKeys(loaded)).toEqual(logKeys(made));
    expect(loaded.projectionKey()).toEqual(made.projectionKey());
  });

  it("derives log and projection keys from the DEK that was drawn", async () => {
    const keys = await TenantKeys.create(options());
    const derived = (purpose: "log" | "projection"): string[] =>
      drawn.map((dek) => deriveSubkey(dek, purpose, TENANT, 1).toString("hex"));
    expect(derived("projection")).toContain(keys.projectionKey().key.toString("hex"));
    expect(derived("log")).toContain(keys.current.key.export().toString("hex"));
    expect(keys.logKey(1)).toBe(keys.current.key);
  });

  it("never replaces the keys of a tenant that has some", async () => {
    await TenantKeys.create(options());
    const before = present();
    await expect(TenantKeys.create(options())).rejects.toMatchObject({
      code: "tenant_exists",
      detail: { tenant: TENANT },
    });
    expect(present()).toEqual(before);
  });

  it("lets one of two creations at once win", async () => {
    const both = await Promise.allSettled([TenantKeys.create(options()), TenantKeys.create(options())]);
    expect(both.map((one) => one.status).sort()).toEqual(["fulfilled", "rejected"]);
    const winner = both.find((one) => one.status === "fulfilled");
    expect(logKeys(await TenantKeys.load(options()))).toEqual(winner && logKeys(winner.value));
  });

  it("gives each tenant keys of its own", async () => {
    const one = await TenantKeys.create(options());
    const other = await TenantKeys.create(options({ tenant: TenantId(8) }));
    expect(logKeys(one)).not.toEqual(logKeys(other));
  });

  it("says that keys are missing, damaged or under another master key", async () => {
    const detail = { tenant: TENANT };
    await expect(TenantKeys.load(options())).rejects.toMatchObject({ code: "keys_missing", detail });
    await TenantKeys.create(options());
    const wrong = TenantKeys.load(options({ master: newMaster("second") }));
    await expect(wrong).rejects.toMatchObject({ code: "master_key_wrong", detail });
    const missing = TenantKeys.load(options({ master: masterKeyFile(join(root, "none.key")) }));
    await expect(missing).rejects.toMatchObject({ code: "master_key_missing", detail });
    writeFileSync(join(folder, "7.keys"), "kimberlite-keys 1");
    await expect(TenantKeys.load(options())).rejects.toMatchObject({ code: "keys_damaged", detail });
  });

  it("has a signing key for the system tenant alone, the same after a restart", async () => {
    const system = { ...options(), tenant: SYSTEM_TENANT };
    const made = await TenantKeys.create({ ...system, withSigningKey: true });
    const loaded = await TenantKeys.load(system);
    const note = Buffer.from("checkpoint");
    expect(verify(null, note, made.verifierPublicKey, sign(null, note, loaded.signingKey()))).toBe(true);
    expect(made.verifierPublicKey.asymmetricKeyType).toBe("ed25519");

    const tenant = await TenantKeys.create(options());
    expect(() => tenant.signingKey()).toThrow(expect.objectContaining({ code: "keys_missing" }));
    const asked = TenantKeys.create(
      options({ tenant: TenantId(9) }) && { ...options(), withSigningKey: true },
    );
    await expect(asked).rejects.toThrow("assertion failed");
  });
});

describe("a forged entry", () => {
  it("cannot move a wrapped DEK to another version", async () => {
    const keys = await TenantKeys.create(options());
    await keys.rotateDek();
    const [one, two] = present().deks;
    if (one === undefined || two === undefined) throw new Error("two versions expected");
    await store.write(TENANT, { ...present(), deks: [one, { ...two, wrapped: one.wrapped }] });
    await expect(TenantKeys.load(options())).rejects.toMatchObject({
      code: "keys_damaged",
      detail: { tenant: TENANT, dekVersion: 2 },
    });
  });

  it("cannot move wrapped keys to another tenant", async () => {
    const other = TenantId(8);
    await TenantKeys.create(options());
    await TenantKeys.create(options({ tenant: other }));
    const own = present(other);
    await store.write(other, present());
    await expect(TenantKeys.load(options({ tenant: other }))).rejects.toMatchObject({
      code: "master_key_wrong",
      detail: { tenant: other },
    });
    await store.write(other, { ...own, deks: present().deks });
    await expect(TenantKeys.load(options({ tenant: other }))).rejects.toMatchObject({
      code: "keys_damaged",
      detail: { tenant: other },
    });
  });

  it("cannot pass a former KEK off as the present one", async () => {
    const keys = await TenantKeys.create(options());
    const former = present().kek;
    await keys.rotateKek();
    await store.write(TENANT, { ...present(), kek: { ...former, version: 2 } });
    await expect(TenantKeys.load(options())).rejects.toMatchObject({ code: "master_key_wrong" });
  });
});

describe("rotations", () => {
  it("of the DEK keep every older version, and the projection's", async () => {
    const keys = await TenantKeys.create(options());
    const first = fingerprint(keys.current.key);
    expect(await keys.rotateDek()).toBe(2);
    expect(keys.current.version).toBe(2);
    expect(keys.logKey(2)).toBe(keys.current.key);
    expect(fingerprint(keys.logKey(1))).toBe(first);
    expect(fingerprint(keys.current.key)).not.toBe(first);
    expect(keys.projectionKey().version).toBe(1);
    const loaded = await TenantKeys.load(options());
    expect(loaded.current.version).toBe(2);
    expect(logKeys(loaded)).toEqual(logKeys(keys));
    expect(() => keys.logKey(3)).toThrow(
      expect.objectContaining({ code: "keys_missing", detail: { tenant: TENANT, dekVersion: 3 } }),
    );
  });

  it("of the projection's DEK are recorded", async () => {
    const keys = await TenantKeys.create(options());
    await keys.rotateDek();
    const next = Buffer.from(keys.projectionKey(2).key);
    expect(next).not.toEqual(keys.projectionKey(1).key);
    await keys.setProjectionDek(2);
    expect(keys.projectionKey()).toEqual({ version: 2, key: next });
    expect((await TenantKeys.load(options())).projectionKey()).toEqual({ version: 2, key: next });
    await expect(keys.setProjectionDek(3)).rejects.toMatchObject({ code: "keys_missing" });
  });

  it("of the KEK change no DEK and no signing key, and leave nothing of the former wrapping", async () => {
    const system = { ...options(), tenant: SYSTEM_TENANT };
    const keys = await TenantKeys.create({ ...system, withSigningKey: true });
    await keys.rotateDek();
    const [before, former] = [logKeys(keys), wrappedOf(present(SYSTEM_TENANT))];
    expect(former.every(folderHolds)).toBe(true);
    await keys.rotateKek();
    expect(former.some(folderHolds)).toBe(false);
    const loaded = await TenantKeys.load(system);
    expect(loaded.describe().kek.version).toBe(2);
    expect(logKeys(keys)).toEqual(before);
    expect(logKeys(loaded)).toEqual(before);
    expect(loaded.verifierPublicKey.equals(keys.verifierPublicKey)).toBe(true);
    await keys.rotateDek();
    await keys.rotateKek();
    expect(logKeys(await TenantKeys.load(system))).toEqual(logKeys(keys));
  });

  it("of the master key, open: the new one opens, the former one no longer", async () => {
    const keys = await TenantKeys.create(options());
    const former = present().kek;
    const second = newMaster("second");
    await keys.rewrapUnder(second);
    expect(folderHolds(former.wrapped)).toBe(false);
    expect(keys.describe()).toMatchObject({ masterKeyId: second.keyId, kek: { version: 1 } });
    await master.close();
    await keys.rotateKek();
    await keys.rotateDek();
    const loaded = await TenantKeys.load(options({ master: second }));
    expect(logKeys(loaded)).toEqual(logKeys(keys));
    const first = masterKeyFile(join(root, "first.key"));
    await expect(TenantKeys.load(options({ master: first }))).rejects.toMatchObject({
      code: "master_key_wrong",
    });
  });

  it("of the master key, not open: once, and repeatable", async () => {
    const keys = await TenantKeys.create(options());
    const [before, former] = [logKeys(keys), present().kek.wrapped];
    keys.close();
    const second = newMaster("second");
    const rotation = { tenant: TENANT, from: master, to: second, store };
    expect(await rewrapTenant(rotation)).toBe(true);
    expect(folderHolds(former)).toBe(false);
    const after = present();
    expect(await rewrapTenant(rotation)).toBe(false);
    expect(present()).toEqual(after);
    expect(logKeys(await TenantKeys.load(options({ master: second })))).toEqual(before);
    const wrong = rewrapTenant({ ...rotation, to: newMaster("third") });
    await expect(wrong).rejects.toMatchObject({ code: "master_key_wrong", detail: { tenant: TENANT } });
    expect(present()).toEqual(after);
    const none = rewrapTenant({ ...rotation, tenant: TenantId(8) });
    await expect(none).rejects.toMatchObject({ code: "keys_missing", detail: { tenant: 8n } });
  });

  it("do not follow a master key that cannot give back what it wrapped", async () => {
    const keys = await TenantKeys.create(options());
    const before = present();
    const second = newMaster("second");
    const broken: MasterKeyProvider = {
      uri: second.uri,
      keyId: second.keyId,
      wrap: (key, context) => second.wrap(key, context),
      unwrap: async () => randomBytes(32),
      close: () => second.close(),
    };
    await expect(keys.rewrapUnder(broken)).rejects.toMatchObject({ code: "master_key_wrong" });
    expect(present()).toEqual(before);
    await keys.rotateKek();
    expect(logKeys(await TenantKeys.load(options()))).toEqual(logKeys(keys));
  });

  it("asked for all at once run one after another and lose nothing", async () => {
    const keys = await TenantKeys.create(options());
    const second = newMaster("second");
    await Promise.all([
      keys.rotateDek(),
      keys.rotateKek(),
      keys.rotateDek(),
      keys.rewrapUnder(second),
      keys.rotateKek(),
      keys.rotateDek(),
    ]);
    expect(keys.current.version).toBe(4);
    expect(keys.describe().kek.version).toBe(3);
    expect(new Set(logKeys(keys)).size).toBe(4);
    expect(logKeys(await TenantKeys.load(options({ master: second })))).toEqual(logKeys(keys));
  });

  it("do not build on an entry whose KEK is not the one in memory", async () => {
    const keys = await TenantKeys.create(options());
    const another = await TenantKeys.load(options());
    await another.rotateKek();
    const after = present();
    for (const rotate of [() => keys.rotateDek(), () => keys.rotateKek(), () => keys.rotateDek()]) {
      await expect(rotate()).rejects.toMatchObject({ code: "keys_damaged", detail: { tenant: TENANT } });
    }
    expect(present()).toEqual(after);
    expect(logKeys(await TenantKeys.load(options()))).toEqual(logKeys(another));
  });
});

describe("a disk that fails", () => {
  const rotations = {
    rotateDek: (keys: TenantKeys) => keys.rotateDek(),
    rotateKek: (keys: TenantKeys) => keys.rotateKek(),
    rewrapUnder: (keys: TenantKeys) => keys.rewrapUnder(masterKeyFile(join(root, "second.key"))),
  };
  const names = Object.keys(rotations) as (keyof typeof rotations)[];

  it.each(names)("before the rename leaves the old keys in force: %s", async (name) => {
    newMaster("second");
    await TenantKeys.create(options());
    const before = present();
    const keys = await TenantKeys.load(options({ store: await storeOnFaultyDisk(failBeforeRename) }));
    const [fingerprints, { version }] = [logKeys(keys), keys.current];
    const failed = rotations[name](keys);
    await expect(failed).rejects.toMatchObject({ code: "disk_failed", detail: { tenant: TENANT } });
    expect([logKeys(keys), keys.current.version]).toEqual([fingerprints, version]);
    expect(present()).toEqual(before);

    const afterCrash = await KeyStore.open(folder, systemDisk);
    expect(readdirSync(folder)).toEqual(["7.keys"]);
    expect(logKeys(await TenantKeys.load(options({ store: afterCrash })))).toEqual(fingerprints);

    await rotations[name](keys);
    await keys.rotateDek();
    const to = name === "rewrapUnder" ? masterKeyFile(join(root, "second.key")) : master;
    expect(logKeys(await TenantKeys.load(options({ master: to })))).toEqual(logKeys(keys));
  });

  it.each(names)("after the rename leaves store and memory in agreement: %s", async (name) => {
    const second = newMaster("second");
    await TenantKeys.create(options());
    const keys = await TenantKeys.load(options({ store: await storeOnFaultyDisk(failAfterRename) }));
    await expect(rotations[name](keys)).rejects.toMatchObject({ code: "disk_failed" });
    expect(keys.current.version).toBe(1);
    await keys.rotateDek();
    const to = name === "rewrapUnder" ? second : master;
    const loaded = await TenantKeys.load(options({ master: to }));
    expect(fingerprint(loaded.current.key)).toBe(fingerprint(keys.current.key));
    expect(fingerprint(loaded.logKey(1))).toBe(fingerprint(keys.logKey(1)));
    expect(loaded.current.version).toBe(keys.current.version);
  });

  it("while a tenant is made leaves no tenant, and making it again works", async () => {
    const faulty = await storeOnFaultyDisk(failBeforeRename);
    await expect(TenantKeys.create(options({ store: faulty }))).rejects.toMatchObject({
      code: "disk_failed",
    });
    expect(store.read(TENANT)).toBeUndefined();
    await TenantKeys.create(options({ store: faulty }));
    expect(present().deks).toHaveLength(1);
  });
});

describe("secrecy", () => {
  it("keeps every unwrapped key out of the folder, through every rotation", async () => {
    const system = { ...options(), tenant: SYSTEM_TENANT };
    const keys = await TenantKeys.create({ ...system, withSigningKey: true });
    await keys.rotateDek();
    await keys.rotateKek();
    await keys.rewrapUnder(newMaster("second"));
    const seed = keys.signingKey().export({ format: "der", type: "pkcs8" }).subarray(-32);
    expect(drawn).toHaveLength(5);
    expect(drawn).toContainEqual(seed);
    const subkeys = [keys.current.key.export(), keys.logKey(1).export(), keys.projectionKey().key];
    for (const secret of [...drawn, ...subkeys]) expect(folderHolds(secret)).toBe(false);

    writeFileSync(join(folder, "planted"), `x${drawn[1]?.toString("base64")}`);
    expect(drawn.filter(folderHolds)).toHaveLength(1);
  });

  it("leaves no key in the memory that the source of randomness gave it", async () => {
    const source = systemRandomness();
    const given: Buffer[] = [];
    const lending: Randomness = {
      bytes(size) {
        const bytes = source.bytes(size);
        if (size === 32) given.push(bytes);
        return bytes;
      },
    };
    const keys = await TenantKeys.create(options({ randomness: lending }));
    await keys.rotateDek();
    await keys.rotateKek();
    expect(given.length).toBeGreaterThanOrEqual(4);
    for (const bytes of given) expect(bytes.equals(Buffer.alloc(32))).toBe(true);
  });

  it("destroys what was wrapped, and only that tenant's", async () => {
    const keys = await TenantKeys.create(options());
    const other = await TenantKeys.create(options({ tenant: TenantId(8) }));
    await keys.rotateDek();
    const wrapped = wrappedOf(present());
    keys.close();
    await store.destroy(TENANT);
    expect(wrapped.some(folderHolds)).toBe(false);
    await expect(TenantKeys.load(options())).rejects.toMatchObject({ code: "keys_missing" });
    expect(logKeys(await TenantKeys.load(options({ tenant: TenantId(8) })))).toEqual(logKeys(other));
  });

  it("describes versions and ages without a byte of a key", async () => {
    const keys = await TenantKeys.create(options());
    nowUs += 5_000_000n;
    await keys.rotateDek();
    nowUs += 1_000_000n;
    expect(keys.describe()).toEqual({
      tenant: TENANT,
      masterKeyId: master.keyId,
      kek: { version: 1, createdAtUs: 1_700_000_000_000_000n, ageMs: 6_000 },
      deks: [
        { version: 1, createdAtUs: 1_700_000_000_000_000n, ageMs: 6_000 },
        { version: 2, createdAtUs: 1_700_000_005_000_000n, ageMs: 1_000 },
      ],
      projectionDek: 1,
      hasSigningKey: false,
    });
    nowUs = 0n;
    expect(keys.describe().kek.ageMs).toBe(0);
  });
});

describe("close", () => {
  it("zeroes the Buffers it lent, and every use afterwards is refused", async () => {
    const keys = await TenantKeys.create(options());
    const { key } = keys.projectionKey();
    expect(key.equals(Buffer.alloc(32))).toBe(false);
    keys.close();
    keys.close();
    expect(key.equals(Buffer.alloc(32))).toBe(true);
    const uses: (() => unknown)[] = [
      () => keys.current,
      () => keys.logKey(1),
      () => keys.projectionKey(),
      () => keys.signingKey(),
      () => keys.verifierPublicKey,
      () => keys.describe(),
    ];
    const closed = expect.objectContaining({ code: "closed" });
    for (const use of uses) expect(use).toThrow(closed);
    for (const use of [
      keys.rotateDek(),
      keys.rotateKek(),
      keys.setProjectionDek(1),
      keys.rewrapUnder(master),
    ]) {
      await expect(use).rejects.toThrow(closed);
    }
  });

  it("zeroes every Buffer that held a key, the master key's answers included", async () => {
    const seen: Buffer[] = [];
    const watched: MasterKeyProvider = {
      uri: master.uri,
      keyId: master.keyId,
      wrap: (key, context) => {
        seen.push(key);
        return master.wrap(key, context);
      },
      unwrap: async (wrapped, context) => {
        const key = await master.unwrap(wrapped, context);
        seen.push(key);
        return key;
      },
      close: () => master.close(),
    };
    const keys = await TenantKeys.create(options({ master: watched }));
    await keys.rotateKek();
    const loaded = await TenantKeys.load(options({ master: watched }));
    expect(seen.filter((key) => !key.equals(Buffer.alloc(32)))).toHaveLength(2);
    keys.close();
    loaded.close();
    expect(seen).toHaveLength(5);
    for (const key of seen) expect(key.equals(Buffer.alloc(32))).toBe(true);
  });

  it("during a rotation writes no zeroed key", async () => {
    await TenantKeys.create(options());
    const before = present();
    for (const rotation of ["rotateKek", "rotateDek", "rewrapUnder"] as const) {
      const gate = Promise.withResolvers<void>();
      const slow: MasterKeyProvider = {
        uri: master.uri,
        keyId: master.keyId,
        wrap: async (key, context) => {
          await gate.promise;
          return master.wrap(key, context);
        },
        unwrap: (wrapped, context) => master.unwrap(wrapped, context),
        close: () => master.close(),
      };
      const keys = await TenantKeys.load(options({ master: slow }));
      const rotated = rotation === "rewrapUnder" ? keys.rewrapUnder(slow) : keys[rotation]();
      const ended = expect(rotated, rotation).rejects.toMatchObject({ code: "closed" });
      keys.close();
      gate.resolve();
      await ended;
      expect(present(), rotation).toEqual(before);
    }
  });

  it("and destruction during a rotation leave no entry", async () => {
    const keys = await TenantKeys.create(options());
    const rotated = keys.rotateKek().catch(() => undefined);
    await new Promise((resolve) => setImmediate(resolve));
    keys.close();
    await Promise.all([rotated, store.destroy(TENANT)]);
    expect(readdirSync(folder)).toEqual([]);
  });
});
