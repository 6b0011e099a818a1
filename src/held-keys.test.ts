/** A tenant that holds its own master key freezes when access to it is withdrawn, thaws when it is back, loses nothing. */
import * as fs from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Scratch } from "../test/isolation/scratch.ts";
import { type ErrorCode, kimberliteError } from "./errors.ts";
import type { MasterKeyProvider } from "./keys/master-key.ts";
import { createMasterKeyFile } from "./keys/master-key-file.ts";
import { openMasterKey } from "./keys/master-key-uri.ts";
import type { Kimberlite } from "./kimberlite.ts";
import { Duration } from "./tenant/duration.ts";
import { TenantId } from "./tenant/tenant-id.ts";

const A = TenantId(1);
const B = TenantId(2);

/** A key file that stands for a tenant's own KMS: what it answers is switched by the test. */
class Switched {
  refusal: ErrorCode | undefined;
  asked = 0;

  readonly open = async (uri: string): Promise<MasterKeyProvider> => {
    const inner = await openMasterKey(uri);
    const answer = (): void => {
      this.asked += 1;
      if (this.refusal !== undefined) throw kimberliteError(this.refusal, "switched off");
    };
    return {
      uri: `own:${uri}`,
      get keyId() {
        return inner.keyId;
      },
      wrap: async (key, context) => {
        answer();
        return inner.wrap(key, context);
      },
      unwrap: async (wrapped, context) => {
        answer();
        return inner.unwrap(wrapped, context);
      },
      close: () => inner.close(),
    };
  };
}

function ownKey(scratch: Scratch, name = "own.key"): string {
  const path = join(scratch.folder, name);
  createMasterKeyFile(path);
  return `file:${path}`;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let waited = 0; !(await condition()); waited += 10) {
    if (waited > 10_000) throw new Error("it did not come to pass");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "served",
    (error: { code: string }) => error.code,
  );

const accesses = async (db: Kimberlite): Promise<unknown[]> =>
  (await db.listTenants()).map(({ keyAccess }) => keyAccess);

