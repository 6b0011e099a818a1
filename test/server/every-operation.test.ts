/**
 * Every operation of the admin API against every kind of credential, over HTTP, from one table written by hand: an
 * operation that is not in it fails. Each is then done once by who may, to see what it leaves: a record in the right audit
 * streams, and for an operator not a word of a tenant's data, in answers, numbers, log, audit or backups.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type AuditEntry, Duration, type Kimberlite, Permissions, TenantId } from "../../src/index.ts";
import { createLog } from "../../src/server/log.ts";
import type { Operation } from "../../src/server/operation.ts";
import { OPERATIONS } from "../../src/server/operations.ts";
import { issuerOf, makeSigner, type Signer, sign } from "../auth/credentials.ts";
import { filesBelow, Scratch } from "../isolation/scratch.ts";
import { type Served, startServed } from "./served.ts";

/** In every value, and in every name, of tenant 1. */
const [VALUE, NAME] = ["valueplanted9d1e", "nameplanted9d1e"];

/**
 * Who may: `r`eader, `w`riter, `a`dmin of the tenant, by key; admin by a `j`wt of the tenant's own issuer; `o`perator by
 * key, and by a `J`wt of the node's issuer; a key that is scoped to a `g`rant; an `e`nrolment. Nobody else ever.
 */
const KINDS = "rwajoJge";
/** What is refused wherever it comes: nobody is known by it, or somebody else's. */
const NEVER = [
  "none",
  "malformed",
  "revoked",
  "expired",
  "other admin",
  "other jwt",
  "jwt naming another tenant",
];

interface Row {
  readonly who: string;
  /** What makes it do its work: by whom, with what. `{tenant}` is 1 unless `params` says otherwise. */
  readonly as?: "a" | "r" | "o";
  readonly body?: unknown;
  readonly query?: string;
  readonly params?: Readonly<Record<string, string>>;
  /** The record that it leaves: the action, and `t`enant's or `s`ystem's stream, or both. Absent for what only reads. */
  readonly leaves?: readonly [action: string, streams: "t" | "s" | "ts"];
  /** Code of the refusal where this server cannot do it. */
  readonly refused?: string;
  /** Given to the rows below. */
  readonly keep?: (answer: Record<string, unknown>) => void;
}

const READERS = "rwaj";
const ADMINS = "aj";
const BOTH = "ajoJ";
const NODE = "oJ";
const KNOWN = "rwajoJge";

/** Filled while the table is worked through, in its order. */
const seen: Record<string, string> = {};

