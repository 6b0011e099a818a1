/** Audit streams over HTTP: in pages, live, as OCSF; to who may, for as long as they may, whether or not they read. */
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import type { AuditEntry } from "../../src/audit/audit-event.ts";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { type Api, apiOf } from "./api.ts";
import { openSocket } from "./raw.ts";
import { type Served, startServed } from "./served.ts";

const A = TenantId(1);
let served: Served;
let token: string;
let admin: Api;

beforeAll(async () => {
  served = await startServed({ authenticate: "really" });
  await served.db.createTenant({ id: A, name: "A" });
  token = (await served.db.createApiKey(A, { role: "admin" })).token;
  admin = apiOf(served, token);
  for (const n of [1, 2, 3, 4, 5]) await hold(n);
});

afterAll(async () => served[Symbol.asyncDispose]());

async function hold(n: number): Promise<void> {
  await served.db.placeLegalHold(A, { name: `case ${n}`, reason: `reason ${n}`, actor: "counsel" });
}

interface Tail {
  readonly status: number;
  /** Ids of events so far. */
  readonly ids: number[];
  readonly actions: string[];
  readonly ended: Promise<void>;
  stop(): void;
}

async function follow(query: string, given = token, headers: Record<string, string> = {}): Promise<Tail> {
  const stopper = new AbortController();
  const response = await fetch(`${served.url}/v1/tenants/1/audit/tail${query}`, {
    headers: { authorization: `Bearer ${given}`, ...headers },
    signal: stopper.signal,
  });
  const [ids, actions]: [number[], string[]] = [[], []];
  const read = async (): Promise<void> => {
    const decoder = new TextDecoder();
    let text = "";
    for await (const piece of response.body ?? []) {
      text += decoder.decode(piece as Uint8Array, { stream: true });
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const [, id, data] = /^id: (\d+)\nevent: audit\ndata: (.*)$/.exec(text.slice(0, end)) ?? [];
        text = text.slice(end + 2);
        if (id === undefined) continue;
        ids.push(Number(id));
        actions.push((JSON.parse(data ?? "") as AuditEntry).action);
      }
    }
  };
  return {
    status: response.status,
    ids,
    actions,
    ended: read().catch(() => undefined),
    stop: () => stopper.abort(),
  };
}

it("come in pages without a gap or a repetition, also of one action", async () => {
  const all: AuditEntry[] = [];
  for (let path: string | undefined = "/v1/tenants/1/audit?limit=2&action=hold.place"; path !== undefined; ) {
    const page = await admin("GET", path);
    all.push(...(page.body["items"] as AuditEntry[]));
    path = /^<(.*)>; rel="next"$/.exec(page.headers.get("link") ?? "")?.[1];
  }
  expect(all.map(({ reason }) => reason)).toEqual([1, 2, 3, 4, 5].map((n) => `reason ${n}`));
  for (const query of [
    "cursor=x",
    "limit=0",
    "limit=1001",
    "action=%27",
    "action=a.b.c",
    "from=-1",
    "from=1e3",
  ]) {
    expect((await admin("GET", `/v1/tenants/1/audit?${query}`)).body.code, query).toBe("invalid_argument");
  }
});

it("come live, go on behind the last one that was had, and end with the credential", async () => {
  const brief = await served.db.createApiKey(A, { role: "admin" });
  const first = await follow("?action=hold.place", brief.token);
  await expect.poll(() => first.ids.length).toBe(5);
  await hold(6);
  await expect.poll(() => first.ids.length).toBe(6);
  expect(new Set(first.actions)).toEqual(new Set(["hold.place"]));
  const resumed = await follow("", token, { "last-event-id": String(first.ids.at(-2)) });
  await expect.poll(() => resumed.ids.length).toBeGreaterThan(0);
  expect(resumed.ids[0]).toBe(Number(first.ids.at(-2)) + 1);
  await served.db.revokeApiKey(A, brief.key.id);
  await first.ended;
  expect((await follow("", brief.token)).status).toBe(401);
  await expect.poll(() => resumed.actions).toContain("token.revoke");
  resumed.stop();
  await resumed.ended;
});

it("are looked at once, also for who waits for what does not come", async () => {
  const asked: bigint[] = [];
  const audit = served.db.audit.bind(served.db);
  const spy = vi.spyOn(served.db, "audit").mockImplementation((id, range) => {
    asked.push(BigInt(range?.from ?? 0n));
    return audit(id, range);
  });
  const tail = await follow("?action=tenant.erase");
  await expect.poll(() => asked.length).toBeGreaterThan(2);
  tail.stop();
  await tail.ended;
  spy.mockRestore();
  expect(asked[0]).toBe(0n);
  expect(asked.at(-1)).toBeGreaterThan(5n);
});

it.each(["audit/tail", "audit/ocsf"])(
  "%s makes no more than is read, and ends with its connection",
  async (path) => {
    let made = 0;
    let open = 0;
    const entry: AuditEntry = {
      ...{ offset: 0n, logOffset: 0n, timeUs: 0n },
      ...{ action: "hold.place", outcome: "done", actor: "x", reason: "r".repeat(1_000) },
    };
    const spy = vi.spyOn(served.db, "audit").mockImplementation(async function* () {
      open += 1;
      try {
        for (;;) {
          made += 1;
          yield { ...entry, offset: BigInt(made) };
        }
      } finally {
        open -= 1;
      }
    });
    const socket = await openSocket(served);
    socket.on("error", () => undefined);
    socket.pause();
    socket.write(`GET /v1/tenants/1/${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`);
    let before = -1;
    await expect
      .poll(
        () => {
          const still = made === before && made > 100;
          before = made;
          return still;
        },
        { interval: 300 },
      )
      .toBe(true);
    // What the kernel holds, and little more.
    expect(made).toBeLessThan(20_000);
    socket.destroy();
    await expect.poll(() => open).toBe(0);
    spy.mockRestore();
  },
);

it("refuses a tail that cannot be, before it begins", async () => {
  const refusal = async (query: string, headers = {}): Promise<unknown> =>
    (await admin("GET", `/v1/tenants/1/audit/tail${query}`, undefined, headers)).body.code;
  expect(await refusal("?nothing=1")).toBe("invalid_argument");
  expect(await refusal("?from=99999999999999999999")).toBe("invalid_argument");
  expect(await refusal("", { "last-event-id": "9999999999999999999" })).toBe("invalid_argument");
});

it("ends live reads, and connections that wait, when the server goes down", async () => {
  const tails = await Promise.all([follow(""), follow("?from=2")]);
  const idle = await openSocket(served);
  idle.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  await new Promise((resolve) => idle.once("data", resolve));
  const silent = await openSocket(served);
  const began = performance.now();
  await served.server.close();
  expect(performance.now() - began).toBeLessThan(5_000);
  await Promise.all(tails.map(({ ended }) => ended));
  for (const socket of [idle, silent]) socket.destroy();
});