describe("a tenant's own master key", () => {
  it("is told to be accessible as its holder answered last, without being asked for it", async () => {
    await using scratch = new Scratch();
    const kms = new Switched();
    const options = { openMasterKey: kms.open };
    const db = await scratch.open(options);
    await db.createTenant({ id: A, name: "A", masterKey: ownKey(scratch) });
    await db.createTenant({ id: B, name: "B" });
    await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    expect(await accesses(db)).toEqual(["available", undefined]);
    await db.close();
    kms.refusal = "master_key_denied";
    const again = await scratch.open(options);
    const asked = kms.asked;
    expect(await accesses(again)).toEqual(["unknown", undefined]);
    expect(kms.asked).toBe(asked);
    // A tenant that is not open has its answer from whoever asks for it.
    expect(await codeOf(again.query(A, "SELECT * FROM t"))).toBe("master_key_denied");
    expect(await accesses(again)).toEqual(["withdrawn", undefined]);
    // That nobody can be reached is no answer.
    kms.refusal = "master_key_unreachable";
    expect(await codeOf(again.query(A, "SELECT * FROM t"))).toBe("master_key_unreachable");
    expect(await accesses(again)).toEqual(["withdrawn", undefined]);
    kms.refusal = undefined;
    expect(await codeOf(again.query(A, "SELECT * FROM t"))).toBe("served");
    expect(await accesses(again)).toEqual(["available", undefined]);
    await again.eraseTenant(A, { reason: "over" });
    expect(await accesses(again)).toEqual([undefined, undefined]);
  });

  it("wraps its KEK, in the place of the node's, also after a restart", async () => {
    await using scratch = new Scratch();
    const masterKey = ownKey(scratch);
    await scratch.with(async (db) => {
      await db.createTenant({ id: A, name: "A", masterKey });
      await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
      const own = (await openMasterKey(masterKey)).keyId;
      expect((await db.keys(A)).masterKeyId).toBe(own);
    });
    await scratch.with(async (db) => {
      expect(await db.query(A, "SELECT * FROM t")).toEqual([]);
      expect((await db.describeTenant(A)).masterKey).toBe(masterKey);
    });
    fs.rmSync(masterKey.slice("file:".length));
    const db = await scratch.open();
    expect(await codeOf(db.query(A, "SELECT * FROM t"))).toBe("master_key_missing");
    await db.createTenant({ id: B, name: "B" });
    expect(await codeOf(db.execute(B, "CREATE TABLE t (id INTEGER PRIMARY KEY)"))).toBe("served");
  });

  it.each<ErrorCode>(["master_key_denied", "master_key_disabled", "master_key_pending_deletion"])(
    "freezes the tenant while it answers %s, and thaws it afterwards with nothing lost",
    async (refusal) => {
      await using scratch = new Scratch();
      const kms = new Switched();
      const db = await scratch.open({ openMasterKey: kms.open, keyCacheTime: Duration.milliseconds(30) });
      await db.createTenant({ id: A, name: "A", masterKey: ownKey(scratch) });
      await db.createTenant({ id: B, name: "B" });
      for (const id of [A, B]) {
        await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
        await db.insert(id, "t", { id: 1 });
      }
      kms.refusal = refusal;
      await until(async () => (await codeOf(db.insert(A, "t", {}))) === refusal);
      const kept = (await db.query(B, "SELECT count(*) AS n FROM t"))[0];
      expect(kept).toEqual({ n: 1 });
      expect(await codeOf(db.query(A, "SELECT * FROM t"))).toBe(refusal);
      expect(await codeOf(db.checkpoint(A))).toBe(refusal);
      expect(await accesses(db)).toEqual(["withdrawn", undefined]);
      expect(await codeOf(db.describeTenant(A))).toBe(refusal);
      kms.refusal = undefined;
      await until(async () => (await codeOf(db.query(A, "SELECT * FROM t"))) === "served");
      expect(await accesses(db)).toEqual(["available", undefined]);
      expect((await db.describeTenant(A)).keyAccess).toBe("available");
      expect((await db.verifyTenant(A)).ok).toBe(true);
      expect((await db.query(A, "SELECT count(*) AS n FROM t"))[0]?.["n"]).toBeGreaterThanOrEqual(1);
      const node = await Array.fromAsync(db.nodeAudit());
      expect(
        node.map(({ action, code }) => [action, code]).filter(([action]) => action?.startsWith("key.")),
      ).toEqual([
        ["key.freeze", refusal],
        ["key.thaw", undefined],
      ]);
    },
  );

  it("that cannot be reached stops no tenant that is open, and makes opening one a retryable error", async () => {
    await using scratch = new Scratch();
    const kms = new Switched();
    const options = { openMasterKey: kms.open, keyCacheTime: Duration.milliseconds(20), maxOpenTenants: 1 };
    const db = await scratch.open(options);
    await db.createTenant({ id: A, name: "A", masterKey: ownKey(scratch) });
    await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    kms.refusal = "master_key_unreachable";
    const before = kms.asked;
    await until(async () => kms.asked > before + 2);
    expect(await codeOf(db.insert(A, "t", { id: 1 }))).toBe("served");
    await db.close();
    const again = await scratch.open(options);
    await expect(again.query(A, "SELECT * FROM t")).rejects.toMatchObject({
      code: "master_key_unreachable",
      action: "retry",
    });
    kms.refusal = undefined;
    expect(await again.query(A, "SELECT * FROM t")).toEqual([{ id: 1 }]);
  });

  it("is asked once in the time that a KEK is kept, however often the tenant is opened", async () => {
    await using scratch = new Scratch();
    const kms = new Switched();
    const db = await scratch.open({ openMasterKey: kms.open, maxOpenTenants: 1 });
    const masterKey = ownKey(scratch);
    for (const id of [A, B]) {
      await db.createTenant({ id, name: "T", masterKey });
      await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    }
    const before = kms.asked;
    for (let turn = 0; turn < 5; turn += 1) for (const id of [A, B]) await db.query(id, "SELECT * FROM t");
    expect(kms.asked - before).toBeLessThanOrEqual(2);
  });

  it("is taken, changed and given back while the tenant is written, and leaves the node's rotation alone", async () => {
    await using scratch = new Scratch();
    const [first, second] = [ownKey(scratch, "1.key"), ownKey(scratch, "2.key")];
    const db = await scratch.open();
    for (const id of [A, B]) await db.createTenant({ id, name: "T" });
    await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    const idOf = async (uri: string): Promise<string> => (await openMasterKey(uri)).keyId;
    const nodeKey = (await db.keys(A)).masterKeyId;
    for (const [uri, wanted] of [
      [first, await idOf(first)],
      [second, await idOf(second)],
      [null, nodeKey],
      [second, await idOf(second)],
    ] as const) {
      const [entry] = await Promise.all([
        db.setTenantMasterKey(A, uri, { actor: "a" }),
        db.insert(A, "t", {}),
      ]);
      expect(entry.masterKey ?? null).toBe(uri);
      expect((await db.keys(A)).masterKeyId).toBe(wanted);
    }
    const next = ownKey(scratch, "node2.key");
    await db.rotateMasterKey(await openMasterKey(next));
    expect((await db.keys(A)).masterKeyId).toBe(await idOf(second));
    expect((await db.keys(B)).masterKeyId).toBe(await idOf(next));
    expect((await Array.fromAsync(db.audit(A, { action: "key.move" }))).length).toBe(4);
    await db.close();
    const again = await scratch.open({ masterKey: await openMasterKey(next) });
    expect(await again.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 4 }]);
  });

  it("that does not exist makes no tenant, and moves none", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    const absent = `file:${join(scratch.folder, "absent.key")}`;
    expect(await codeOf(db.createTenant({ id: A, name: "A", masterKey: absent }))).toBe("master_key_missing");
    await db.createTenant({ id: A, name: "A" });
    await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    expect(await codeOf(db.setTenantMasterKey(A, absent))).toBe("master_key_missing");
    expect(await codeOf(db.setTenantMasterKey(A, "nonsense"))).toBe("invalid_argument");
    expect(await db.query(A, "SELECT * FROM t")).toEqual([]);
    await db.close();
    expect(await (await scratch.open()).query(A, "SELECT * FROM t")).toEqual([]);
  });
});