const TABLE: Readonly<Record<string, () => Row>> = {
  whoami: () => ({ who: KNOWN }),
  "node.describe": () => ({ who: NODE, as: "o" }),
  "node.verifierKey": () => ({
    who: KNOWN,
    keep: ({ verifierKey }) => (seen["verifier"] = String(verifierKey)),
  }),
  "tenants.list": () => ({ who: NODE, as: "o" }),
  "tenants.create": () => ({
    who: NODE,
    as: "o",
    body: { id: "40", name: "made" },
    leaves: ["tenant.create", "s"],
  }),
  "tenants.describe": () => ({ who: `${READERS}${NODE}`, as: "o" }),
  "tenants.suspend": () => ({
    who: NODE,
    as: "o",
    body: {},
    params: { tenant: "40" },
    leaves: ["tenant.suspend", "s"],
  }),
  "tenants.resume": () => ({
    who: NODE,
    as: "o",
    body: {},
    params: { tenant: "40" },
    leaves: ["tenant.resume", "s"],
  }),
  "quota.set": () => ({ who: NODE, as: "o", body: { quota: {} }, leaves: ["quota.set", "s"] }),
  "retention.set": () => ({ who: BOTH, as: "o", body: { retentionMs: 0 }, leaves: ["retention.set", "ts"] }),
  "holds.place": () => ({
    who: BOTH,
    as: "o",
    body: { name: "case", reason: "r" },
    leaves: ["hold.place", "ts"],
  }),
  "holds.list": () => ({ who: `${READERS}${NODE}`, as: "o" }),
  "holds.release": () => ({
    who: BOTH,
    as: "o",
    body: { name: "case", reason: "r" },
    leaves: ["hold.release", "ts"],
  }),
  "keys.list": () => ({ who: BOTH, as: "o" }),
  "keys.rotate": () => ({ who: BOTH, as: "o", body: { key: "dek" }, leaves: ["key.rotate-dek", "t"] }),
  "keys.reencrypt": () => ({ who: BOTH, as: "o", body: {}, leaves: ["key.reencrypt", "ts"] }),
  "keys.move": () => ({ who: ADMINS, as: "a", body: { uri: "file:/etc/passwd" }, refused: "not_authorized" }),
  "node.rotateMasterKey": () => ({ who: NODE, as: "o", body: { to: "other" }, refused: "not_authorized" }),
  "exports.create": () => ({
    who: ADMINS,
    as: "a",
    body: { name: "first" },
    leaves: ["tenant.export", "ts"],
  }),
  "tenants.import": () => ({
    who: NODE,
    as: "o",
    body: { name: "first", key: seen["verifier"], as: "41" },
    leaves: ["tenant.import", "s"],
  }),
  "node.backup": () => ({ who: NODE, as: "o", body: { place: "nightly" }, leaves: ["tenant.backup", "s"] }),
  "node.backups": () => ({ who: NODE, as: "o", query: "place=nightly" }),
  "proofs.checkpoint": () => ({ who: `${READERS}${NODE}`, as: "o" }),
  "proofs.inclusion": () => ({ who: `${READERS}${NODE}`, as: "o", query: "offset=0" }),
  "proofs.consistency": () => ({ who: `${READERS}${NODE}`, as: "o", query: "from=1&to=2" }),
  "tenants.verify": () => ({ who: `${READERS}${NODE}`, as: "o", body: {} }),
  "tenants.rebuild": () => ({ who: NODE, as: "o" }),
  "jobs.list": () => ({
    who: `${READERS}${NODE}`,
    as: "r",
    keep: ({ items }) => (seen["job"] = (items as { readonly id: string }[])[0]?.id ?? "none"),
  }),
  "jobs.describe": () => ({ who: `${READERS}${NODE}`, as: "r", params: { job: seen["job"] ?? "none" } }),
  "node.jobs": () => ({
    who: NODE,
    as: "o",
    keep: ({ items }) => (seen["node job"] = (items as { readonly id: string }[])[0]?.id ?? "none"),
  }),
  "node.job": () => ({ who: NODE, as: "o", params: { job: seen["node job"] ?? "none" } }),
  "streams.list": () => ({
    who: READERS,
    as: "r",
    keep: ({ items }) => {
      const streams = items as { readonly name: string; readonly id: { readonly local: number } }[];
      for (const { name, id } of streams) seen[name] = String(id.local);
    },
  }),
  "streams.create": () => ({
    who: ADMINS,
    as: "a",
    body: { name: "made" },
    keep: ({ id }) => {
      seen["made"] = String((id as { readonly local: number }).local);
    },
  }),
  "streams.append": () => ({
    who: "waj",
    as: "a",
    params: { stream: seen["made"] ?? "" },
    body: { events: [{ [NAME]: VALUE }] },
  }),
  "streams.read": () => ({ who: READERS, as: "r", params: { stream: seen["made"] ?? "" } }),
  "streams.tail": () => ({ who: READERS, as: "r", params: { stream: seen["made"] ?? "" } }),
  "history.query": () => ({
    who: READERS,
    as: "r",
    body: { sql: "SELECT count(*) FROM sqlite_schema", at: "3" },
  }),
  "subjects.declare": () => ({
    who: ADMINS,
    as: "a",
    body: { table: `${NAME}_people`, column: `${NAME}_who` },
    leaves: ["subject.declare", "t"],
  }),
  "subjects.list": () => ({ who: ADMINS, as: "a" }),
  "subjects.erase": () => ({
    who: ADMINS,
    as: "a",
    body: { subject: { type: "text", value: VALUE }, reason: "asked" },
    leaves: ["subject.erase", "ts"],
    refused: "subject_not_found",
  }),
  "subjects.certificates": () => ({ who: ADMINS, as: "a" }),
  "grants.create": () => ({
    who: ADMINS,
    as: "a",
    body: { toTenant: "2", stream: Number(seen[NAME]), purpose: "p" },
    leaves: ["grant.create", "ts"],
    keep: ({ id }) => (seen["grant"] = String(id)),
  }),
  "grants.list": () => ({ who: ADMINS, as: "a" }),
  "grants.revoke": () => ({
    who: ADMINS,
    as: "a",
    params: { grant: seen["grant"] ?? "" },
    body: { reason: "r" },
    leaves: ["grant.revoke", "ts"],
  }),
  "shared.query": () => ({
    who: "rwajg",
    as: "r",
    body: { owner: "2", stream: Number(seen["shared"]), sql: "SELECT * FROM shared" },
    leaves: ["grant.use", "t"],
  }),
  "shared.read": () => ({
    who: "rwajg",
    as: "r",
    query: `grant=${seen["events grant"]}`,
    leaves: ["grant.use", "t"],
  }),
  "audit.list": () => ({ who: ADMINS, as: "a" }),
  "audit.ocsf": () => ({ who: ADMINS, as: "a" }),
  "audit.tail": () => ({ who: ADMINS, as: "a" }),
  "node.audit": () => ({ who: NODE, as: "o", query: "limit=1000" }),
  "node.auditOcsf": () => ({ who: NODE, as: "o" }),
  "node.auditTail": () => ({ who: NODE, as: "o" }),
  "tokens.create": () => ({
    who: `${ADMINS}e`,
    as: "a",
    body: { role: "reader", name: "n" },
    leaves: ["token.create", "ts"],
    keep: ({ key }) => (seen["token"] = (key as { readonly id: string }).id),
  }),
  "tokens.list": () => ({ who: ADMINS, as: "a" }),
  "tokens.revoke": () => ({
    who: ADMINS,
    as: "a",
    params: { token: seen["token"] ?? "" },
    leaves: ["token.revoke", "ts"],
  }),
  "tokens.enrol": () => ({
    who: NODE,
    as: "o",
    params: { tenant: "40" },
    body: {},
    leaves: ["token.enrol", "s"],
  }),
  "node.createToken": () => ({
    who: NODE,
    as: "o",
    body: { name: "n" },
    leaves: ["token.create", "s"],
    keep: ({ key }) => (seen["operator token"] = (key as { readonly id: string }).id),
  }),
  "node.listTokens": () => ({ who: NODE, as: "o" }),
  "node.revokeToken": () => ({
    who: NODE,
    as: "o",
    params: { token: seen["operator token"] ?? "" },
    leaves: ["token.revoke", "s"],
  }),
  "issuers.register": () => ({
    who: ADMINS,
    as: "a",
    body: { issuer: "https://new.example", audience: "a", keys: [ofTenant.publicJwk] },
    leaves: ["issuer.register", "ts"],
  }),
  "issuers.list": () => ({ who: ADMINS, as: "a" }),
  "issuers.remove": () => ({
    who: ADMINS,
    as: "a",
    query: "issuer=https://new.example",
    leaves: ["issuer.remove", "ts"],
  }),
  "erasure.erase": () => ({
    who: BOTH,
    as: "o",
    params: { tenant: "40" },
    body: { reason: "r" },
    leaves: ["tenant.erase", "s"],
  }),
  "erasure.certificate": () => ({ who: BOTH, as: "o", params: { tenant: "40" } }),
  "erasure.refused": () => ({ who: BOTH, as: "o" }),
  "tenants.trim": () => ({
    who: BOTH,
    as: "o",
    params: { tenant: "41" },
    body: { reason: "r" },
    leaves: ["tenant.trim", "s"],
  }),
};

