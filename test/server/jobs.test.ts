/** Work that takes long as a job: begun, looked at, ended; shown to who may ask for it, and to nobody else. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Principal } from "../../src/auth/principal.ts";
import { KimberliteClient } from "../../src/client/index.ts";
import { kimberliteError } from "../../src/errors.ts";
import { systemClock } from "../../src/host/clock.ts";
import { systemRandomness } from "../../src/host/randomness.ts";
import { createMasterKeyFile, masterKeyFile } from "../../src/keys/master-key-file.ts";
import { AdminGate } from "../../src/server/admin-gate.ts";
import { Jobs } from "../../src/server/jobs.ts";
import { OPERATIONS } from "../../src/server/operations.ts";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { apiOf } from "./api.ts";
import { type Served, startServed } from "./served.ts";

const A = TenantId(1);
const ASYNC = { prefer: "respond-async" };
const folder = mkdtempSync(join(tmpdir(), "kimberlite-jobs-"));
let served: Served;
/** Ends the rotation that waits for it. */
let letGo: () => void = () => undefined;

beforeAll(async () => {
  createMasterKeyFile(join(folder, "next.key"));
  served = await startServed({
    settings: { port: 0, folders: { exports: join(folder, "exports") } },
    rotateMasterKey: async (name, by) => {
      if (name !== "next") throw kimberliteError("not_authorized", "no such key");
      await new Promise<void>((resolve) => {
        letGo = resolve;
      });
      const next = masterKeyFile(join(folder, "next.key"));
      await served.db.rotateMasterKey(next, by);
      return next.keyId;
    },
  });
  for (const id of ["1", "2"]) {
    await apiOf(served, "operator")("POST", "/v1/tenants", { id, name: `Hospital ${id}` });
  }
  await served.db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
  for (let id = 0; id < 20; id += 1) await served.db.insert(A, "t", { id });
});
afterAll(async () => {
  await served[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** Asks for work as who does not wait. */
async function begin(token: string, path: string, body: unknown, headers = {}) {
  const response = await fetch(`${served.url}${path}`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      ...ASYNC,
      ...headers,
    },
    body: JSON.stringify(body),
  });
  const job = (await response.json()) as Record<string, unknown>;
  return { status: response.status, headers: response.headers, job, place: response.headers.get("location") };
}

async function ended(token: string, place: string | null): Promise<Record<string, unknown>> {
  let body: Record<string, unknown> = {};
  await expect
    .poll(async () => {
      ({ body } = await apiOf(served, token)("GET", String(place)));
      return body["state"];
    })
    .not.toBe("running");
  return body;
}

it("answers at once where it is, and there in the end what the operation answers", async () => {
  const { status, headers, job, place } = await begin("1:admin", "/v1/tenants/1/keys/reencryption", {});
  expect(status).toBe(202);
  expect(headers.get("preference-applied")).toBe("respond-async");
  expect(job).toMatchObject({ operation: "keys.reencrypt", actor: "admin of 1" });
  expect(place).toBe(`/v1/tenants/1/jobs/${String(job["id"])}`);
  const done = await ended("1:admin", place);
  expect(done).toMatchObject({
    state: "done",
    progress: { unit: "records" },
    answer: { dekVersion: 2, destroyed: [] },
  });
  const { records } = done["answer"] as { records: string };
  expect(done["progress"]).toEqual({ done: Number(records), total: Number(records), unit: "records" });
});

it("one that waits is a job too; one that failed says why, and may be asked for again", async () => {
  const admin = apiOf(served, "1:admin");
  await admin("POST", "/v1/tenants/1/verify", {});
  await admin("POST", "/v1/tenants/1/holds", { name: "case 7", reason: "litigation" });
  const key = { "idempotency-key": "trim-1" };
  const trim = () => begin("1:admin", "/v1/tenants/1/trim", { reason: "old" }, key);
  const { place } = await trim();
  const failed = await ended("1:admin", place);
  expect(failed).toMatchObject({ state: "failed", problem: { code: "legal_hold", status: 409 } });
  expect(failed["answer"]).toBeUndefined();
  await admin("POST", "/v1/tenants/1/holds/release", { name: "case 7", reason: "closed" });
  const again = await trim();
  expect(again.place).not.toBe(place);
  expect(await ended("1:admin", again.place)).toMatchObject({ state: "done" });
  // Under one key it is one job.
  expect((await trim()).place).toBe(again.place);
  const { items } = (await admin("GET", "/v1/tenants/1/jobs")).body as {
    items: { operation: string; state: string }[];
  };
  expect(items.map(({ operation, state }) => `${operation} ${state}`)).toEqual([
    "keys.reencrypt done",
    "tenants.verify done",
    "tenants.trim failed",
    "tenants.trim done",
  ]);
});

it("is shown to who may ask for it: no export to an operator or a reader, nothing to another tenant", async () => {
  const { place } = await begin("1:admin", "/v1/tenants/1/exports", { name: "mine" });
  expect(await ended("1:admin", place)).toMatchObject({ state: "done", answer: { name: "mine" } });
  const seen = async (token: string): Promise<unknown> => {
    const { body } = await apiOf(served, token)("GET", "/v1/tenants/1/jobs");
    if (body.code !== undefined) return body.code;
    const items = body["items"] as { operation: string }[];
    return [...new Set(items.map(({ operation }) => operation))];
  };
  expect(await seen("1:reader")).toEqual(["tenants.verify"]);
  expect(await seen("operator")).toEqual(["keys.reencrypt", "tenants.verify", "tenants.trim"]);
  expect(await seen("2:admin")).toBe("not_authorized");
  for (const token of ["1:reader", "operator"]) {
    const hidden = await apiOf(served, token)("GET", String(place));
    const absent = await apiOf(served, token)("GET", "/v1/tenants/1/jobs/absent");
    expect(hidden.body.code, token).toBe("job_not_found");
    expect({ ...absent.body, instance: "" }).toEqual({ ...hidden.body, instance: "" });
  }
  expect((await apiOf(served, "2:admin")("GET", String(place))).body.code).toBe("not_authorized");
  // Nor under another place than its own.
  const { pathname } = new URL(String(place), served.url);
  expect((await apiOf(served, "2:admin")("GET", pathname.replace("/1/", "/2/"))).body.code).toBe(
    "job_not_found",
  );
  expect((await apiOf(served, "operator")("GET", pathname.replace("tenants/1", "node"))).body.code).toBe(
    "job_not_found",
  );
  expect((await begin("operator", "/v1/tenants/1/exports", { name: "stolen" })).status).toBe(403);
});

it("the master key is rotated while requests are answered, and the job tells how far it is", async () => {
  const operator = apiOf(served, "operator");
  const { place } = await begin("operator", "/v1/node/master-key/rotations", { to: "next" });
  expect((await operator("GET", String(place))).body).toMatchObject({ state: "running" });
  expect((await apiOf(served, "1:admin")("GET", "/v1/node/jobs")).body.code).toBe("not_authorized");
  letGo();
  const { keyId } = masterKeyFile(join(folder, "next.key"));
  expect(await ended("operator", place)).toMatchObject({
    state: "done",
    answer: { masterKeyId: keyId },
    progress: { unit: "tenants", done: 3, total: 3 },
  });
  expect((await apiOf(served, "1:admin")("GET", "/v1/tenants/1/keys")).body["masterKeyId"]).toBe(keyId);
  const events = await Array.fromAsync(served.db.nodeAudit({ action: "key.rotate-master" }));
  expect(events.map(({ outcome, actor }) => [outcome, actor])).toEqual([
    ["began", "operator"],
    ["done", "operator"],
  ]);
  const unknown = await begin("operator", "/v1/node/master-key/rotations", { to: "elsewhere" });
  expect(await ended("operator", unknown.place)).toMatchObject({ problem: { code: "not_authorized" } });
});

it("the client waits for the end, is told of progress, and raises what it ended with", async () => {
  const admin = new KimberliteClient({ url: served.url, token: "1:admin" });
  const params = { tenant: "1" };
  const quick = { lookEveryMs: 10 };
  const report = await admin.run("tenants.verify", { params }, quick);
  expect(report).toMatchObject({ ok: true, sealsOpened: true });
  const operator = new KimberliteClient({ url: served.url, token: "operator" });
  const stolen = operator.run("exports.create", { params, body: { name: "stolen" } }, quick);
  await expect(stolen).rejects.toMatchObject({ code: "not_authorized" });
  const taken = admin.run("exports.create", { params, body: { name: "mine" } }, quick);
  await expect(taken).rejects.toMatchObject({ name: "RejectError", code: "destination_exists" });
});

it("a server that goes down lets it end", async () => {
  let over = false;
  const leaving = await startServed({
    rotateMasterKey: async () => {
      await new Promise((resolve) => setTimeout(resolve, 300));
      over = true;
      return "next";
    },
  });
  const body = JSON.stringify({ to: "next" });
  const headers = { authorization: "Bearer operator", "content-type": "application/json", ...ASYNC };
  await fetch(`${leaving.url}/v1/node/master-key/rotations`, { method: "POST", headers, body });
  await leaving.server.close();
  expect(over).toBe(true);
  await leaving[Symbol.asyncDispose]();
});

it("a tenant's jobs are bounded, kept for an hour, and never grow past their number", async () => {
  let nowMs = 1;
  const clock = { ...systemClock, monotonicMs: () => nowMs };
  const gate = new AdminGate("maxConcurrentJobs", 2);
  const jobs = new Jobs({ clock, randomness: systemRandomness(), gate });
  const operation = OPERATIONS.find(({ id }) => id === "tenants.rebuild");
  if (operation === undefined) throw new Error("there is no such operation");
  const principal: Principal = { kind: "operator", actor: "op", credential: { kind: "api_key", id: "o" } };
  const admin: Principal = { ...principal, kind: "tenant", tenant: A, role: "admin" };
  const asked = { operation, target: A, principal, requestId: "r" };
  const ends: (() => void)[] = [];
  const wait = () => new Promise<object>((resolve) => ends.push(() => resolve({})));
  for (let begun = 0; begun < 2; begun += 1) void jobs.track({ ...asked, principal: admin }, wait);
  expect(() => jobs.track({ ...asked, principal: admin }, wait)).toThrow(
    expect.objectContaining({ code: "quota_exceeded" }),
  );
  const other = TenantId(2);
  void jobs.track({ ...asked, target: other, principal: { ...admin, tenant: other } }, wait);
  for (const end of ends) end();
  await jobs.settled();
  expect(jobs.list(principal, A)).toHaveLength(2);
  for (let begun = 0; begun < 150; begun += 1) await jobs.track(asked, async () => ({}));
  await jobs.settled();
  expect(jobs.list(principal, A)).toHaveLength(100);
  expect(jobs.list(principal, other)).toHaveLength(1);
  nowMs += 60 * 60 * 1_000 + 1;
  // The store looks at its clock once a millisecond of the real one.
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(jobs.list(principal, A)).toHaveLength(0);
});
