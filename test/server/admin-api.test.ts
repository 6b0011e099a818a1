/** The admin API over HTTP: each operation does what it says, answers what its schema says, to those who may. */
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ACTIONS } from "../../src/auth/authorize.ts";
import { verifyErasureCertificate } from "../../src/erasure/certificate.ts";
import { openCheckpoint } from "../../src/log/checkpoint.ts";
import { verifyInclusion } from "../../src/log/proofs.ts";
import { parseVerifierKey } from "../../src/log/signed-note.ts";
import { OPERATIONS } from "../../src/server/operations.ts";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { type Api, apiOf } from "./api.ts";
import { type Served, startServed } from "./served.ts";

let served: Served;
let operator: Api;
let admin: Api;
const places: Record<string, string> = {};

beforeAll(async () => {
  const exports = join(await scratch(), "exports");
  places.exports = exports;
  places.backups = join(exports, "..", "backups");
  places.keys = join(exports, "..", "keys");
  served = await startServed({
    settings: {
      port: 0,
      folders: { exports, imports: join(exports, "1") },
      backupPlaces: { nightly: { logs: `file:${places.backups}`, keys: `file:${places.keys}` } },
    },
  });
  operator = apiOf(served, "operator");
  admin = apiOf(served, "1:admin");
  await operator("POST", "/v1/tenants", { id: "1", name: "Hospital A" });
  await operator("POST", "/v1/tenants", { id: "2", name: "Hospital B" });
  const id = TenantId(1);
  await served.db.execute(id, "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT)");
  await served.db.insert(id, "patients", { id: 1, name: "Alice" });
});

afterAll(async () => served[Symbol.asyncDispose]());

