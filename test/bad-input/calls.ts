/**
 * Every public operation of `Kimberlite` with arguments that are right: what tests put nonsense, or another tenant,
 * into. A method that is not here makes `coverage.test.ts` fail.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Kimberlite, StreamId, TenantId } from "../../src/index.ts";

/** What the calls are made on: a tenant with a table `t (id INTEGER PRIMARY KEY, v)` and an event stream. */
export interface Place {
  readonly db: Kimberlite;
  readonly tenant: TenantId;
  readonly stream: StreamId;
  /** A number that no earlier call was given: for new ids and names. */
  readonly fresh: number;
}

export interface Call {
  readonly method: string;
  /** Which of `args` is the tenant; undefined for an operation of the node. */
  readonly tenantAt: number | undefined;
  readonly args: (place: Place) => unknown[];
}

/** Where exports go. */
const SCRATCH = mkdtempSync(join(tmpdir(), "kimberlite-calls-"));
process.once("exit", () => rmSync(SCRATCH, { recursive: true, force: true }));

/** C2SP's example of a verifier key. */
const NOBODYS_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

const ended = (): AbortSignal => AbortSignal.abort();

export const CALLS: readonly Call[] = [
  call(
    "createTenant",
    ({ fresh }) => [{ id: BigInt(fresh), name: "new", quota: { maxOpsPerSec: 5 } }],
    undefined,
  ),
  call("listTenants", ({ tenant }) => [{ after: tenant, limit: 5 }], undefined),
  call("describeTenant", ({ tenant }) => [tenant]),
  call("suspendTenant", ({ tenant }) => [tenant]),
  call("resumeTenant", ({ tenant }) => [tenant]),
  call("setQuota", ({ tenant }) => [tenant, { maxConcurrentOps: 1_000 }]),
  call("setRetention", ({ tenant }) => [tenant, { ms: 5 }]),
  call("placeLegalHold", ({ tenant, fresh }) => [
    tenant,
    { name: `case ${fresh}`, reason: "a court asks", actor: "me" },
  ]),
  call("releaseLegalHold", ({ tenant }) => [tenant, { name: "no such case", reason: "over" }]),
  call("refusedErasures", ({ tenant }) => [tenant]),
  call("eraseTenant", ({ tenant }) => [tenant, { reason: "refused, for a hold stands", actor: "me" }]),
  call("erasureCertificate", ({ tenant }) => [tenant]),
  call("declareSubject", ({ tenant }) => [tenant, { table: "t", column: "v" }, { actor: "me" }]),
  call("subjects", ({ tenant }) => [tenant]),
  call("eraseSubject", ({ tenant }) => [tenant, "nobody", { reason: "refused", actor: "me" }]),
  call("subjectCertificates", ({ tenant }) => [tenant]),
  call("exportTenant", ({ tenant, fresh }) => [tenant, join(SCRATCH, String(fresh))]),
  call("importTenant", () => [join(SCRATCH, "no-export"), { key: NOBODYS_KEY, actor: "me" }], undefined),
  call("backup", () => [{ to: `file:${join(SCRATCH, "backup")}`, actor: "me" }], undefined),
  call("backups", () => [`file:${join(SCRATCH, "backup")}`], undefined),
  call(
    "restoreTenant",
    ({ fresh }) => [{ from: `file:${join(SCRATCH, "backup")}`, tenant: 1n, as: BigInt(fresh) }],
    undefined,
  ),
  call("createApiKey", ({ tenant }) => [tenant, { role: "reader", name: "a name", actor: "me" }]),
  call("listApiKeys", ({ tenant }) => [tenant]),
  call("revokeApiKey", ({ tenant }) => [tenant, "0123456789abcdef", { actor: "me" }]),
  call("enrolTenant", ({ tenant }) => [tenant, { name: "a name", actor: "me" }]),
  call("createOperatorKey", () => [{ name: "a name", actor: "me" }], undefined),
  call("listOperatorKeys", () => [], undefined),
  call("revokeOperatorKey", () => ["0123456789abcdef", { actor: "me" }], undefined),
  call("registerIssuer", ({ tenant }) => [
    tenant,
    { issuer: "https://id.example", audience: "us", jwksUri: "https://id.example/keys" },
    { actor: "me" },
  ]),
  call("listIssuers", ({ tenant }) => [tenant]),
  call("removeIssuer", ({ tenant }) => [tenant, "https://no.example", { actor: "me" }]),
  call("authenticator", () => [{ issuers: [] }], undefined),
  call("audit", ({ tenant }) => [tenant, { from: 0, limit: 3 }]),
  call(
    "grantAccess",
    ({ tenant, stream }) => [
      {
        fromTenant: tenant,
        toTenant: 9_999_999n,
        stream,
        permissions: "read",
        purpose: "refused, for there is no such tenant",
        expiration: { ms: 5 },
        notBefore: new Date(0),
        columns: ["id"],
        where: "id > 0",
        maxRows: 5,
        actor: "me",
      },
    ],
    undefined,
  ),
  call("revokeAccess", () => ["no such grant", { reason: "over", actor: "me" }], undefined),
  call("describeGrant", ({ tenant }) => [tenant, "no such grant"]),
  call("session", ({ tenant }) => [tenant, { actor: "me" }]),
  call("sharedSession", ({ tenant }) => [tenant, "no such grant", { actor: "me" }]),
  call("listGrants", ({ tenant }) => [tenant]),
  call("queryShared", ({ tenant, stream }) => [
    tenant,
    stream,
    "SELECT 1",
    [],
    { actor: "me", grant: "none" },
  ]),
  call("sharedArrays", ({ tenant, stream }) => [tenant, stream, "SELECT 1", [], { actor: "me" }]),
  call("iterateShared", ({ tenant, stream }) => [tenant, stream, "SELECT 1", [], { actor: "me" }]),
  call("readShared", ({ tenant, stream }) => [tenant, stream, { from: 0, limit: 2 }, { actor: "me" }]),
  call("nodeAudit", () => [{ from: 0, limit: 3 }], undefined),
  call("execute", ({ tenant, fresh }) => [
    tenant,
    "INSERT INTO t VALUES (?, ?)",
    [fresh, "v"],
    { actor: "me" },
  ]),
  call("query", ({ tenant }) => [tenant, "SELECT * FROM t WHERE id = ?", [1], { at: 1 }]),
  call("executeArrays", ({ tenant }) => [tenant, "SELECT * FROM t WHERE id = ?", [1], { actor: "me" }]),
  call("insert", ({ tenant, fresh }) => [tenant, "t", { id: fresh, v: "v" }, { actor: "me" }]),
  call("transaction", ({ tenant, fresh }) => [
    tenant,
    [{ sql: "INSERT INTO t VALUES (?, 1)", params: [fresh] }],
    { actor: "me" },
  ]),
  call("createStream", ({ tenant, fresh }) => [tenant, `stream ${fresh}`, { actor: "me" }]),
  call("streams", ({ tenant }) => [tenant]),
  call("append", ({ tenant, stream, fresh }) => [
    tenant,
    stream,
    [{ a: 1 }],
    { idempotencyKey: `key ${fresh}` },
  ]),
  call("read", ({ tenant, stream }) => [tenant, stream, { from: 0, limit: 2 }]),
  call("subscribe", ({ tenant, stream }) => [tenant, stream, { from: 0, signal: ended() }]),
  call("checkpoint", ({ tenant }) => [tenant]),
  call("verifierKey", () => [], undefined),
  call("verifyTenant", ({ tenant }) => [tenant, {}]),
  call("rebuildProjection", ({ tenant }) => [tenant, {}]),
  call("inclusionProof", ({ tenant }) => [tenant, 0]),
  call("consistencyProof", ({ tenant }) => [tenant, 1, 2]),
  call("rotateDek", ({ tenant }) => [tenant]),
  call("reencryptTenant", ({ tenant }) => [tenant, { actor: "me" }]),
  call("trimTenant", ({ tenant }) => [tenant, { reason: "over", before: new Date(0), actor: "me" }]),
  call("rotateKek", ({ tenant }) => [tenant, { actor: "me", reason: "yearly" }]),
  call("setTenantMasterKey", ({ tenant }) => [tenant, null, { actor: "me" }]),
  call("keys", ({ tenant }) => [tenant]),
  call("stats", () => [], undefined),
];

/** Operations with tests of their own: they end the database, or change the key of all of it. */
export const APART: ReadonlySet<string> = new Set(["close", "rotateMasterKey"]);

function call(method: string, args: Call["args"], tenantAt: number | undefined = 0): Call {
  return { method, args, tenantAt };
}

/** Makes a call and gives what it gives; of an iteration the first items. */
export async function make(db: Kimberlite, method: string, args: readonly unknown[]): Promise<unknown> {
  const operation = (db as unknown as Record<string, (...args: readonly unknown[]) => unknown>)[method];
  if (operation === undefined) throw new Error(`there is no ${method}`);
  const made: unknown = operation.apply(db, [...args]);
  if (!isIteration(made)) return await made;
  const items: unknown[] = [];
  for await (const item of made) {
    items.push(item);
    if (items.length >= 10) break;
  }
  return items;
}

function isIteration(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}

/** Names of the public methods of a class. */
export function methodsOf(of: { readonly prototype: object }): string[] {
  return Object.getOwnPropertyNames(of.prototype)
    .filter((name) => name !== "constructor")
    .sort();
}
