import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createMasterKeyFile, Kimberlite, type MasterKeyProvider, masterKeyFile, TenantId } from "./index.ts";

describe("rotation of the master key", () => {
  let folder: string;
  const ids = Array.from({ length: 8 }, (_, index) => TenantId(index + 1));
  const key = (name: string): MasterKeyProvider => masterKeyFile(join(folder, name));
  const open = (name: string, others: string[] = []): Promise<Kimberlite> =>
    Kimberlite.open({
      dataDir: join(folder, "data"),
      masterKey: key(name),
      otherMasterKeys: others.map(key),
      maxOpenTenants: 3,
    });

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "kimberlite-rotation-"));
    createMasterKeyFile(join(folder, "old"));
    createMasterKeyFile(join(folder, "new"));
    await using db = await open("old");
    for (const id of ids) {
      await db.createTenant({ id, name: "t" });
      await db.execute(id, "CREATE TABLE t (v)");
    }
  });

  afterEach(() => rmSync(folder, { recursive: true }));

  it("moves every tenant while they are read and written, and the old key opens nothing afterwards", async () => {
    const db = await open("old");
    let rotating = true;
    const rotation = db.rotateMasterKey(key("new")).finally(() => {
      rotating = false;
    });
    for (let index = 0; rotating; index += 1)
      await db.insert(ids[index % ids.length] as TenantId, "t", { v: index });
    await rotation;
    await db.createTenant({ id: TenantId(99), name: "later" });
    await db.close();
    await expect(open("old")).rejects.toMatchObject({ code: "master_key_wrong" });
    await using again = await open("new");
    for (const id of [...ids, TenantId(99)])
      expect((await again.keys(id)).masterKeyId).toBe(key("new").keyId);
  });

  it("goes on after it was interrupted in the middle, whichever key comes first", async () => {
    const failing = failsAfter(key("new"), 4);
    const db = await open("old");
    await expect(db.rotateMasterKey(failing)).rejects.toThrow("unreachable");
    for (const id of ids) await db.insert(id, "t", { v: "in between" });
    await db.close();
    await using again = await open("old", ["new"]);
    for (const id of ids) expect(await again.query(id, "SELECT v FROM t")).toEqual([{ v: "in between" }]);
    await again.rotateMasterKey(key("new"));
    await again.close();
    await using moved = await open("new");
    for (const id of ids) expect((await moved.keys(id)).masterKeyId).toBe(key("new").keyId);
  });

  it("is not stopped by a tenant whose keys are damaged: it names that one, and all others are moved", async () => {
    const db = await open("old");
    await db.close();
    const path = join(folder, "data", "keys", "3.keys");
    const whole = readFileSync(path);
    writeFileSync(path, whole.subarray(0, whole.length - 5));
    await using damaged = await open("old");
    await expect(damaged.rotateMasterKey(key("new"))).rejects.toMatchObject({
      code: "keys_damaged",
      detail: { tenants: "3" },
    });
    await damaged.close();
    await using moved = await open("new");
    for (const id of ids.filter((one) => one !== TenantId(3)))
      expect((await moved.keys(id)).masterKeyId).toBe(key("new").keyId);
    await expect(moved.keys(TenantId(3))).rejects.toMatchObject({ code: "keys_damaged" });
  });
});

/** A provider that stops to answer after some wraps, as one that cannot be reached. */
function failsAfter(provider: MasterKeyProvider, wraps: number): MasterKeyProvider {
  let left = wraps;
  return {
    uri: provider.uri,
    get keyId() {
      return provider.keyId;
    },
    wrap: (secret, context) => {
      left -= 1;
      if (left < 0) return Promise.reject(new Error("unreachable"));
      return provider.wrap(secret, context);
    },
    unwrap: (wrapped, context) => provider.unwrap(wrapped, context),
    close: () => provider.close(),
  };
}
