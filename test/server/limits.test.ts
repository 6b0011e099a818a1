/** Quotas and limits as a client meets them: headers that say when to come again, totals that hold over connections. */
import { expect, it } from "vitest";
import { kimberliteError } from "../../src/errors.ts";
import { rateLimitHeaders } from "../../src/quota/rate-limit-headers.ts";
import { decideCuts, type Waiting } from "../../src/server/connections.ts";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { apiOf } from "./api.ts";
import { openSocket } from "./raw.ts";
import { startServed, tokensThatSay } from "./served.ts";

it("a rate that is spent answers 429 with the headers of the draft, and the total holds over connections", async () => {
  await using served = await startServed();
  const operator = apiOf(served, "operator");
  await operator("POST", "/v1/tenants", { id: "1", name: "A", quota: { maxOpsPerSec: 1, burstOps: 20 } });
  const reader = apiOf(served, "1:reader");
  const began = performance.now();
  const answers = [];
  for (let round = 0; round < 10; round += 1) {
    answers.push(
      ...(await Promise.all(Array.from({ length: 8 }, () => reader("GET", "/v1/tenants/1/streams")))),
    );
  }
  const seconds = (performance.now() - began) / 1_000;
  const served200 = answers.filter(({ status }) => status === 200).length;
  expect(served200).toBeGreaterThanOrEqual(20);
  expect(served200).toBeLessThanOrEqual(21 + Math.ceil(seconds));
  const refused = answers.find(({ status }) => status === 429);
  expect(refused?.body.code).toBe("rate_limited");
  expect(refused?.headers.get("retry-after")).toBe("1");
  expect(refused?.headers.get("ratelimit")).toBe('"maxOpsPerSec";r=0;t=1');
  expect(refused?.headers.get("ratelimit-policy")).toBe('"maxOpsPerSec";q=1;w=1');
});

it("a quota of concurrency says so, and one of storage does not say to come again", () => {
  const error = (policy: string): ReturnType<typeof kimberliteError> =>
    kimberliteError("quota_exceeded", "x", { detail: { policy, limit: 5 } });
  expect(rateLimitHeaders(error("maxConcurrentOps"))).toEqual({
    "retry-after": "1",
    ratelimit: '"maxConcurrentOps";r=0',
    "ratelimit-policy": '"maxConcurrentOps";q=5;qu="concurrent-requests"',
  });
  expect(rateLimitHeaders(error("maxLogBytes"))).toEqual({
    "ratelimit-policy": '"maxLogBytes";q=5;qu="content-bytes"',
  });
  expect(rateLimitHeaders(error("credentials"))).toEqual({});
  expect(rateLimitHeaders(kimberliteError("invalid_sql", "x"))).toEqual({});
});

it("one tenant's requests under way are bounded, and another's are let in meanwhile", async () => {
  await using served = await startServed({
    settings: { port: 0, limits: { maxAdminRequestsPerTenant: 2, maxTailsPerTenant: 2 } },
  });
  const operator = apiOf(served, "operator");
  await operator("POST", "/v1/tenants", { id: "1", name: "A" });
  await operator("POST", "/v1/tenants", { id: "2", name: "B" });
  const [admin, other] = [apiOf(served, "1:admin"), apiOf(served, "2:admin")];
  const follow = () =>
    fetch(`${served.url}/v1/tenants/1/audit/tail`, { headers: { authorization: "Bearer 1:admin" } });
  const tails = await Promise.all([follow(), follow()]);
  const third = await follow();
  expect(third.status).toBe(429);
  expect(third.headers.get("retry-after")).toBe("1");
  // Who follows keeps nobody from the rest.
  expect((await admin("GET", "/v1/tenants/1")).status).toBe(200);
  for (const tail of tails) await tail.body?.cancel();
  await expect.poll(async () => (await follow()).status).toBe(200);

  // Let in, and their bodies do not come.
  const head = "POST /v1/tenants/1/verify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 1:admin\r\n";
  const sockets = await Promise.all([openSocket(served), openSocket(served)]);
  for (const socket of sockets) {
    socket.write(`${head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n`);
  }
  await expect.poll(async () => (await admin("GET", "/v1/tenants/1")).status).toBe(429);
  expect((await other("GET", "/v1/tenants/2")).status).toBe(200);
  for (const socket of sockets) socket.destroy();
  await expect.poll(async () => (await admin("GET", "/v1/tenants/1")).status).toBe(200);
});

