import { createHash } from "node:crypto";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { kimberliteError } from "../errors.ts";
import { type Disk, systemDisk } from "../host/disk.ts";
import { SYSTEM_TENANT, TenantId } from "../tenant/tenant-id.ts";
import { KeyStore } from "./key-store.ts";
import { encodeStoredKeys, parseStoredKeys, type StoredKeys } from "./stored-keys.ts";
import { WRAPPED_BYTES } from "./wrapping.ts";

const TENANT = TenantId(7);

let root: string;
let folder: string;
let store: KeyStore;

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "kimberlite-keys-"));
  folder = join(root, "keys");
  store = await KeyStore.open(folder, systemDisk);
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function entry(fill = 1): StoredKeys {
  const dek = (version: number) => ({
    version,
    wrapped: Buffer.alloc(WRAPPED_BYTES, fill + version),
    createdAtUs: 1_700_000_000_000_000n + BigInt(version),
  });
  return {
    kek: { version: 1, wrapped: Buffer.alloc(61, fill), masterKeyId: "master", createdAtUs: 5n },
    deks: [dek(1), dek(4)],
    projectionDek: 4,
  };
}

function path(tenant: TenantId): string {
  return join(folder, `${tenant}.keys`);
}

describe("an entry", () => {
  it("is read as it was written, by a later store too", async () => {
    const signingKey = { wrapped: Buffer.alloc(WRAPPED_BYTES, 9), createdAtUs: 6n };
    await store.write(TENANT, entry());
    await store.write(SYSTEM_TENANT, { ...entry(2), signingKey });
    const later = await KeyStore.open(folder, systemDisk);
    expect(later.read(TENANT)).toEqual(entry());
    expect(later.read(SYSTEM_TENANT)).toEqual({ ...entry(2), signingKey });
    expect(later.read(TenantId(8))).toBeUndefined();
  });

  it("is for its owner alone", async () => {
    await store.write(TENANT, entry());
    expect(statSync(path(TENANT)).mode & 0o777).toBe(0o600);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
  });

  it("is refused in another tenant's place", async () => {
    await store.write(TENANT, entry());
    writeFileSync(path(TenantId(8)), readFileSync(path(TENANT)));
    expect(() => store.read(TenantId(8))).toThrow(
      expect.objectContaining({ code: "keys_damaged", detail: { tenant: TenantId(8) } }),
    );
    expect(store.read(TENANT)).toEqual(entry());
  });

  it("is refused with any bit flipped", () => {
    const bytes = encodeStoredKeys(TENANT, entry());
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(7), (position, bit) => {
        const flipped = Buffer.from(bytes);
        flipped.writeUInt8(flipped.readUInt8(position) ^ (1 << bit), position);
        expect(() => parseStoredKeys(TENANT, flipped)).toThrow(
          expect.objectContaining({ code: expect.stringMatching(/^(keys_damaged|format_too_new)$/) }),
        );
      }),
      { numRuns: 500 },
    );
  });

  it("is refused cut short at every length, zeroed, or extended", () => {
    const bytes = encodeStoredKeys(TENANT, entry());
    const cuts = Array.from(bytes.keys(), (length) => bytes.subarray(0, length));
    for (const bad of [...cuts, Buffer.alloc(bytes.length), Buffer.concat([bytes, Buffer.from("\n")])]) {
      expect(() => parseStoredKeys(TENANT, bad)).toThrow(expect.objectContaining({ code: "keys_damaged" }));
    }
  });

  it("is refused if its body is not an entry, though the checksum is right", () => {
    const whole = JSON.parse(encodeStoredKeys(TENANT, entry()).toString().split("\n")[1] ?? "");
    const bodies = [
      "null",
      "[]",
      "{",
      { ...whole, tenant: 7 },
      { ...whole, kek: null },
      { ...whole, deks: [] },
      { ...whole, deks: [...whole.deks].reverse() },
      { ...whole, deks: [whole.deks[0], null] },
      { ...whole, deks: [{ ...whole.deks[0], wrapped: "AAAA" }], projectionDek: 1 },
      { ...whole, projectionDek: 2 },
      { ...whole, signingKey: {} },
      { ...whole, kek: { ...whole.kek, version: 0 } },
      { ...whole, kek: { ...whole.kek, masterKeyId: "" } },
    ];
    for (const content of bodies) {
      const body = typeof content === "string" ? content : JSON.stringify(content);
      const sum = createHash("sha256").update(body).digest("hex");
      expect(
        () => parseStoredKeys(TENANT, Buffer.from(`kimberlite-keys 1 ${sum}\n${body}`)),
        body.slice(0, 60),
      ).toThrow(expect.objectContaining({ code: "keys_damaged" }));
    }
  });

  it("of a newer format is not touched", async () => {
    writeFileSync(path(TENANT), "kimberlite-keys 3 something else\n\0\0");
    expect(() => store.read(TENANT)).toThrow(
      expect.objectContaining({ code: "format_too_new", detail: { tenant: TENANT } }),
    );
    const change = store.update(TENANT, () => entry());
    await expect(change).rejects.toMatchObject({ code: "format_too_new" });
    expect(readFileSync(path(TENANT), "utf8")).toContain("something else");
  });
});

