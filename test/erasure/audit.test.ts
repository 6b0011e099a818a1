/**
 * Every public operation that changes anything is in an audit stream, with who and why, before it takes effect; and so is
 * every refusal of one. The table below has every method of `Kimberlite`: a new one is added to it, or this fails.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { systemDisk } from "../../src/host/disk.ts";
import {
  type AuditEntry,
  createMasterKeyFile,
  Duration,
  Kimberlite,
  masterKeyFile,
  TenantId,
} from "../../src/index.ts";
import { faultyDisk, refusing } from "../../src/testing/faulty-disk.ts";
import { Scratch } from "../isolation/scratch.ts";

const A = TenantId(1);
const B = TenantId(2);
const NOBODY = TenantId(99);
const BY = { actor: "ada", reason: "because", correlationId: "request 7" };

interface Place {
  readonly db: Kimberlite;
  readonly scratch: Scratch;
  readonly key: string;
  readonly backups: string;
}

interface Audited {
  readonly action: string;
  /** Where the record of a success is: the system's stream unless it is the tenant's own. */
  readonly stream?: "tenant";
  readonly does: (place: Place) => Promise<unknown>;
  readonly isRefused: (place: Place) => Promise<unknown>;
}

/** In an order in which each can succeed. */
const AUDITED: Readonly<Record<string, Audited>> = {
  createTenant: {
    action: "tenant.create",
    does: ({ db }) => db.createTenant({ id: B, name: "B" }, BY),
    isRefused: ({ db }) => db.createTenant({ id: A, name: "again" }, BY),
  },
  suspendTenant: {
    action: "tenant.suspend",
    does: ({ db }) => db.suspendTenant(A, BY),
    isRefused: ({ db }) => db.suspendTenant(NOBODY, BY),
  },
  resumeTenant: {
    action: "tenant.resume",
    does: ({ db }) => db.resumeTenant(A, BY),
    isRefused: ({ db }) => db.resumeTenant(NOBODY, BY),
  },
  setQuota: {
    action: "quota.set",
    does: ({ db }) => db.setQuota(A, { maxOpsPerSec: 1_000 }, BY),
    isRefused: ({ db }) => db.setQuota(A, { maxOpsPerSec: -1 }, BY),
  },
  placeLegalHold: {
    action: "hold.place",
    does: ({ db }) => db.placeLegalHold(A, { ...BY, name: "case" }),
    isRefused: ({ db }) => db.placeLegalHold(A, { ...BY, name: "case", reason: "another" }),
  },
  releaseLegalHold: {
    action: "hold.release",
    does: ({ db }) => db.releaseLegalHold(A, { ...BY, name: "case" }),
    isRefused: ({ db }) => db.releaseLegalHold(A, { ...BY, name: "none" }),
  },
  exportTenant: {
    action: "tenant.export",
    does: ({ db, scratch }) => db.exportTenant(A, join(scratch.folder, "export"), BY),
    isRefused: ({ db, scratch }) => db.exportTenant(A, scratch.folder, BY),
  },
  importTenant: {
    action: "tenant.import",
    does: ({ db, scratch, key }) =>
      db.importTenant(join(scratch.folder, "export"), { ...BY, key, as: TenantId(5) }),
    isRefused: ({ db, scratch, key }) =>
      db.importTenant(join(scratch.folder, "export"), { ...BY, key, as: A }),
  },
  backup: {
    action: "tenant.backup",
    does: ({ db, backups }) => db.backup({ ...BY, to: backups }),
    isRefused: ({ db, scratch }) => db.backup({ ...BY, to: `file:${scratch.folder}` }),
  },
  restoreTenant: {
    action: "tenant.restore",
    does: ({ db, backups }) => db.restoreTenant({ ...BY, from: backups, tenant: A, as: TenantId(6) }),
    isRefused: ({ db, backups }) => db.restoreTenant({ ...BY, from: backups, tenant: A }),
  },
  rotateDek: {
    action: "key.rotate-dek",
    stream: "tenant",
    does: ({ db }) => db.rotateDek(A, BY),
    isRefused: ({ db }) => db.rotateDek(NOBODY, BY),
  },
  rotateKek: {
    action: "key.rotate-kek",
    stream: "tenant",
    does: ({ db }) => db.rotateKek(A, BY),
    isRefused: ({ db }) => db.rotateKek(NOBODY, BY),
  },
  reencryptTenant: {
    action: "key.reencrypt",
    does: ({ db }) => db.reencryptTenant(A, BY),
    isRefused: ({ db }) => db.reencryptTenant(NOBODY, BY),
  },
  setTenantMasterKey: {
    action: "key.move",
    does: ({ db, scratch }) => db.setTenantMasterKey(A, keyUri(scratch, "own.key"), BY),
    isRefused: ({ db, scratch }) => db.setTenantMasterKey(A, `file:${join(scratch.folder, "no.key")}`, BY),
  },
  rotateMasterKey: {
    action: "key.rotate-master",
    does: ({ db, scratch }) => db.rotateMasterKey(masterKeyFile(keyUri(scratch, "next.key").slice(5)), BY),
    isRefused: ({ db, scratch }) => db.rotateMasterKey(masterKeyFile(join(scratch.folder, "no.key")), BY),
  },
  trimTenant: {
    action: "tenant.trim",
    does: ({ db }) => db.trimTenant(A, BY),
    isRefused: ({ db }) => db.trimTenant(NOBODY, BY),
  },
  declareSubject: {
    action: "subject.declare",
    stream: "tenant",
    does: ({ db }) => db.declareSubject(A, { table: "people", column: "name" }, BY),
    isRefused: ({ db }) => db.declareSubject(A, { table: "nobody", column: "name" }, BY),
  },
  eraseSubject: {
    action: "subject.erase",
    does: async ({ db }) => {
      await db.insert(A, "people", { name: "Bob" });
      await db.eraseSubject(A, "Bob", BY);
    },
    isRefused: ({ db }) => db.eraseSubject(A, "Eve", BY),
  },
  setRetention: {
    action: "retention.set",
    does: ({ db }) => db.setRetention(A, Duration.days(3_650), { ...BY, mode: "compliance" }),
    isRefused: ({ db }) => db.setRetention(A, Duration.days(1), BY),
  },
  eraseTenant: {
    action: "tenant.erase",
    does: ({ db }) => db.eraseTenant(B, BY),
    isRefused: ({ db }) => db.eraseTenant(A, BY),
  },
};

