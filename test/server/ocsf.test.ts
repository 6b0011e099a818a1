/**
 * Audit events as OCSF, held against the published classes of OCSF 1.5.0 (schema.ocsf.io: API Activity 6003,
 * Authentication 3002, and the objects in them): what is required is there, and nothing is there that the class does not
 * know. One of each is written down whole.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { AuditEntry } from "../../src/audit/audit-event.ts";
import { toOcsf } from "../../src/audit/ocsf.ts";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { apiOf } from "./api.ts";
import { type Served, startServed } from "./served.ts";

type Json = Readonly<Record<string, unknown>>;

/** `!` behind a name: required. An object's own fields are those of the object of the dictionary. */
const BASE = [
  "category_uid!",
  "category_name",
  "class_uid!",
  "class_name",
  "activity_id!",
  "activity_name",
  "type_uid!",
  "type_name",
  "time!",
  "severity_id!",
  "severity",
  "status_id",
  "status",
  "status_code",
  "status_detail",
  "message",
  "metadata!",
  "unmapped",
];
const CLASSES: Readonly<Record<number, readonly string[]>> = {
  6003: [...BASE, "actor!", "api!", "src_endpoint!", "dst_endpoint", "resources", "http_request"],
  3002: [...BASE, "user!", "actor", "service", "dst_endpoint", "src_endpoint", "is_remote", "is_cleartext"],
};
const OBJECTS: Readonly<Record<string, readonly string[]>> = {
  metadata: [
    "version!",
    "product!",
    "uid",
    "log_name",
    "sequence",
    "tenant_uid",
    "correlation_uid",
    "event_code",
  ],
  product: ["vendor_name!", "name", "version", "uid"],
  actor: ["user", "session", "app_name", "app_uid"],
  user: ["name", "uid", "type", "type_id"],
  api: ["operation!", "request", "response", "service", "version"],
  request: ["uid!", "flags", "data"],
  src_endpoint: ["ip", "name", "hostname", "port", "uid", "svc_name"],
  service: ["name", "uid", "version"],
  resources: ["type", "uid", "name", "owner"],
};

/** What a class or an object knows nothing of, and what it misses. */
function faultsOf(value: Json, fields: readonly string[], where: string): string[] {
  const known = fields.map((field) => field.replace("!", ""));
  const missing = fields.filter((field) => field.endsWith("!") && value[field.slice(0, -1)] === undefined);
  const strange = Object.keys(value).filter((name) => !known.includes(name));
  const within = Object.entries(value).flatMap(([name, field]) => {
    if (name === "unmapped" || typeof field !== "object" || field === null) return [];
    const items = (Array.isArray(field) ? field : [field]) as Json[];
    return items.flatMap((item) => faultsOf(item, OBJECTS[name] ?? [], `${where}.${name}`));
  });
  return [
    ...missing.map((name) => `${where}: no ${name}`),
    ...strange.map((name) => `${where}: ${name}?`),
    ...within,
  ];
}

function faults(event: Json): string[] {
  const id = Number(event["class_uid"]);
  const own = faultsOf(event, CLASSES[id] ?? [], String(id));
  const atLeast =
    id === 3002 && event["service"] === undefined && event["dst_endpoint"] === undefined
      ? ["3002: neither service nor dst_endpoint"]
      : [];
  const type =
    event["type_uid"] === id * 100 + Number(event["activity_id"]) ? [] : ["type_uid is of another activity"];
  return [...own, ...atLeast, ...type];
}

let served: Served;
beforeAll(async () => {
  served = await startServed();
});
afterAll(async () => served[Symbol.asyncDispose]());

async function exported(path: string, token: string): Promise<Json[]> {
  const response = await fetch(`${served.url}${path}`, { headers: { authorization: `Bearer ${token}` } });
  return (await response.text())
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Json);
}