it("connections of one tenant are bounded, and all of them together are told to come again", async () => {
  await using served = await startServed({
    settings: { port: 0, limits: { maxConnectionsPerTenant: 3, maxConnections: 6 } },
  });
  const ask = async (token: string): Promise<string> => {
    const socket = await openSocket(served);
    sockets.push(socket);
    socket.write(`GET /v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`);
    const [bytes] = (await new Promise((resolve) =>
      socket.once("data", (data: Buffer) => resolve([data])),
    )) as [Buffer];
    return bytes.toString("latin1").slice(9, 12);
  };
  const sockets: Awaited<ReturnType<typeof openSocket>>[] = [];
  for (let open = 0; open < 3; open += 1) expect(await ask("1:reader")).toBe("200");
  expect(await ask("1:reader")).toBe("429");
  expect(await ask("2:reader")).toBe("200");
  expect(await ask("2:reader")).toBe("200");
  // In the place of the one that was refused.
  expect(await ask("2:reader")).toBe("200");
  expect(await ask("3:reader")).toBe("503");
  for (const socket of sockets) socket.destroy();
  await expect.poll(() => ask("1:reader")).toBe("200");
  for (const socket of sockets) socket.destroy();
});

it("a node past what it can serve turns requests away, and answers health checks", async () => {
  await using served = await startServed({ settings: { port: 0, limits: { maxHeapBytes: 1 } } });
  await expect.poll(async () => (await fetch(`${served.url}/v1/whoami`)).status).toBe(503);
  const refused = await fetch(`${served.url}/v1/whoami`);
  expect(refused.headers.get("retry-after")).toBe("1");
  expect(await refused.json()).toMatchObject({ code: "overloaded" });
  expect((await fetch(`${served.url}/healthz`)).status).toBe(200);
});

it("a tenant that is over its rate can still be described, suspended and erased", async () => {
  await using served = await startServed();
  const operator = apiOf(served, "operator");
  await operator("POST", "/v1/tenants", { id: "1", name: "A", quota: { maxOpsPerSec: 1 } });
  await served.db.query(TenantId(1), "SELECT 1");
  expect((await operator("GET", "/v1/tenants/1")).status).toBe(200);
  expect((await operator("POST", "/v1/tenants/1/suspend")).status).toBe(200);
});

it("what ended before it was known whose it is takes no place: of connections, or of requests under way", async () => {
  const held: (() => void)[] = [];
  await using served = await startServed({
    settings: {
      port: 0,
      metrics: { open: true },
      limits: { maxConnections: 8, maxConnectionsPerTenant: 3, maxAdminRequestsPerTenant: 2 },
    },
    authenticator: {
      ...tokensThatSay,
      authenticate: async (bearer, origin) => {
        // As where the keys of a token's issuer are fetched.
        if (bearer === "1:admin") await new Promise<void>((resolve) => held.push(resolve));
        return tokensThatSay.authenticate(bearer, origin);
      },
    },
  });
  await apiOf(served, "operator")("POST", "/v1/tenants", { id: "1", name: "A" });
  const connections = async (): Promise<number> => {
    const text = await (await fetch(`${served.url}/metrics`)).text();
    return Number(/^kimberlite_connections (\d+)$/m.exec(text)?.[1]);
  };
  for (let round = 0; round < 4; round += 1) {
    const sockets = await Promise.all(Array.from({ length: 5 }, () => openSocket(served)));
    for (const socket of sockets) {
      socket.write("GET /v1/tenants/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 1:admin\r\n\r\n");
    }
    await expect.poll(() => held.length).toBe(5);
    for (const socket of sockets) socket.destroy();
    await expect.poll(connections).toBeLessThan(4);
    for (const go of held.splice(0)) go();
  }
  expect(await connections()).toBeLessThan(4);
  for (let n = 0; n < 4; n += 1) {
    expect((await apiOf(served, "1:reader")("GET", "/v1/tenants/1")).status).toBe(200);
  }
});

it("requests in line behind one that streams leave their places when the connection ends", async () => {
  await using served = await startServed();
  await apiOf(served, "operator")("POST", "/v1/tenants", { id: "1", name: "A" });
  const ask = (path: string): string =>
    `GET /v1/tenants/1${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 1:admin\r\n\r\n`;
  for (let round = 0; round < 3; round += 1) {
    const socket = await openSocket(served);
    const begun = new Promise((resolve) => socket.once("data", resolve));
    socket.write(`${ask("/audit/tail")}${ask("").repeat(8)}`);
    await begun;
    expect((await apiOf(served, "1:admin")("GET", "/v1/tenants/1")).status).toBe(429);
    socket.destroy();
    await expect.poll(async () => (await apiOf(served, "1:admin")("GET", "/v1/tenants/1")).status).toBe(200);
  }
});

it("a connection that waits for its answer is not silent", async () => {
  await using served = await startServed({
    settings: { port: 0, limits: { idleTimeoutMs: 300, keepAliveTimeoutMs: 300 } },
    register: (app) => {
      app.get("/slow", async () => {
        await new Promise((resolve) => setTimeout(resolve, 1_200));
        return { done: true };
      });
    },
  });
  expect(await (await fetch(`${served.url}/slow`)).json()).toEqual({ done: true });
  const socket = await openSocket(served);
  const began = performance.now();
  socket.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  socket.resume();
  await new Promise((resolve) => socket.once("end", resolve).once("close", resolve));
  expect(performance.now() - began).toBeLessThan(5_000);
  socket.destroy();
});