let scratch: Scratch;
let db: Kimberlite;
let served: Served;
let ofTenant: Signer;
const tokens: Record<string, string | undefined> = {};
const logged: string[] = [];
const [A, B, EMPTY] = [TenantId(1), TenantId(2), TenantId(3)];

beforeAll(async () => {
  scratch = new Scratch();
  db = await scratch.open();
  for (const id of [A, B, EMPTY]) await db.createTenant({ id, name: `tenant ${id}` });
  await db.execute(
    A,
    `CREATE TABLE ${NAME} (id INTEGER PRIMARY KEY, ${NAME}_column TEXT CHECK (${NAME}_column <> 'x'))`,
  );
  await db.insert(A, NAME, { id: 1, [`${NAME}_column`]: VALUE });
  await db.append(A, await db.createStream(A, `${NAME}_events`), [{ [`${NAME}_field`]: VALUE }]);
  await db.execute(A, `CREATE TABLE ${NAME}_people (id INTEGER PRIMARY KEY, ${NAME}_who TEXT)`);
  await db.execute(B, "CREATE TABLE shared (id INTEGER PRIMARY KEY)");
  const stream = (await db.streams(B)).find(({ name }) => name === "shared")?.id;
  if (stream === undefined) throw new Error("the table is a stream");
  seen["shared"] = String(stream.local);
  const terms = { permissions: Permissions.Read, purpose: "p" };
  const grant = await db.grantAccess({ ...terms, fromTenant: B, toTenant: A, stream });
  const ofEvents = await db.createStream(B, "events");
  seen["events grant"] = (
    await db.grantAccess({ ...terms, fromTenant: B, toTenant: A, stream: ofEvents })
  ).id;
  await makeTokens(grant.id);
  served = await startServed({
    db,
    authenticator: db.authenticator({
      issuers: [{ ...issuerOf(ofNode), issuer: ofNode.issuer, operators: true, tenants: [EMPTY] }],
    }),
    settings: {
      folders: { exports: join(scratch.folder, "out"), imports: join(scratch.folder, "out", "1") },
      backupPlaces: {
        nightly: {
          logs: `file:${join(scratch.folder, "backup")}`,
          keys: `file:${join(scratch.folder, "keys")}`,
        },
      },
    },
    log: createLog("info", { write: (line) => void logged.push(line) }),
  });
});

