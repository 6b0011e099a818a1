/**
 * Cursors in the middle of which what they read under ends: the grant, the tenant, the tenant that shares. Each ends with
 * an error that says why, and no row after it; nothing of the tenant is left, and the server goes on.
 */
import { existsSync } from "node:fs";
import { afterEach, beforeEach, expect, it } from "vitest";
import { registerHrana } from "../../src/hrana/register.ts";
import { Duration, type TenantId } from "../../src/index.ts";
import { Server } from "../../src/server/server.ts";
import { SetClock } from "../isolation/set-clock.ts";
import { HIDDEN, Hospitals, OWNER, READER, STRANGER } from "../sharing/hospitals.ts";
import { Speaker } from "./sockets.ts";

const HOUR_US = 3_600_000_000n;
/** Longer than what the sockets on the way hold: each row has 12 KB. */
const ROWS = 800;
const SQL = "SELECT id, name FROM patients";

/** Of a WebSocket the credential may have ended first, and the connection with it. */
const ENDS_OF_ERASURE = ["tenant_erasing", "tenant_erased", "unauthenticated", "closed 1008"];

interface Entry {
  readonly type: string;
  readonly error?: { readonly code: string };
}

/** A cursor of either transport, from which some rows came. */
interface Reading {
  /** What was sent. */
  readonly heard: string[];
  /** All that still comes, up to the end. */
  rest(): Promise<Entry[]>;
}

let clock: SetClock;
let hospitals: Hospitals;
let server: Server;

beforeEach(async () => {
  clock = new SetClock();
  hospitals = await Hospitals.make({ clock });
  server = await Server.start({
    db: hospitals.db,
    authenticator: hospitals.db.authenticator(),
    settings: { port: 0 },
    register: (app, host) => registerHrana(app, host),
  });
  await hospitals.db.execute(
    OWNER,
    `WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n LIMIT ${ROWS})
     INSERT INTO patients SELECT i, hex(zeroblob(6000)), 'A', '${HIDDEN}', 1 FROM n`,
  );
});

afterEach(async () => {
  await server.close();
  await hospitals[Symbol.asyncDispose]();
});

async function token(tenant: TenantId, grant?: string): Promise<string> {
  const key = await hospitals.db.createApiKey(tenant, {
    role: "reader",
    name: "cursor",
    ...(grant === undefined ? {} : { grant }),
  });
  return key.token;
}

async function overHttp(bearer: string): Promise<Reading> {
  const response = await fetch(`${server.address.url}/v3/cursor`, {
    method: "POST",
    headers: { authorization: `Bearer ${bearer}`, "content-type": "application/json" },
    body: JSON.stringify({ baton: null, batch: { steps: [{ stmt: { sql: SQL } }, { stmt: { sql: SQL } }] } }),
  });
  const heard: string[] = [];
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  let text = Buffer.from((await reader.read()).value ?? []).toString("utf8");
  return {
    heard,
    rest: async () => {
      const before = text.lastIndexOf("\n") + 1;
      for (let next = await reader.read(); !next.done; next = await reader.read())
        text += Buffer.from(next.value).toString("utf8");
      heard.push(text);
      return text
        .slice(before)
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Entry);
    },
  };
}

async function overWebSocket(bearer: string): Promise<Reading> {
  const speaker = await Speaker.greeted(server.address.url, bearer);
  const heard: string[] = [];
  speaker.socket.on("message", (data: Buffer) => heard.push(data.toString("utf8")));
  const batch = { steps: [{ stmt: { sql: SQL } }, { stmt: { sql: SQL } }] };
  await speaker.ask({ type: "open_cursor", stream_id: 1, cursor_id: 1, batch });
  const fetched = () => speaker.ask({ type: "fetch_cursor", cursor_id: 1, max_count: 20 });
  expect((await fetched()).response?.entries?.length).toBe(20);
  return {
    heard,
    rest: async () => {
      const entries: Entry[] = [];
      for (;;) {
        const said = await fetched();
        entries.push(...(said.response?.entries ?? []));
        if (said.response === undefined) entries.push({ ...said, error: said.error ?? { code: said.type } });
        if (said.response?.done !== false) break;
      }
      speaker.socket.terminate();
      return entries;
    },
  };
}

/** Rows stop before the end, an error of one of the codes comes, and no row after it. */
function expectCutOff(entries: readonly Entry[], codes: readonly string[]): void {
  const at = entries.findIndex(({ error }) => error !== undefined);
  expect(codes).toContain(entries[at]?.error?.code);
  expect(at).toBeLessThan(ROWS - 100);
  expect(entries.slice(at).filter(({ type }) => type === "row" || type === "step_end")).toEqual([]);
  expect(entries.at(-1)?.error).toBeDefined();
}

async function expectServing(): Promise<void> {
  const response = await fetch(`${server.address.url}/v3/pipeline`, {
    method: "POST",
    headers: { authorization: `Bearer ${await token(STRANGER)}`, "content-type": "application/json" },
    body: JSON.stringify({ requests: [{ type: "execute", stmt: { sql: "SELECT 1" } }, { type: "close" }] }),
  });
  const { results } = (await response.json()) as { results: Entry[] };
  expect(results.map(({ type }) => type)).toEqual(["ok", "ok"]);
}

it("ends when the grant that it reads under expires, and both tenants have a record of it", async () => {
  const grant = await hospitals.grant({ expiration: Duration.minutes(30) });
  const bearer = await token(READER, grant.id);
  const readings = [await overHttp(bearer), await overWebSocket(bearer)];
  clock.move(HOUR_US);
  for (const reading of readings) {
    expectCutOff(await reading.rest(), ["grant_expired"]);
    expect(reading.heard.join("")).not.toContain(HIDDEN);
  }
  for (const tenant of [OWNER, READER]) {
    const uses = await Array.fromAsync(hospitals.db.audit(tenant, { action: "grant.use" }));
    expect(uses.at(-1)).toMatchObject({ outcome: "refused", code: "grant_expired" });
  }
  await expectServing();
});

it("ends when the tenant is erased that it reads, be it its own or one that shares", async () => {
  const grant = await hospitals.grant();
  const shared = await token(READER, grant.id);
  const readings = [await overHttp(shared), await overWebSocket(shared)];
  const own = await token(OWNER);
  const ownReadings = [await overHttp(own), await overWebSocket(own)];
  await hospitals.db.eraseTenant(OWNER, { reason: "the contract has ended", actor: "dpo" });
  for (const reading of readings) {
    expectCutOff(await reading.rest(), ["grant_ended", "grant_unavailable"]);
    expect(reading.heard.join("")).not.toContain(HIDDEN);
  }
  for (const reading of ownReadings) expectCutOff(await reading.rest(), ENDS_OF_ERASURE);
  const { scratch } = hospitals;
  for (const left of [scratch.path("tenants", "1"), scratch.keys(OWNER)])
    expect(existsSync(left)).toBe(false);
  await expectServing();
});
