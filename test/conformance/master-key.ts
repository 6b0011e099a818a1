/**
 * What every provider of a master key must do, run against each of them.
 *
 * The fixture gives two keys by name; asking twice for one name gives two providers over the same key, as after a
 * restart.
 */
import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { KEY_BYTES, type KeyContext, type MasterKeyProvider } from "../../src/keys/master-key.ts";
import { SYSTEM_TENANT, TenantId } from "../../src/tenant/tenant-id.ts";

/** Makes a provider over the named key, which exists from the first time that it is named. */
export type MakeMasterKeyProvider = (key: "first" | "second") => Promise<MasterKeyProvider>;

const CONTEXT: KeyContext = { tenant: TenantId(7), purpose: "kek", version: 3 };

const OTHER_CONTEXTS: readonly KeyContext[] = [
  { ...CONTEXT, tenant: TenantId(8) },
  { ...CONTEXT, tenant: TenantId(7n + 2n ** 32n) },
  { ...CONTEXT, tenant: SYSTEM_TENANT },
  { ...CONTEXT, version: 2 },
  { ...CONTEXT, version: 4 },
];

/** Declares the suite for one provider. */
export function masterKeyConformance(name: string, makeProvider: MakeMasterKeyProvider): void {
  describe(`master key provider: ${name}`, () => {
    const opened: MasterKeyProvider[] = [];
    const open = async (key: "first" | "second"): Promise<MasterKeyProvider> => {
      const provider = await makeProvider(key);
      opened.push(provider);
      return provider;
    };
    afterEach(async () => {
      for (const provider of opened.splice(0)) await provider.close();
    });
    declareRoundTrips(open);
    declareRefusals(open);
    declareSecrecy(open);
  });
}

function declareRoundTrips(open: MakeMasterKeyProvider): void {
  it("gives back what it wrapped, also after a restart", async () => {
    const key = randomBytes(KEY_BYTES);
    const kept = Buffer.from(key);
    const wrapped = await (await open("first")).wrap(key, CONTEXT);
    expect(key).toEqual(kept);
    expect(await (await open("first")).unwrap(wrapped, { ...CONTEXT })).toEqual(kept);
  });

  it("gives a Buffer of its own each time", async () => {
    const master = await open("first");
    const key = randomBytes(KEY_BYTES);
    const wrapped = await master.wrap(key, CONTEXT);
    const once = await master.unwrap(wrapped, CONTEXT);
    once.fill(0);
    expect(await master.unwrap(wrapped, CONTEXT)).toEqual(key);
  });

  it("serves many callers at once", async () => {
    const master = await open("first");
    const keys = Array.from({ length: 16 }, () => randomBytes(KEY_BYTES));
    const back = await Promise.all(
      keys.map(async (key, index) => {
        const context = { ...CONTEXT, tenant: TenantId(index + 1) };
        return master.unwrap(await master.wrap(key, context), context);
      }),
    );
    expect(back).toEqual(keys);
  });

  it("has one id for one key, and another for another", async () => {
    const first = await open("first");
    expect(first.keyId).not.toBe("");
    expect((await open("first")).keyId).toBe(first.keyId);
    expect((await open("second")).keyId).not.toBe(first.keyId);
  });
}

function declareRefusals(open: MakeMasterKeyProvider): void {
  it.each(OTHER_CONTEXTS)("refuses the context of tenant $tenant, version $version", async (other) => {
    const master = await open("first");
    const wrapped = await master.wrap(randomBytes(KEY_BYTES), CONTEXT);
    await expect(master.unwrap(wrapped, other)).rejects.toMatchObject({
      code: "master_key_wrong",
      detail: { tenant: other.tenant },
    });
  });

  it("refuses what another key wrapped", async () => {
    const wrapped = await (await open("first")).wrap(randomBytes(KEY_BYTES), CONTEXT);
    const second = await open("second");
    await expect(second.unwrap(wrapped, CONTEXT)).rejects.toMatchObject({ code: "master_key_wrong" });
  });

  it("refuses wrapped bytes with one flipped byte, wherever it is", async () => {
    const master = await open("first");
    const wrapped = await master.wrap(randomBytes(KEY_BYTES), CONTEXT);
    for (const position of wrapped.keys()) {
      const flipped = Buffer.from(wrapped);
      flipped.writeUInt8(flipped.readUInt8(position) ^ 0x01, position);
      const refused = expect(master.unwrap(flipped, CONTEXT), `byte ${position}`).rejects;
      await refused.toMatchObject({ code: "master_key_wrong" });
    }
  });

  it("refuses wrapped bytes that are cut, extended or empty", async () => {
    const master = await open("first");
    const wrapped = Buffer.from(await master.wrap(randomBytes(KEY_BYTES), CONTEXT));
    for (const bytes of [wrapped.subarray(0, -1), Buffer.concat([wrapped, Buffer.of(0)]), Buffer.alloc(0)]) {
      await expect(master.unwrap(bytes, CONTEXT)).rejects.toMatchObject({ code: "master_key_wrong" });
    }
  });

  it.each([0, 16, KEY_BYTES - 1, KEY_BYTES + 1, 64])("does not wrap a key of %i bytes", async (size) => {
    const master = await open("first");
    await expect(master.wrap(Buffer.alloc(size, 1), CONTEXT)).rejects.toThrow("assertion failed");
  });

  it("is not used after it was closed", async () => {
    const master = await open("first");
    const wrapped = await master.wrap(randomBytes(KEY_BYTES), CONTEXT);
    await master.close();
    await master.close();
    await expect(master.wrap(randomBytes(KEY_BYTES), CONTEXT)).rejects.toThrow("assertion failed");
    await expect(master.unwrap(wrapped, CONTEXT)).rejects.toThrow("assertion failed");
  });
}

function declareSecrecy(open: MakeMasterKeyProvider): void {
  it("wraps one key differently each time", async () => {
    const master = await open("first");
    const key = randomBytes(KEY_BYTES);
    const all = await Promise.all(Array.from({ length: 20 }, () => master.wrap(key, CONTEXT)));
    expect(new Set(all.map((wrapped) => Buffer.from(wrapped).toString("hex"))).size).toBe(20);
  });

  it("shows nothing of the key in what it wraps", async () => {
    const master = await open("first");
    const key = randomBytes(KEY_BYTES);
    const wrapped = Buffer.from(await master.wrap(key, CONTEXT));
    for (const form of [
      key.subarray(0, 8),
      key.toString("hex"),
      key.toString("base64"),
      key.toString("base64url"),
    ]) {
      expect(wrapped.includes(form)).toBe(false);
    }
  });

  it("names neither key nor wrapped bytes in an error", async () => {
    const key = randomBytes(KEY_BYTES);
    const wrapped = Buffer.from(await (await open("first")).wrap(key, CONTEXT));
    const error = await (await open("second")).unwrap(wrapped, CONTEXT).catch((reason: unknown) => reason);
    const text = `${String(error)} ${JSON.stringify(error, (_, value) => (typeof value === "bigint" ? `${value}` : value))}`;
    for (const secret of [key, wrapped]) {
      expect(text).not.toContain(secret.toString("hex"));
      expect(text).not.toContain(secret.toString("base64"));
    }
  });
}