afterAll(async () => {
  await served[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

let ofNode: Signer;

async function makeTokens(grant: string): Promise<void> {
  const key = async (id: TenantId, role: "reader" | "writer" | "admin", more = {}): Promise<string> =>
    (await db.createApiKey(id, { role, ...more })).token;
  ofTenant = await makeSigner("https://a.example");
  ofNode = await makeSigner("https://node.example");
  const ofOther = await makeSigner("https://b.example");
  await db.registerIssuer(A, issuerOf(ofTenant));
  await db.registerIssuer(B, issuerOf(ofOther));
  const nowUs = BigInt(Date.now()) * 1_000n;
  const admin = { kimberlite_role: "admin" };
  const revoked = await db.createApiKey(A, { role: "admin" });
  await db.revokeApiKey(A, revoked.key.id);
  const expired = await key(A, "admin", { expiresIn: Duration.milliseconds(1) });
  Object.assign(tokens, {
    r: await key(A, "reader"),
    w: await key(A, "writer"),
    a: await key(A, "admin"),
    j: await sign(ofTenant, nowUs, { claims: admin }),
    o: (await db.createOperatorKey()).token,
    J: await sign(ofNode, nowUs, { claims: { kimberlite_role: "operator", kimberlite_tenant: undefined } }),
    g: await key(A, "admin", { grant }),
    e: (await db.enrolTenant(EMPTY)).token,
    none: undefined,
    malformed: "nonsense",
    revoked: revoked.token,
    expired,
    "other admin": await key(B, "admin"),
    "other jwt": await sign(ofOther, nowUs, { claims: { ...admin, kimberlite_tenant: "2" } }),
    "jwt naming another tenant": await sign(ofOther, nowUs, { claims: admin }),
  });
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

async function ask(
  operation: Operation,
  about: Partial<Row> & { readonly token: string | undefined },
): Promise<Answer> {
  const { token, body, query, params = {} } = about;
  const path = operation.path.replaceAll(/\{(\w+)\}/g, (_, name: string) =>
    encodeURIComponent(params[name] ?? (name === "tenant" ? "1" : "unknown")),
  );
  const response = await fetch(`${served.url}${path}${query === undefined ? "" : `?${query}`}`, {
    method: operation.method,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (response.headers.get("content-type") !== "text/event-stream") {
    return { status: response.status, text: await response.text() };
  }
  let text = "";
  const decoder = new TextDecoder();
  for await (const piece of response.body ?? []) {
    text += decoder.decode(piece as Uint8Array, { stream: true });
    if (text.includes("\ndata: ")) break;
  }
  return { status: response.status, text };
}

function codeOf({ text }: Answer): string | undefined {
  try {
    return (JSON.parse(text) as { readonly code?: string }).code;
  } catch {
    return undefined;
  }
}

it("is in the table, and nothing else is", () => {
  expect(Object.keys(TABLE).toSorted()).toEqual(OPERATIONS.map(({ id }) => id).toSorted());
});

it("is for those whom the table names, and refused to all others before anything of the request is looked at", async () => {
  const refused = { tenant: 0, system: 0, failed: 0 };
  const wrong: string[] = [];
  for (const operation of OPERATIONS) {
    const { who } = TABLE[operation.id]?.() ?? { who: "" };
    for (const kind of [...KINDS, ...NEVER]) {
      // An enrolment is of a tenant of its own.
      const params = { tenant: kind === "e" ? "3" : "1" };
      // A parameter that no operation knows: whoever may is told so, and nothing is done.
      const answer = await ask(operation, {
        token: tokens[kind],
        params,
        query: "nonsense=1",
        body: undefined,
      });
      const code = codeOf(answer);
      const allowed = who.includes(kind) && kind.length === 1;
      const node = !operation.path.includes("{tenant}");
      const stranger = kind.startsWith("other");
      const known = kind.length === 1 || stranger;
      const expected =
        allowed || (stranger && operation.action === "authenticated")
          ? ["invalid_argument"]
          : known
            ? ["not_authorized"]
            : ["unauthenticated", "rate_limited"];
      if (!expected.includes(code ?? ""))
        wrong.push(`${operation.id} ${kind}: ${answer.status} ${code} (${node})`);
      if (code === "not_authorized" && "rwajg".includes(kind)) refused.tenant += 1;
      if (code === "not_authorized" && "oJ".includes(kind)) refused.system += 1;
      if (kind === "revoked" || kind === "expired") refused.failed += 1;
    }
  }
  expect(wrong).toEqual([]);
  expect(refused.tenant).toBeGreaterThan(100);
  seen["refused of tenant"] = String(refused.tenant);
  seen["refused of operators"] = String(refused.system);
  seen["failed"] = String(refused.failed);
});

it("is done by who may, and leaves its record where it belongs, and an operator nothing of a tenant's data", async () => {
  const forOperators: string[] = [];
  const wrong: string[] = [];
  await recorded();
  for (const [id, rowOf] of Object.entries(TABLE)) {
    const operation = OPERATIONS.find((one) => one.id === id) as Operation;
    const row = rowOf();
    const { as = "a", leaves, refused, keep } = row;
    const answer = await ask(operation, { ...row, token: tokens[as] });
    if (as === "o") forOperators.push(answer.text);
    if (refused !== undefined) expect(codeOf(answer), id).toBe(refused);
    else expect(answer.status, `${id}: ${answer.text}`).toBe(operation.status ?? 200);
    if (refused === undefined && answer.text.startsWith("{")) keep?.(JSON.parse(answer.text));
    const added = await recorded();
    if (leaves === undefined) continue;
    const [action, streams] = leaves;
    for (const [letter, stream] of [
      ["t", "tenant"],
      ["s", "system"],
    ] as const) {
      const actions = added[stream].map((entry) => entry.action as string);
      if (actions.includes(action) !== streams.includes(letter)) {
        wrong.push(`${id}, ${stream}: ${actions.join(" ")}`);
      }
    }
  }
  expect(wrong).toEqual([]);
  const headers = { authorization: `Bearer ${tokens["o"]}` };
  forOperators.push(await (await fetch(`${served.url}/metrics`, { headers })).text(), ...logged);
  const everything = [
    ...forOperators,
    JSON.stringify(await Array.fromAsync(db.nodeAudit()), (_, value) =>
      typeof value === "bigint" ? String(value) : value,
    ),
  ].join("\n");
  for (const mark of [VALUE, NAME]) {
    const at = everything.indexOf(mark);
    expect(at < 0 ? "" : everything.slice(Math.max(0, at - 300), at + 60)).toBe("");
    for (const file of ["backup", "keys"].flatMap((name) => filesBelow(join(scratch.folder, name)))) {
      expect(readFileSync(file).includes(mark), file).toBe(false);
    }
  }
  // It was there to be found.
  expect(
    (await ask(OPERATIONS.find(({ id }) => id === "streams.list") as Operation, { token: tokens["r"] })).text,
  ).toContain(NAME);
});

const next = { tenant: 0n, system: 0n };

/** What was recorded since it was asked for last, but who was refused. */
async function recorded(): Promise<Record<"tenant" | "system", AuditEntry[]>> {
  const tenant = await Array.fromAsync(db.audit(A, { from: next.tenant }));
  const system = await Array.fromAsync(db.nodeAudit({ from: next.system }));
  next.tenant = (tenant.at(-1)?.offset ?? next.tenant - 1n) + 1n;
  next.system = (system.at(-1)?.offset ?? next.system - 1n) + 1n;
  const governed = (entry: AuditEntry): boolean => !entry.action.startsWith("auth.");
  return { tenant: tenant.filter(governed), system: system.filter(governed) };
}

it("when it was refused is counted, all of it, in the stream of who asked", async () => {
  await served.server.close();
  await db.close();
  db = await scratch.open();
  const sum = (entries: readonly AuditEntry[], action: string): number =>
    entries
      .filter((entry) => entry.action === action)
      .reduce((total, { detail }) => total + Number(detail?.["count"]), 0);
  const own = await Array.fromAsync(db.audit(A));
  const node = await Array.fromAsync(db.nodeAudit());
  // One more: the tenant's master key, which its admin may name, and this server's settings not.
  expect(sum(own, "auth.refuse")).toBe(Number(seen["refused of tenant"]) + 1);
  expect(sum(own, "auth.fail")).toBeGreaterThanOrEqual(Number(seen["failed"]));
  expect(sum(node, "auth.refuse")).toBeGreaterThanOrEqual(Number(seen["refused of operators"]));
});