it("a node whose event loop lags turns requests away, and takes them again when it does not", async () => {
  await using served = await startServed({ settings: { port: 0, limits: { maxEventLoopDelayMs: 100 } } });
  const ask = async (): Promise<number> => (await fetch(`${served.url}/v1/verifier-key`)).status;
  expect(await ask()).toBe(401);
  const lag = setInterval(() => {
    const end = performance.now() + 500;
    while (performance.now() < end);
  }, 50);
  await expect.poll(ask, { interval: 10 }).toBe(503);
  expect((await fetch(`${served.url}/healthz`)).status).toBe(200);
  clearInterval(lag);
  await expect.poll(ask).toBe(401);
});

it("what waits for clients that do not read is bounded for each tenant, and costs no other a connection", async () => {
  const big = Buffer.alloc(32 * 2 ** 20, "x");
  await using served = await startServed({
    settings: { port: 0, metrics: { open: true }, limits: { maxUnreadBytesPerTenant: 40 * 2 ** 20 } },
    register: (app, host) => {
      app.get("/big", async (request, reply) => {
        const bearer = request.headers.authorization?.replace(/^Bearer /, "");
        const origin = { remoteAddress: request.ip, requestId: request.id };
        host.holdConnection(await host.authenticate(bearer, origin), request.raw.socket);
        return reply.type("text/plain").send(big);
      });
    },
  });
  const ask = async (token: string): Promise<Awaited<ReturnType<typeof openSocket>>> => {
    const socket = await openSocket(served);
    socket.on("error", () => undefined);
    socket.pause();
    socket.write(`GET /big HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n\r\n`);
    return socket;
  };
  const other = await ask("2:reader");
  const held = await Promise.all(Array.from({ length: 8 }, () => ask("1:reader")));
  const connections = async (): Promise<number> => {
    const text = await (await fetch(`${served.url}/metrics`)).text();
    return Number(/^kimberlite_connections (\d+)$/m.exec(text)?.[1]);
  };
  // The other's, the one that asks, and of eight as many as fit.
  await expect.poll(connections).toBeLessThanOrEqual(4);
  let bytes = 0;
  other.on("data", (piece: Buffer) => {
    bytes += piece.length;
  });
  other.resume();
  await expect.poll(() => bytes).toBeGreaterThan(big.length);
  for (const socket of [...held, other]) socket.destroy();
});

it("those are closed first that took nothing, and of them those for which the most waits", () => {
  const connection = (bytes: number, of: bigint, stalled: boolean): Waiting => ({
    socket: { destroyed: false, writableLength: bytes, once: () => undefined, destroy: () => undefined },
    bytes,
    stalled,
    of: new Set([of]),
  });
  const [reads, small, large] = [
    connection(90, 1n, false),
    connection(20, 1n, true),
    connection(50, 1n, true),
  ];
  const other = connection(70, 2n, true);
  const cut = (perTenant: number, inAll: number): number[] =>
    decideCuts([reads, small, large, other], { perTenant, inAll }).map(
      ({ writableLength }) => writableLength,
    );
  expect(cut(1_000, 1_000)).toEqual([]);
  expect(cut(120, 1_000)).toEqual([50]);
  expect(cut(100, 1_000)).toEqual([50, 20]);
  expect(cut(80, 1_000)).toEqual([50, 20, 90]);
  expect(cut(1_000, 200)).toEqual([70]);
});

it("connections of nobody's keep out nobody, however many there are", async () => {
  await using served = await startServed({ settings: { port: 0, limits: { maxConnections: 6 } } });
  const ask = async (socket: Awaited<ReturnType<typeof openSocket>>, bearer: string): Promise<string> => {
    socket.write(`GET /v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${bearer}\r\n\r\n`);
    return new Promise((resolve) => {
      socket.once("data", (data: Buffer) => resolve(data.toString("latin1").slice(9, 12)));
      socket.once("close", () => resolve("closed"));
    });
  };
  const early = await openSocket(served);
  expect(await ask(early, "1:reader")).toBe("200");
  const held = [];
  for (let n = 0; n < 30; n += 1) {
    const socket = await openSocket(served);
    socket.on("error", () => undefined).resume();
    held.push(socket);
    // Some say nothing, the others something without a right to.
    if (n % 2 === 0) socket.write("GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n");
    const late = await openSocket(served);
    expect(await ask(late, "2:reader"), `after ${n}`).toBe("200");
    late.destroy();
  }
  expect(await ask(early, "1:reader")).toBe("200");
  for (const socket of [...held, early]) socket.destroy();
});