it("every event of both streams is of its class, with the address that it came from", async () => {
  const operator = apiOf(served, "operator");
  await operator("POST", "/v1/tenants", { id: "1", name: "A" });
  const admin = apiOf(served, "1:admin");
  await admin("POST", "/v1/tenants/1/keys/rotations", { key: "dek", reason: "quarterly" });
  await operator("POST", "/v1/tenants/1/holds", { name: "case 7", reason: "litigation" });
  await admin("POST", "/v1/tenants/1/trim", { reason: "old" });
  await operator("POST", "/v1/tenants/1/holds/release", { name: "case 7", reason: "closed" });
  const before = await exported("/v1/tenants/1/audit/ocsf", "1:admin");
  const trimmed = await admin("POST", "/v1/tenants/1/trim", { reason: "old" });
  expect(trimmed.body["firstOffset"]).toBe((await admin("GET", "/v1/tenants/1")).body["firstOffset"]);
  await admin("POST", "/v1/tenants/1/tokens", { role: "reader", name: "n" });
  // As of the library itself, without a network.
  await served.db.setQuota(TenantId(1), { maxOpsPerSec: 1_000 });
  // What was past its retention is gone, also of the audit stream.
  expect(trimmed.body).toMatchObject({ firstOffset: expect.not.stringMatching(/^0$/) as string });
  const own = [...before, ...(await exported("/v1/tenants/1/audit/ocsf", "1:admin"))];
  const node = await exported("/v1/node/audit/ocsf", "operator");
  expect([...own, ...node].flatMap(faults)).toEqual([]);
  expect(own.length).toBeGreaterThan(3);
  const sources = new Set([...own, ...node].map((event) => JSON.stringify(event["src_endpoint"])));
  expect([...sources].toSorted()).toEqual(['{"ip":"127.0.0.1"}', '{"name":"in process"}']);
  const events = await Array.fromAsync(served.db.nodeAudit({ action: "tenant.create" }));
  expect(events[0]).toMatchObject({ actor: "operator", detail: { address: "127.0.0.1" } });
});

it("one of each is what it was", () => {
  const entry: AuditEntry = {
    offset: 7n,
    logOffset: 2n ** 53n + 1n,
    timeUs: 1_700_000_000_123_456n,
    action: "tenant.erase",
    outcome: "refused",
    actor: "ada",
    reason: "contract over",
    correlationId: "r-1",
    tenant: 1n,
    code: "legal_hold",
    detail: { address: "192.0.2.1", count: 2n },
  };
  const source = { installation: "inst", productVersion: "0.1.0" };
  expect(toOcsf(entry, source)).toEqual({
    category_uid: 6,
    category_name: "Application Activity",
    class_uid: 6003,
    class_name: "API Activity",
    activity_id: 4,
    activity_name: "Delete",
    type_uid: 600_304,
    type_name: "API Activity: Delete",
    time: 1_700_000_000_123,
    severity_id: 3,
    severity: "Medium",
    status_id: 2,
    status: "Failure",
    status_code: "legal_hold",
    message: "contract over",
    actor: { user: { name: "ada" } },
    src_endpoint: { ip: "192.0.2.1" },
    api: { operation: "tenant.erase", request: { uid: "r-1" } },
    resources: [{ type: "tenant", uid: "1" }],
    metadata: {
      version: "1.5.0",
      product: { name: "Kimberlite", vendor_name: "Kimberlite", version: "0.1.0" },
      uid: "inst/0/7",
      log_name: "system audit",
      sequence: 7,
      correlation_uid: "r-1",
    },
    unmapped: {
      outcome: "refused",
      log_offset: "9007199254740993",
      detail: { address: "192.0.2.1", count: "2" },
    },
  });
  const login = toOcsf({ ...entry, action: "auth.fail", code: "unauthenticated" }, { ...source, tenant: 1n });
  expect(faults(login)).toEqual([]);
  expect(login).toMatchObject({ class_uid: 3002, type_uid: 300_201, service: { name: "Kimberlite" } });
});

it("what a class does not know, or misses, is found", () => {
  const event = {
    class_uid: 6003,
    activity_id: 1,
    type_uid: 600_302,
    shoe_size: 43,
    metadata: { version: "1.5.0" },
  };
  expect(faults(event)).toEqual(
    expect.arrayContaining([
      "6003: no api!",
      "6003: shoe_size?",
      "6003.metadata: no product!",
      "type_uid is of another activity",
    ]),
  );
});