/** Reads, what tenants do to their own data (their log is its record), and the object's own life. */
const NOT_AUDITED = [
  "constructor",
  ...[
    "listTenants",
    "describeTenant",
    "refusedErasures",
    "erasureCertificate",
    "backups",
    "audit",
    "nodeAudit",
  ],
  ...[
    "execute",
    "query",
    "executeArrays",
    "insert",
    "transaction",
    "createStream",
    "streams",
    "append",
    "read",
  ],
  ...["subscribe", "checkpoint", "verifierKey", "verifyTenant", "rebuildProjection", "inclusionProof"],
  ...["consistencyProof", "keys", "stats", "close", "authenticator"],
  ...["subjects", "subjectCertificates"],
];

/** What their own tests say of their records. */
const RECORDED_ELSEWHERE = [
  ...["createApiKey", "listApiKeys", "revokeApiKey", "enrolTenant", "createOperatorKey", "listOperatorKeys"],
  ...["revokeOperatorKey", "registerIssuer", "listIssuers", "removeIssuer", "grantAccess", "revokeAccess"],
  ...["listGrants", "queryShared", "readShared", "sharedArrays", "iterateShared", "session"],
  ...["sharedSession", "describeGrant"],
];

function keyUri(scratch: Scratch, name: string): string {
  const path = join(scratch.folder, name);
  if (!fs.existsSync(path)) createMasterKeyFile(path);
  return `file:${path}`;
}