const folders: string[] = [];
async function scratch(): Promise<string> {
  const { mkdtempSync } = await import("node:fs");
  const { tmpdir } = await import("node:os");
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-places-"));
  folders.push(folder);
  return folder;
}
afterAll(async () => {
  const { rmSync } = await import("node:fs");
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

describe("tenants", () => {
  it("are made once, listed in pages, and described", async () => {
    const made = await operator("POST", "/v1/tenants", {
      id: "9007199254740993",
      name: "Past what a number holds",
      region: "eu-central",
      retentionMs: 86_400_000,
      quota: { maxOpsPerSec: 5 },
    });
    expect(made).toMatchObject({ status: 201, body: { id: "9007199254740993", region: "eu-central" } });
    const again = await operator("POST", "/v1/tenants", { id: "1", name: "Again" });
    expect(again.body.code).toBe("tenant_exists");

    const first = await operator("GET", "/v1/tenants?limit=2");
    expect((first.body.items as { id: string }[]).map(({ id }) => id)).toEqual(["1", "2"]);
    const link = first.headers.get("link") ?? "";
    const next = /^<(.*)>; rel="next"$/.exec(link)?.[1] ?? "";
    const second = await operator("GET", next);
    expect((second.body.items as { id: string }[]).map(({ id }) => id)).toEqual(["9007199254740993"]);
    expect(second.headers.get("link")).toBeNull();

    const detail = await apiOf(served, "1:reader")("GET", "/v1/tenants/1");
    expect(detail.body).toMatchObject({ id: "1", name: "Hospital A", firstOffset: "0" });
  });

  it("are suspended and resumed by the operator alone", async () => {
    expect((await admin("POST", "/v1/tenants/1/suspend", {})).body.code).toBe("not_authorized");
    await operator("POST", "/v1/tenants/2/suspend", { reason: "unpaid" });
    await expect(served.db.query(TenantId(2), "SELECT 1")).rejects.toMatchObject({
      code: "tenant_suspended",
    });
    expect((await operator("POST", "/v1/tenants/2/resume")).body.state).toBe("active");
    await served.db.query(TenantId(2), "SELECT 1");
  });

  it("get quotas and retention, and neither takes a field that is unknown", async () => {
    const quota = await operator("PUT", "/v1/tenants/2/quota", { quota: { maxOpsPerSec: 1_000 } });
    expect(quota.body.quota).toEqual({ maxOpsPerSec: 1_000 });
    const unknown = await operator("PUT", "/v1/tenants/2/quota", { quota: { maxOps: 1 } });
    expect(unknown.body).toMatchObject({
      code: "invalid_argument",
      detail: "body.quota.maxOps is not known here",
    });
    const kept = await operator("PUT", "/v1/tenants/2/retention", {
      retentionMs: 60_000,
      mode: "governance",
    });
    expect(kept.body).toMatchObject({ retentionMs: 60_000 });
    expect((await operator("PUT", "/v1/tenants/2/retention", { retentionMs: 1 })).status).toBe(400);
    await operator("PUT", "/v1/tenants/2/retention", { retentionMs: 0, reason: "end of the test" });
  });
});

describe("holds and erasure", () => {
  it("a hold forbids the erasure, and its release tells of it; the certificate verifies", async () => {
    await operator("POST", "/v1/tenants", { id: "3", name: "Clinic" });
    await operator("POST", "/v1/tenants/3/holds", { name: "case 7", reason: "litigation" });
    expect((await operator("GET", "/v1/tenants/3/holds")).body.items).toHaveLength(1);
    const held = await apiOf(served, "3:admin")("POST", "/v1/tenants/3/erasure", { reason: "contract over" });
    expect(held.body.code).toBe("legal_hold");
    expect((await operator("GET", "/v1/tenants/3/erasure/refused")).body.items).toHaveLength(1);
    const release = await operator("POST", "/v1/tenants/3/holds/release", {
      name: "case 7",
      reason: "closed",
    });
    expect(release.body.refusedErasures).toHaveLength(1);

    const erased = await operator("POST", "/v1/tenants/3/erasure", { reason: "contract over" });
    const { verifierKey } = (await operator("GET", "/v1/verifier-key")).body as { verifierKey: string };
    const facts = verifyErasureCertificate(String(erased.body.note), parseVerifierKey(verifierKey));
    expect(facts).toMatchObject({ tenant: "3", actor: "operator", reason: "contract over" });
    expect((await operator("GET", "/v1/tenants/3/erasure")).body).toEqual(erased.body);
    expect((await operator("GET", "/v1/tenants/3")).body.code).toBe("tenant_erased");
  });
});

describe("keys and proofs", () => {
  it("keys rotate, and are described without a key", async () => {
    const before = (await admin("GET", "/v1/tenants/1/keys")).body as { kek: { version: number } };
    const dek = await admin("POST", "/v1/tenants/1/keys/rotations", { key: "dek", reason: "quarterly" });
    expect(dek.body.deks).toHaveLength(2);
    const kek = await admin("POST", "/v1/tenants/1/keys/rotations", { key: "kek" });
    expect(kek.body).toMatchObject({ kek: { version: before.kek.version + 1 } });
    const anew = await admin("POST", "/v1/tenants/1/keys/reencryption", {});
    expect(anew.body).toMatchObject({ destroyed: [] });
  });

  it("a checkpoint, a proof in it, and a verification against it agree", async () => {
    const reader = apiOf(served, "1:reader");
    const { note, verifierKey } = (await reader("GET", "/v1/tenants/1/checkpoint")).body as Record<
      string,
      string
    >;
    const checkpoint = openCheckpoint(note ?? "", parseVerifierKey(verifierKey ?? ""));
    const proof = (await reader("GET", "/v1/tenants/1/proofs/inclusion?offset=0")).body as Record<
      string,
      string
    >;
    const path = (proof.path as unknown as string[]).map((hash) => Buffer.from(hash, "base64"));
    expect(BigInt(proof.size ?? 0)).toBe(checkpoint.size);
    expect(() =>
      verifyInclusion({
        offset: 0n,
        size: checkpoint.size,
        leafHash: Buffer.from(proof.leafHash ?? "", "base64"),
        path,
        root: checkpoint.root,
      }),
    ).not.toThrow();
    const range = await reader("GET", "/v1/tenants/1/proofs/consistency?from=1&to=2");
    expect(range.body).toMatchObject({ fromSize: "1", toSize: "2" });
    const verified = await reader("POST", "/v1/tenants/1/verify", { checkpoint: note });
    expect(verified.body).toMatchObject({ ok: true, sealsOpened: true });
    const far = await reader("GET", "/v1/tenants/1/proofs/inclusion?offset=999999");
    expect(far.body.code).toBe("offset_out_of_range");
    await operator("POST", "/v1/tenants/1/rebuild");
    expect(await served.db.query(TenantId(1), "SELECT name FROM patients")).toEqual([{ name: "Alice" }]);
  });

  it("a tenant names no master key in a file of the server's", async () => {
    const refused = await admin("PUT", "/v1/tenants/1/master-key", { uri: "file:/etc/passwd" });
    expect(refused.body.code).toBe("not_authorized");
    const elsewhere = await operator("POST", "/v1/node/master-key/rotations", { to: "other" });
    expect(elsewhere.body.code).toBe("not_authorized");
  });
});

describe("portability", () => {
  it("an export goes to the tenant's own folder, and comes in as another tenant", async () => {
    mkdirSync(places.exports ?? "", { recursive: true });
    const out = await admin("POST", "/v1/tenants/1/exports", { name: "first", reason: "leaving" });
    expect(out).toMatchObject({ status: 201, body: { tenant: "1", name: "first" } });
    expect(readdirSync(join(places.exports ?? "", "1"))).toEqual(["first"]);
    const key = (await operator("GET", "/v1/verifier-key")).body.verifierKey;
    const back = await operator("POST", "/v1/imports", { name: "first", key, tenant: "1", as: "11" });
    expect(back.body).toMatchObject({ id: "11", name: "Hospital A" });
    expect(await served.db.query(TenantId(11), "SELECT name FROM patients")).toEqual([{ name: "Alice" }]);
  });

  it("no name leads out of its folder", async () => {
    for (const name of [
      "..",
      "../2",
      "a/b",
      "a\\b",
      "",
      ".",
      "/etc",
      "a\0b",
      "..%2f",
      "%2e%2e",
      "ä",
      "a".repeat(65),
    ]) {
      const refused = await admin("POST", "/v1/tenants/1/exports", { name });
      expect(refused.body.code, name).toBe("invalid_argument");
    }
    expect(readdirSync(join(places.exports ?? "", "1"))).toEqual(["first"]);
  });

  it("a backup goes to a place that the settings name, and to no other", async () => {
    const done = await operator("POST", "/v1/node/backups", { place: "nightly" });
    expect(done.status).toBe(201);
    expect((await operator("GET", "/v1/node/backups?place=nightly")).body.items).toHaveLength(1);
    expect((await operator("POST", "/v1/node/backups", { place: "elsewhere" })).body.code).toBe(
      "not_authorized",
    );
  });
});

describe("what is answered twice", () => {
  it("is done once for one key, and refused for another request under it", async () => {
    const key = { "idempotency-key": '"make-21"' };
    const [first, second] = await Promise.all([
      operator("POST", "/v1/tenants", { id: "21", name: "Once" }, key),
      operator("POST", "/v1/tenants", { id: "21", name: "Once" }, key),
    ]);
    expect(first.status).toBe(201);
    expect(second.body).toEqual(first.body);
    const other = await operator("POST", "/v1/tenants", { id: "22", name: "Other" }, key);
    expect(other.body.code).toBe("idempotency_conflict");
    const unkeyed = await operator("POST", "/v1/tenants", { id: "21", name: "Once" });
    expect(unkeyed.body.code).toBe("tenant_exists");
    const strange = await operator("POST", "/v1/tenants/21/suspend", {}, { "idempotency-key": "a b" });
    expect(strange.body.code).toBe("invalid_argument");
  });

  it("one credential's key is not another's", async () => {
    const key = { "idempotency-key": "rotate-1" };
    const mine = await admin("POST", "/v1/tenants/1/keys/rotations", { key: "kek" }, key);
    const operators = await operator("POST", "/v1/tenants/1/keys/rotations", { key: "kek" }, key);
    expect(operators.body).not.toEqual(mine.body);
  });
});

describe("who may", () => {
  it("every operation names an action of the table, or says that it needs none", () => {
    for (const { id, action } of OPERATIONS) {
      expect(["authenticated", "public", ...ACTIONS], id).toContain(action);
    }
  });

  it("nobody without a credential", async () => {
    for (const { method, path } of OPERATIONS) {
      const answer = await apiOf(served)(method, path.replace("{tenant}", "1"));
      expect(answer.status, `${method} ${path}`).toBe(401);
    }
  });

  it("another tenant's admin gets the same as for a tenant that is not there", async () => {
    const stranger = apiOf(served, "2:admin");
    for (const { method, path } of OPERATIONS.filter((one) => one.path.includes("{tenant}"))) {
      const theirs = await stranger(method, path.replace("{tenant}", "1"), method === "GET" ? undefined : {});
      const absent = await stranger(
        method,
        path.replace("{tenant}", "404"),
        method === "GET" ? undefined : {},
      );
      expect(theirs.body.code, path).toBe("not_authorized");
      expect({ ...absent.body, instance: "" }).toEqual({ ...theirs.body, instance: "" });
    }
  });

  it("the operator reads no tenant's data and no tenant's audit stream", async () => {
    for (const path of ["audit", "audit/ocsf", "audit/tail"]) {
      expect((await operator("GET", `/v1/tenants/1/${path}`)).body.code, path).toBe("not_authorized");
    }
    const out = await operator("POST", "/v1/tenants/1/exports", { name: "stolen" });
    expect(out.body.code).toBe("not_authorized");
  });

  it("a method that a path does not have is refused with those that it has", async () => {
    const refused = await operator("DELETE", "/v1/tenants/1/quota");
    expect(refused.body.code).toBe("method_not_allowed");
    expect(refused.headers.get("allow")).toBe("PUT");
  });
});
