/** The unmodified client of libSQL with a token that is scoped to a grant: a read-only database of the shared table. */
import { type Client, createClient } from "@libsql/client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { registerHrana } from "../../src/hrana/register.ts";
import type { Grant } from "../../src/index.ts";
import { Server } from "../../src/server/server.ts";
import { Speaker } from "../hrana/sockets.ts";
import { ATTACKS } from "./attacks.ts";
import { HIDDEN, HIDDEN_NAMES, Hospitals, OWNER, READER } from "./hospitals.ts";

let hospitals: Hospitals;
let server: Server;
let grant: Grant;
let client: Client;

beforeAll(async () => {
  hospitals = await Hospitals.make();
  const { db } = hospitals;
  grant = await hospitals.grant();
  server = await Server.start({
    db,
    authenticator: db.authenticator(),
    settings: { port: 0 },
    register: (app, host) => registerHrana(app, host),
  });
  const { token } = await db.createApiKey(READER, { role: "reader", name: "shared", grant: grant.id });
  client = createClient({ url: server.address.url, authToken: token });
});

afterAll(async () => {
  client.close();
  await server.close();
  await hospitals[Symbol.asyncDispose]();
});

it("reads what is shared, with types, parameters and batches", async () => {
  const found = await client.execute({ sql: "SELECT * FROM patients WHERE id = ?", args: [7] });
  expect(found.columns).toEqual(["id", "name", "dose"]);
  expect(found.columnTypes).toEqual(["INTEGER", "TEXT", "REAL"]);
  expect(found.rows.map((row) => [row["id"], row["name"], row["dose"]])).toEqual([[7, "Patient 7", 3.5]]);
  const many = await client.batch(["SELECT count(*) AS n FROM patients", "SELECT 1 AS one"], "read");
  expect(many.map(({ rows }) => Object.values(rows[0] ?? {}))).toEqual([[50], [1]]);
  const transaction = await client.transaction("read");
  expect((await transaction.execute("SELECT count(*) AS n FROM patients")).rows).toHaveLength(1);
  await transaction.commit();
});

it.each([
  "SELECT * FROM secrets",
  "SELECT diagnosis FROM patients",
  "DELETE FROM patients",
  "CREATE TABLE mine (a)",
  "EXPLAIN SELECT * FROM patients",
  "PRAGMA writable_schema = 1",
  "ATTACH 'x' AS x",
])("refuses %s", async (sql) => {
  const refusal = await client.execute(sql).then(
    () => "no error",
    (error: Error) => error.message,
  );
  expect(refusal).not.toMatch(new RegExp(`no error|${HIDDEN}`));
});

it("reaches nothing that is not shared, by any SQL, run, described, in a batch or through a cursor", async () => {
  const { token } = await hospitals.db.createApiKey(READER, {
    role: "reader",
    name: "attacks",
    grant: grant.id,
  });
  const steps = ATTACKS.map(([, sql]) => ({ stmt: { sql } }));
  const requests = ATTACKS.flatMap(([, sql]) => [
    { type: "execute", stmt: { sql } },
    { type: "describe", sql },
    { type: "sequence", sql },
  ]);
  const ask = async (path: string, body: object): Promise<string> => {
    const response = await fetch(`${server.address.url}/v3/${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    expect(response.status).toBe(200);
    return response.text();
  };
  const pipeline = JSON.parse(await ask("pipeline", { requests })) as { results: unknown[] };
  expect(pipeline.results.length).toBe(requests.length);
  const batch = await ask("pipeline", { requests: [{ type: "batch", batch: { steps } }] });
  const cursor = await ask("cursor", { baton: null, batch: { steps } });
  for (const text of [JSON.stringify(pipeline), batch, cursor]) expect(text).not.toContain(HIDDEN);
  // An error may repeat a name that was asked for, and no other.
  for (const [at, result] of pipeline.results.entries()) {
    const [what, sql] = ATTACKS[Math.floor(at / 3)] as (typeof ATTACKS)[number];
    const text = JSON.stringify(result);
    const names = HIDDEN_NAMES.filter((name) => text.includes(name) && !sql.includes(name));
    expect([what, names]).toEqual([what, []]);
  }
});

it("takes no writing transaction", async () => {
  await expect(client.batch(["DELETE FROM patients"], "write")).rejects.toThrow();
});

describe("a cursor that is open", () => {
  const ends: [string, string, (id: string) => Promise<unknown>][] = [
    ["the grant is revoked", "grant_revoked", (id) => hospitals.db.revokeAccess(id, { reason: "over" })],
    ["the owner is suspended", "grant_unavailable", () => hospitals.db.suspendTenant(OWNER)],
    [
      "the reader's own credential is revoked",
      "unauthenticated",
      async () => {
        const [newest] = (await hospitals.db.listApiKeys(READER)).sort((a, b) =>
          a.createdAtUs < b.createdAtUs ? 1 : -1,
        );
        await hospitals.db.revokeApiKey(READER, newest?.id ?? "", { reason: "over" });
      },
    ],
  ];

  it.each(ends)("gives no more rows once %s", async (_, code, end) => {
    const { id } = await hospitals.grant();
    const { token } = await hospitals.db.createApiKey(READER, { role: "reader", name: "cursor", grant: id });
    const speaker = await Speaker.greeted(server.address.url, token);
    const batch = { steps: [{ stmt: { sql: "SELECT id FROM patients" } }] };
    await speaker.ask({ type: "open_cursor", stream_id: 1, cursor_id: 1, batch });
    const fetch = (): ReturnType<Speaker["ask"]> =>
      speaker.ask({ type: "fetch_cursor", cursor_id: 1, max_count: 10 });
    const first = await fetch();
    expect(first.response?.entries?.filter(({ type }) => type === "row").length).toBe(9);
    await end(id);
    const after = await Promise.all([fetch(), fetch(), fetch(), fetch(), fetch(), fetch()]);
    await hospitals.db.resumeTenant(OWNER);
    const entries = after.flatMap(({ response }) => response?.entries ?? []);
    const codes = [...entries, ...after].map(({ error }) => error?.code).filter(Boolean);
    expect(codes).toContain(code);
    // No more than were found together with the last that was let go.
    expect(entries.filter(({ type }) => type === "row").length).toBeLessThan(8);
    speaker.socket.terminate();
  });
});

it("ends with the grant, and is in both audit streams", async () => {
  await hospitals.db.revokeAccess(grant.id, { reason: "over" });
  await expect(client.execute("SELECT 1")).rejects.toThrow();
  for (const tenant of [OWNER, READER]) {
    const entries = await Array.fromAsync(hospitals.db.audit(tenant, { action: "grant.use" }));
    expect(entries.filter(({ outcome }) => outcome === "done").length).toBeGreaterThanOrEqual(4);
    expect(entries.at(-1)).toMatchObject({ outcome: "refused", code: "grant_revoked" });
    expect(entries.every(({ actor }) => actor !== "local")).toBe(true);
  }
});
