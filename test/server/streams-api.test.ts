/** Event streams over HTTP: exact, once, in pages, live; by the tenant alone, and nothing of the system's streams. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { KimberliteClient } from "../../src/client/index.ts";
import { Duration, Permissions } from "../../src/index.ts";
import { StreamId, TenantId } from "../../src/tenant/tenant-id.ts";
import { type Api, apiOf } from "./api.ts";
import { type Served, startServed } from "./served.ts";

const A = TenantId(1);
const B = TenantId(2);
let served: Served;
let admin: Api;
let writer: Api;
let reader: Api;
let operator: Api;
let visits = "";

beforeAll(async () => {
  served = await startServed();
  operator = apiOf(served, "operator");
  [admin, writer, reader] = ["admin", "writer", "reader"].map((role) => apiOf(served, `1:${role}`)) as [
    Api,
    Api,
    Api,
  ];
  for (const id of ["1", "2"]) await operator("POST", "/v1/tenants", { id, name: `Hospital ${id}` });
  const made = await admin("POST", "/v1/tenants/1/streams", { name: "visits" });
  expect(made).toMatchObject({ status: 201, body: { kind: "events", name: "visits" } });
  visits = `/v1/tenants/1/streams/${(made.body.id as { local: number }).local}`;
});
afterAll(async () => served[Symbol.asyncDispose]());

const events = async (query = ""): Promise<Record<string, unknown>[]> =>
  (await reader("GET", `${visits}/events${query}`)).body.items as Record<string, unknown>[];
const sizeOfLog = async (): Promise<bigint> => (await served.db.describeTenant(A)).size;

describe("appending", () => {
  it("gives back what was given, in order, with who did it", async () => {
    const given = [{ ward: "B2", beds: [1, 2.5, null, true], note: "ä\u0000\u2028" }, "text", 7, []];
    const done = await writer("POST", `${visits}/events`, { events: given, expectedOffset: "0" });
    expect(done).toMatchObject({ status: 201, body: { offset: "0", count: 4 } });
    const items = await events();
    expect(items.map(({ data }) => data)).toEqual(given);
    expect(items.map(({ offset, kind, actor }) => [offset, kind, actor])).toEqual(
      given.map((_, index) => [String(index), "event", "writer of 1"]),
    );
    expect(items.every((item) => item["cbor"] === undefined)).toBe(true);
  });

  it("holds the expected offset against the stream, also of two at once", async () => {
    const append = () => writer("POST", `${visits}/events`, { events: ["mine"], expectedOffset: "4" });
    const both = await Promise.all([append(), append()]);
    expect(both.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([201, 409]);
    const late = both.find(({ status }) => status === 409);
    expect(late?.body).toMatchObject({ code: "offset_conflict", data: { expected: "4", actual: "5" } });
    expect(await events("?from=4")).toHaveLength(1);
  });

  it("is done once for one key, also after a restart, and refused for other events under it", async () => {
    const key = { "idempotency-key": '"visit-17"' };
    const body = { events: [{ patient: 17 }] };
    const [first, second] = await Promise.all(
      [1, 2].map(() => writer("POST", `${visits}/events`, body, key)),
    );
    expect(first?.body).toEqual(second?.body);
    const before = await sizeOfLog();
    // What the node has after a restart: the log alone, and nothing that was answered.
    const anew = await served.db.append(A, StreamId(A, Number(visits.split("/").at(-1))), body.events, {
      idempotencyKey: "visit-17",
    });
    expect(anew.offset.toString()).toBe(first?.body["offset"]);
    const other = await apiOf(served, "1:admin")("POST", `${visits}/events`, { events: ["other"] }, key);
    expect(other.body.code).toBe("idempotency_conflict");
    expect(await sizeOfLog()).toBe(before);
  });

  it("takes nothing that would be rounded, is no event, or is for no stream", async () => {
    const before = await sizeOfLog();
    const post = (body: unknown, path = visits) => writer("POST", `${path}/events`, body);
    const refused = await Promise.all([
      post({ events: [{ n: 2 ** 53 }] }),
      post({ events: [[[-(2 ** 60)]]] }),
      post({ events: [] }),
      post({ events: "x" }),
      post({ events: Array.from({ length: 10_001 }, () => 1) }),
      post({ events: ["\ud800"] }),
      post({ events: [1], expectedOffset: -1 }),
      post({ events: [1], extra: 1 }),
      post({ events: [1] }, "/v1/tenants/1/streams/0"),
      post({ events: [1] }, "/v1/tenants/1/streams/99999999999"),
      post({ events: [1] }, "/v1/tenants/1/streams/visits"),
    ]);
    expect(refused.map(({ body }) => body.code)).toEqual(refused.map(() => "invalid_argument"));
    expect((await post({ events: [1] }, "/v1/tenants/1/streams/visits")).body.detail).toBe(
      "params.stream must be a stream's number, which the list of streams has as `id.local`",
    );
    expect((await post({ events: [1] }, "/v1/tenants/1/streams/4040")).body.code).toBe("stream_not_found");
    expect((await post({ events: [1] }, "/v1/tenants/1/streams/1")).body.code).toBe("not_authorized");
    expect(await sizeOfLog()).toBe(before);
    expect((await admin("POST", "/v1/tenants/1/streams", { name: "visits" })).body.code).toBe(
      "stream_exists",
    );
  });
});

describe("reading", () => {
  it("goes page by page, each bounded in bytes whatever its events are", async () => {
    const { body } = await admin("POST", "/v1/tenants/1/streams", { name: "large" });
    const stream = `/v1/tenants/1/streams/${(body["id"] as { local: number }).local}`;
    const large = "x".repeat(1_500_000);
    for (let turn = 0; turn < 5; turn += 1) await writer("POST", `${stream}/events`, { events: [large] });
    const pages: number[] = [];
    for (let query: string | undefined = ""; query !== undefined; ) {
      const page = await reader("GET", `${stream}/events${query}`);
      pages.push((page.body.items as unknown[]).length);
      const { next } = page.body as { readonly next?: string };
      query = next === undefined ? undefined : `?cursor=${next}`;
    }
    expect(pages).toEqual([3, 2]);
    expect((await reader("GET", `${stream}/events?limit=1&from=4`)).body).toMatchObject({
      items: [{ offset: "4" }],
    });
    expect((await reader("GET", `${stream}/events?from=400`)).body).toEqual({ items: [] });
    expect((await reader("GET", `${stream}/events?cursor=AAAA`)).body.code).toBe("invalid_argument");
  });

  it("gives what JSON does not hold exactly, beside what it does", async () => {
    const stream = await served.db.createStream(A, "exact");
    await served.db.append(A, stream, [{ n: 2n ** 60n, bytes: new Uint8Array([1, 2]) }]);
    const { body } = await reader("GET", `/v1/tenants/1/streams/${stream.local}/events`);
    const [item] = body.items as Record<string, unknown>[];
    expect(item?.["data"]).toEqual({ n: "1152921504606846976", bytes: "AQI=" });
    // RFC 8949: a map of two; "n" is 0x1b and eight bytes, "bytes" 0x42 and two.
    expect(Buffer.from(String(item?.["cbor"]), "base64").toString("hex")).toContain("616e1b1000000000000000");
  });

  it("a table's stream has the changes of its rows, with typed values", async () => {
    await served.db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    await served.db.execute(A, "INSERT INTO t VALUES (1, 9007199254740993)");
    await served.db.execute(A, "UPDATE t SET v = x'00ff' WHERE id = 1");
    const { items } = (await reader("GET", "/v1/tenants/1/streams")).body as {
      items: { id: { local: number }; name: string }[];
    };
    const local = items.find(({ name }) => name === "t")?.id.local;
    const changes = (await reader("GET", `/v1/tenants/1/streams/${local}/events`)).body.items;
    const big = { type: "integer", value: "9007199254740993" };
    expect(changes).toMatchObject([
      { kind: "insert", before: null, after: [{ type: "integer", value: "1" }, big] },
      { kind: "update", before: [{}, big], after: [{}, { type: "blob", base64: "AP8=" }] },
    ]);
  });
});

describe("who may", () => {
  it("a reader reads, a writer appends, an admin makes; nobody of another tenant does anything", async () => {
    const before = await sizeOfLog();
    const codes = async (api: Api): Promise<unknown[]> => [
      (await api("POST", "/v1/tenants/1/streams", { name: "theirs" })).body.code,
      (await api("POST", `${visits}/events`, { events: [1] })).body.code,
      (await api("GET", `${visits}/events`)).body.code,
      (await api("GET", `${visits}/tail`)).body.code,
    ];
    const no = "not_authorized";
    expect(await codes(operator)).toEqual([no, no, no, no]);
    expect(await codes(apiOf(served, "2:admin"))).toEqual([no, no, no, no]);
    expect((await reader("POST", "/v1/tenants/1/streams", { name: "theirs" })).body.code).toBe(no);
    expect((await reader("POST", `${visits}/events`, { events: [1] })).body.code).toBe(no);
    expect((await writer("POST", "/v1/tenants/1/streams", { name: "theirs" })).body.code).toBe(no);
    expect(await sizeOfLog()).toBe(before);
  });

  it("the audit stream and that of grants are no streams to read here, for no role", async () => {
    await admin("POST", "/v1/tenants/1/keys/rotations", { key: "dek" });
    const { items } = (await reader("GET", "/v1/tenants/1/streams")).body as {
      items: { id: { local: number }; name: string }[];
    };
    const system = items.filter(({ name }) => name === "audit" || name === "grants");
    expect(system).not.toEqual([]);
    for (const { id } of system) {
      for (const api of [reader, admin]) {
        for (const path of ["events", "tail"]) {
          const answer = await api("GET", `/v1/tenants/1/streams/${id.local}/${path}`);
          expect(answer.body.code, path).toBe("not_authorized");
        }
      }
    }
  });

  it("a stream of another tenant is not there, whoever's number it is", async () => {
    const theirs = await served.db.createStream(B, "theirs");
    const probe = StreamId(A, theirs.local + 1_000);
    const answer = await reader("GET", `/v1/tenants/1/streams/${probe.local}/events`);
    expect(answer.body.code).toBe("stream_not_found");
  });
});

describe("following", () => {
  it("sends what is there and what comes, goes on after an event, and no event twice", async () => {
    const client = new KimberliteClient({ url: served.url, token: "1:reader" });
    const stream = await served.db.createStream(A, "live");
    await served.db.append(A, stream, ["first"]);
    const end = new AbortController();
    const params = { tenant: "1", stream: String(stream.local) };
    const seen: unknown[] = [];
    const following = (async () => {
      for await (const item of client.stream("streams.tail", { params }, { signal: end.signal })) {
        seen.push(item["data"]);
      }
    })().catch((error: unknown) => error);
    await expect.poll(() => seen).toEqual(["first"]);
    await served.db.append(A, stream, ["second", "third"]);
    await expect.poll(() => seen).toEqual(["first", "second", "third"]);
    end.abort();
    await following;

    const resumed = await tailOnce(`/v1/tenants/1/streams/${stream.local}/tail`, { "last-event-id": "1" });
    expect(resumed).toContain("id: 2\ndata: ");
    expect(resumed).not.toContain("id: 1\n");
    const none = await reader("GET", "/v1/tenants/1/streams/4040/tail");
    expect(none.body.code).toBe("stream_not_found");
  });

  it("ends when the tenant is suspended or erased under it, and does not keep it open", async () => {
    const stream = await served.db.createStream(B, "doomed");
    const response = await fetch(`${served.url}/v1/tenants/2/streams/${stream.local}/tail`, {
      headers: { authorization: "Bearer 2:reader" },
    });
    const rest = drained(response);
    await served.db.eraseTenant(B, { reason: "over" });
    await rest;
    expect((await apiOf(served, "2:reader")("GET", "/v1/tenants/2/streams")).body.code).toBe("tenant_erased");
  });

  it("a credential that is revoked reads no more of it, though nothing comes", async () => {
    await using real = await startServed({ authenticate: "really" });
    await real.db.createTenant({ id: A, name: "A" });
    const stream = await real.db.createStream(A, "live");
    const { token, key } = await real.db.createApiKey(A, { role: "reader" });
    const response = await fetch(`${real.url}/v1/tenants/1/streams/${stream.local}/tail`, {
      headers: { authorization: `Bearer ${token}` },
    });
    const rest = drained(response);
    await real.db.revokeApiKey(A, key.id);
    await real.db.append(A, stream, ["SECRET-after"]);
    expect(await rest).not.toContain("SECRET-after");
  });
});

describe("shared event streams", () => {
  it("are read by the grant that is named, in pages, and by no other; both tenants have it on record", async () => {
    const C = TenantId(3);
    await served.db.createTenant({ id: C, name: "C" });
    const stream = await served.db.createStream(A, "shared");
    await served.db.append(A, stream, ["one", "two", "three"]);
    const grant = await served.db.grantAccess({
      fromTenant: A,
      toTenant: C,
      stream,
      permissions: Permissions.Read,
      purpose: "study",
      expiration: Duration.days(1),
    });
    const theirs = apiOf(served, "3:reader");
    const path = `/v1/tenants/3/shared/events?grant=${grant.id}`;
    const first = await theirs("GET", `${path}&limit=2`);
    expect((first.body.items as { data: unknown }[]).map(({ data }) => data)).toEqual(["one", "two"]);
    const rest = await theirs("GET", `${path}&limit=2&cursor=${String(first.body["next"])}`);
    expect(rest.body).toMatchObject({ items: [{ offset: "2", data: "three" }] });
    for (const tenant of [A, C]) {
      const uses = await Array.fromAsync(served.db.audit(tenant, { action: "grant.use" }));
      expect(uses.length).toBeGreaterThan(0);
      expect(uses[0]?.correlationId).toBe(first.headers.get("x-request-id"));
    }
    // The owner does not read by it, and a stranger's grant is none.
    expect((await reader("GET", path.replace("/3/", "/1/"))).body.code).toBe("grant_not_found");
    expect((await operator("GET", path)).body.code).toBe("not_authorized");
    await served.db.revokeAccess(grant.id, { reason: "over" });
    expect((await theirs("GET", path)).body.code).toBe("grant_revoked");
  });
});

/** The first event of a tail. */
async function tailOnce(path: string, headers: Record<string, string>): Promise<string> {
  const end = new AbortController();
  const response = await fetch(`${served.url}${path}`, {
    headers: { authorization: "Bearer 1:reader", ...headers },
    signal: end.signal,
  });
  let text = "";
  for await (const piece of response.body ?? []) {
    text += Buffer.from(piece).toString();
    if (text.includes("data: ")) break;
  }
  end.abort();
  return text;
}

/** All that comes until the connection ends, however it does. */
async function drained(response: Response): Promise<string> {
  let text = "";
  try {
    for await (const piece of response.body ?? []) text += Buffer.from(piece).toString();
  } catch {
    // Ended in the middle.
  }
  return text;
}