describe("the store", () => {
  it("lists its tenants in order, and nothing else", async () => {
    for (const tenant of [TenantId(10), TenantId(9), SYSTEM_TENANT, TenantId(2n ** 63n - 1n)]) {
      await store.write(tenant, entry());
    }
    for (const name of ["x.keys", "07.keys", "9223372036854775808.keys", "7.keys.new", "7.keysx"]) {
      writeFileSync(join(folder, name), "");
    }
    expect(store.tenants()).toEqual([0n, 9n, 10n, 2n ** 63n - 1n]);
  });

  it("overwrites what it replaces and what it destroys", async () => {
    await store.write(TENANT, entry(1));
    const replaced = systemDisk.open(path(TENANT), "read");
    await store.write(TENANT, entry(100));
    const destroyed = systemDisk.open(path(TENANT), "read");
    await store.destroy(TENANT);
    for (const file of [replaced, destroyed]) {
      expect(file.size()).toBeGreaterThan(0);
      expect(file.read(0, file.size()).every((byte) => byte === 0)).toBe(true);
      file.close();
    }
    expect(readdirSync(folder)).toEqual([]);
    expect(store.read(TENANT)).toBeUndefined();
    await store.destroy(TENANT);
  });

  it("destroys the unfinished file of a crash when it opens, and keeps the old entry", async () => {
    await store.write(TENANT, entry());
    const unfinished = `${path(TENANT)}.new`;
    writeFileSync(unfinished, encodeStoredKeys(TENANT, entry(100)));
    const witness = systemDisk.open(unfinished, "read");
    const later = await KeyStore.open(folder, systemDisk);
    expect(readdirSync(folder)).toEqual(["7.keys"]);
    expect(witness.read(0, witness.size()).every((byte) => byte === 0)).toBe(true);
    witness.close();
    expect(later.read(TENANT)).toEqual(entry());
  });

  it("overwrites an unfinished file before it writes over it", async () => {
    const unfinished = `${path(TENANT)}.new`;
    writeFileSync(unfinished, encodeStoredKeys(TENANT, entry(100)));
    const witness = systemDisk.open(unfinished, "read");
    await store.write(TENANT, entry());
    expect(witness.read(0, witness.size()).every((byte) => byte === 0)).toBe(true);
    witness.close();
  });

  it("destroys a damaged entry", async () => {
    await store.write(TENANT, entry());
    truncateSync(path(TENANT), 10);
    expect(store.tenants()).toEqual([TENANT]);
    await store.destroy(TENANT);
    expect(readdirSync(folder)).toEqual([]);
  });

  it("loses no change of many at once", async () => {
    await store.write(TENANT, entry());
    const add = (present: StoredKeys | undefined): StoredKeys => {
      if (present === undefined) throw new Error("the entry is gone");
      return { ...present, kek: { ...present.kek, version: present.kek.version + 1 } };
    };
    await Promise.all(Array.from({ length: 20 }, () => store.update(TENANT, add)));
    expect(store.read(TENANT)?.kek.version).toBe(21);
  });

  it("does not bring a destroyed entry back through a change that began before", async () => {
    await store.write(TENANT, entry());
    const change = store.update(TENANT, async (present) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      return present ?? entry();
    });
    const destroyed = store.destroy(TENANT);
    await Promise.all([change, destroyed]);
    expect(readdirSync(folder)).toEqual([]);
  });

  it("writes nothing if the change throws, and goes on", async () => {
    await store.write(TENANT, entry());
    const refused = store.update(TENANT, () => {
      throw kimberliteError("master_key_missing", "no key");
    });
    await expect(refused).rejects.toMatchObject({ code: "master_key_missing", detail: { tenant: TENANT } });
    expect(store.read(TENANT)).toEqual(entry());
    await store.write(TENANT, entry(3));
    expect(store.read(TENANT)).toEqual(entry(3));
  });

  it("names the tenant when the disk refuses", async () => {
    const failing: Disk = {
      ...systemDisk,
      replaceFile: async () => {
        throw kimberliteError("disk_full", "the disk is full", { detail: { errno: "ENOSPC" } });
      },
    };
    const full = await KeyStore.open(folder, failing);
    await expect(full.write(TENANT, entry())).rejects.toMatchObject({
      code: "disk_full",
      detail: { tenant: TENANT, errno: "ENOSPC" },
    });
  });
});
