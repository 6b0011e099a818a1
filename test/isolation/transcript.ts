/**
 * What a tenant sees: a fixed script of every operation that is addressed to a tenant, with each answer in a form that
 * is equal in every run that was not disturbed. Salts, nonces and what hangs on them are left out; offsets, sizes,
 * bytes, order, times and codes are not.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Clock, type Kimberlite, KimberliteError, type StreamId, TenantId } from "../../src/index.ts";
import { make } from "../bad-input/calls.ts";

/** Time that stands still, so that no other tenant's call moves it. */
export const FROZEN: Clock = {
  wallTimeUs: () => 1_700_000_000_000_000n,
  monotonicMs: () => performance.now(),
};

export interface Line {
  readonly method: string;
  readonly outcome: unknown;
  /** Not enumerable: no part of what is compared. */
  readonly tookMs: () => number;
}

/** Calls methods one after the other and writes down what came of each. */
export class Transcript {
  readonly lines: Line[] = [];
  readonly #db: Kimberlite;

  constructor(db: Kimberlite) {
    this.#db = db;
  }

  async call(method: string, ...args: readonly unknown[]): Promise<unknown> {
    const startedMs = performance.now();
    const outcome = await make(this.#db, method, args).catch(codeOf);
    const tookMs = performance.now() - startedMs;
    this.lines.push(
      Object.defineProperty({ method, outcome: repeatable(method, outcome) }, "tookMs", {
        value: () => tookMs,
      }) as Line,
    );
    return outcome;
  }
}

function codeOf(error: unknown): unknown {
  if (!(error instanceof KimberliteError)) throw error;
  return { code: error.code, message: error.message, detail: error.detail };
}

/** Leaves out what differs between any two runs. */
function repeatable(method: string, outcome: unknown): unknown {
  const value = outcome as Record<string, unknown>;
  if (method === "checkpoint" && typeof outcome === "string") return outcome.split("\n")[1];
  if (method === "exportTenant") return { size: value["size"], code: value["code"] };
  if (method === "verifyTenant") return { ...value, root: undefined, roots: undefined };
  if (method === "inclusionProof" && "path" in value)
    return { ...value, leafHash: 0, root: 0, path: (value["path"] as []).length };
  if (method === "consistencyProof" && "path" in value)
    return { ...value, fromRoot: 0, toRoot: 0, path: (value["path"] as []).length };
  if (method === "keys" || method === "audit") return textOf(outcome).replace(/"[0-9a-f]{32}"/g, '"id"');
  if (/ApiKeys?$/.test(method)) return textOf(outcome).replace(/"(id|token)":"[^"]+"/g, '"$1"');
  if (method === "session") return typeof value;
  if (/^(eraseSubject|subjectCertificates)$/.test(method) && !("code" in value)) return Object.keys(value);
  return outcome;
}

function textOf(outcome: unknown): string {
  return JSON.stringify(outcome, (_key, item: unknown) => (typeof item === "bigint" ? `${item}n` : item));
}

/** The names that both tenants use. */
export const TABLE = "patients";
export const STREAM = "visits";

/** The first half of the script; the tenant exists already. */
export async function firstHalf(db: Kimberlite, id: TenantId): Promise<Line[]> {
  const transcript = new Transcript(db);
  const call = transcript.call.bind(transcript);
  await call(
    "execute",
    id,
    `CREATE TABLE ${TABLE} (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, n INT CHECK (n < 100))`,
  );
  await call(
    "execute",
    id,
    `CREATE TRIGGER twice AFTER INSERT ON ${TABLE} WHEN new.n = 7 BEGIN INSERT INTO ${TABLE} (name, n) VALUES (new.name || '!', 8); END`,
  );
  const stream = (await call("createStream", id, STREAM)) as StreamId;
  await call("createStream", id, STREAM);
  for (let n = 0; n < 10; n += 1) {
    await call("insert", id, TABLE, { name: `n${n}`, n });
    await call("append", id, stream, [{ n }, "second"], {
      idempotencyKey: `key ${n}`,
      expectedOffset: n * 2,
    });
    await call("append", id, stream, [{ n }, "second"], {
      idempotencyKey: `key ${n}`,
      expectedOffset: n * 2,
    });
    await call("append", id, stream, [{ n }], { expectedOffset: 1 });
    await call("append", id, stream, ["other"], { idempotencyKey: `key ${n}` });
  }
  await call("insert", id, TABLE, { name: "n1", n: 1 });
  await call("execute", id, `UPDATE ${TABLE} SET n = 100 WHERE id > 3`);
  await call("execute", id, `UPDATE ${TABLE} SET n = n + 1 WHERE id > 3 RETURNING *`, [], {
    actor: "nurse",
    correlationId: "c1",
  });
  await call("transaction", id, [
    `DELETE FROM ${TABLE} WHERE id = 2`,
    { sql: `INSERT INTO ${TABLE} (name) VALUES (?)`, params: ["list"] },
  ]);
  await call("transaction", id, [`DELETE FROM ${TABLE}`, "NONSENSE"]);
  await call("transaction", id, async (held: { execute(sql: string): Promise<unknown> }) => {
    await held.execute(`INSERT INTO ${TABLE} (name) VALUES ('held')`);
    return "held";
  });
  await look(call, id, stream);
  return transcript.lines;
}

/** The second half, which is to come after a restart too. */
export async function secondHalf(db: Kimberlite, id: TenantId): Promise<Line[]> {
  const transcript = new Transcript(db);
  const call = transcript.call.bind(transcript);
  const streams = (await call("streams", id)) as { id: StreamId; name: string }[];
  const stream = streams.find(({ name }) => name === STREAM)?.id as StreamId;
  await look(call, id, stream);
  await call("append", id, stream, [{ n: 3 }, "second"], { idempotencyKey: "key 3" });
  await call("rotateDek", id);
  await call("rotateKek", id);
  await call("trimTenant", id, { reason: "over", before: new Date(0) });
  await call("reencryptTenant", id, { destroyFormerKeys: true });
  await call("setTenantMasterKey", id, null);
  await call("insert", id, TABLE, [{ name: "after" }, { name: "after too" }]);
  await call("setQuota", id, { maxConcurrentOps: 50, maxLogBytes: 1_000_000 });
  await call("setRetention", id, { ms: 86_400_000 });
  await call("placeLegalHold", id, { name: "case 7", reason: "a court asks" });
  await call("eraseTenant", id, { reason: "they left" });
  await call("refusedErasures", id);
  await call("releaseLegalHold", id, { name: "case 7", reason: "the case is closed" });
  await call("eraseTenant", id, { reason: "too early" });
  await call("erasureCertificate", id);
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-transcript-"));
  await call("exportTenant", id, folder);
  rmSync(folder, { recursive: true });
  await call("audit", id, { limit: 20 });
  await subjects(call, id);
  await credentials(call, id);
  await sharing(call, id, stream);
  const session = (await call("session", id)) as { close(): Promise<void> };
  await session.close();
  await call("suspendTenant", id);
  await call("query", id, "SELECT 1");
  await call("resumeTenant", id);
  await call("rebuildProjection", id);
  await call("execute", id, `DROP TABLE ${TABLE}`);
  await call("execute", id, `CREATE TABLE ${TABLE} (id INTEGER PRIMARY KEY AUTOINCREMENT)`);
  await call("insert", id, TABLE, {});
  await look(call, id, stream);
  return transcript.lines;
}

async function subjects(call: Transcript["call"], id: TenantId): Promise<void> {
  await call("execute", id, "CREATE TABLE persons (id INTEGER PRIMARY KEY, who TEXT)");
  await call("declareSubject", id, { table: "persons", column: "who" }, { reason: "they may ask" });
  await call("insert", id, "persons", [{ who: "Alice" }, { who: "Bob" }]);
  await call("eraseSubject", id, "Alice", { reason: "too early" });
  await call("eraseSubject", id, "Alice", { reason: "she asked", overrideRetention: true });
  await call("eraseSubject", id, "Carol", { reason: "nobody" });
  await call("subjects", id);
  await call("subjectCertificates", id);
  await call("query", id, "SELECT * FROM persons");
}

async function credentials(call: Transcript["call"], id: TenantId): Promise<void> {
  const made = (await call("createApiKey", id, { role: "reader", name: "report" })) as {
    readonly key: { readonly id: string };
  };
  await call("revokeApiKey", id, made.key.id, { reason: "over" });
  await call("listApiKeys", id);
  await call("enrolTenant", id);
  const issuer = "https://issuer.example";
  await call("registerIssuer", id, { issuer, audience: "kimberlite", jwksUri: `${issuer}/keys` });
  await call("listIssuers", id);
  await call("removeIssuer", id, issuer);
}

/** Of another tenant, which is there or not: nothing of that shows in what is refused. */
async function sharing(call: Transcript["call"], id: TenantId, stream: StreamId): Promise<void> {
  const foreign = { tenant: OTHER, local: stream.local };
  await call("queryShared", id, foreign, "SELECT 1");
  await call("sharedArrays", id, foreign, "SELECT 1");
  await call("iterateShared", id, foreign, "SELECT 1");
  await call("readShared", id, foreign);
  await call("describeGrant", id, "none");
  await call("sharedSession", id, "none");
  await call("grantAccess", { fromTenant: id, toTenant: id, stream, permissions: "read", purpose: "none" });
  await call("revokeAccess", "none", { reason: "none" });
  await call("listGrants", id);
}

async function look(call: Transcript["call"], id: TenantId, stream: StreamId): Promise<void> {
  await call("query", id, `SELECT * FROM ${TABLE} ORDER BY id`);
  await call("query", id, `SELECT * FROM ${TABLE} ORDER BY id`, [], { at: 8 });
  await call("query", id, `SELECT count(*), sum(n) FROM ${TABLE}`, [], { at: 10_000 });
  await call("query", id, "SELECT name, sql FROM sqlite_master ORDER BY name");
  await call("query", id, "SELECT * FROM sqlite_sequence");
  await call("executeArrays", id, `SELECT id, id FROM ${TABLE} WHERE id < 4`);
  await call("streams", id);
  await call("read", id, stream, { from: 3, limit: 5 });
  await call("read", id, { tenant: id, local: 100 });
  await call("read", id, { tenant: id, local: 12_345 });
  await call("read", id, { tenant: OTHER, local: stream.local });
  await call("append", id, { tenant: OTHER, local: stream.local }, ["not mine"]);
  await call(
    "subscribe",
    id,
    { tenant: OTHER, local: stream.local },
    { signal: new AbortController().signal },
  );
  await call("subscribe", id, stream, { from: 2, signal: new AbortController().signal });
  await call("describeTenant", id);
  await call("checkpoint", id);
  await call("verifyTenant", id);
  await call("inclusionProof", id, 5);
  await call("consistencyProof", id, 3, 9);
  await call("inclusionProof", id, 100_000);
  await call("keys", id);
}

/** The tenant beside the one that is watched. */
export const OTHER: TenantId = TenantId(2);