const EXPORTED = "tenant.export done";

describe("the audit streams", () => {
  it("are told of every public operation that there is", () => {
    const known = [...Object.keys(AUDITED), ...NOT_AUDITED, ...RECORDED_ELSEWHERE];
    const methods = Object.getOwnPropertyNames(Kimberlite.prototype);
    expect(
      methods.filter((name) => !known.includes(name)),
      "methods that the table above does not have",
    ).toEqual([]);
    expect(known.filter((name) => !methods.includes(name))).toEqual([]);
  });

  it("have who, why and what became of it, of what was done and of what was refused", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    const place = { db, scratch, key: db.verifierKey(), backups: `file:${join(scratch.folder, "backups")}` };
    await db.createTenant({ id: A, name: "A" });
    await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    await db.execute(A, "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)");
    const seen = async (stream: "tenant" | undefined): Promise<AuditEntry[]> =>
      Array.fromAsync(stream === "tenant" ? db.audit(A) : db.nodeAudit());
    for (const [method, { action, stream, does, isRefused }] of Object.entries(AUDITED)) {
      const before = (await seen(stream)).length;
      await does(place);
      const done = (await seen(stream)).slice(before).filter((event) => event.action === action);
      expect([method, done.map(({ outcome }) => outcome)]).toEqual([
        method,
        expect.toSatisfy((outcomes: string[]) => ["began", "done"].includes(outcomes[0] ?? "")),
      ]);
      const refusedBefore = (await seen(undefined)).length;
      const code = await isRefused(place).then(
        () => "it was not refused",
        (error: { code: string }) => error.code,
      );
      const after = (await seen(undefined)).slice(refusedBefore).filter((event) => event.action === action);
      const last = after.at(-1);
      expect([method, after.length, last?.code]).toEqual([method, expect.any(Number), code]);
      expect(["refused", "failed"]).toContain(last?.outcome);
      expect(after.filter(({ outcome }) => outcome === "refused" || outcome === "failed")).toHaveLength(1);
      // What finishes work that a crash may have interrupted knows of no request.
      for (const event of [done[0], last]) expect(event?.correlationId).toBe(BY.correlationId);
      for (const event of [...done, ...after]) {
        expect([method, event.actor]).toEqual([method, BY.actor]);
        expect(event.reason).toBe(method === "placeLegalHold" && event === last ? "another" : BY.reason);
      }
    }
    const exported = (await seen(undefined)).filter(
      ({ action, outcome }) => `${action} ${outcome}` === EXPORTED,
    );
    expect(exported).toEqual([expect.objectContaining({ tenant: A, detail: { size: expect.any(Number) } })]);
  });

  it("say that it begins before anything is different", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await db.createTenant({ id: A, name: "A" });
    await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    // Where not even the record can be written, nothing is done.
    const refuses = { code: "disk_full" };
    await db.close();
    let blocked = false;
    const disk = faultyDisk(systemDisk, ({ operation, path }) =>
      blocked && operation === "write" && path.endsWith(".jnl") ? refusing("ENOSPC") : undefined,
    );
    const full = await scratch.open({ disk });
    blocked = true;
    try {
      await expect(full.rotateKek(A, BY)).rejects.toMatchObject(refuses);
      await expect(full.rotateDek(A, BY)).rejects.toMatchObject(refuses);
      await expect(full.eraseTenant(A, BY)).rejects.toMatchObject(refuses);
      await expect(full.suspendTenant(A, BY)).rejects.toMatchObject(refuses);
      await expect(full.exportTenant(A, join(scratch.folder, "out"), BY)).rejects.toMatchObject(refuses);
    } finally {
      blocked = false;
    }
    expect(fs.existsSync(join(scratch.folder, "out", "export-in-progress.json"))).toBe(false);
    expect(await full.keys(A)).toMatchObject({ kek: { version: 1 }, deks: [{ version: 1 }] });
    expect((await full.describeTenant(A)).state).toBe("active");
  });
});
