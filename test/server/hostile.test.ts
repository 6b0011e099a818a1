/**
 * What an HTTP service on the open network is sent. Each gets a refusal with a code, or its connection is closed; none
 * stops the server, leaves anything behind, or changes a tenant.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { type Api, apiOf } from "./api.ts";
import { exchange, openSocket } from "./raw.ts";
import { type Served, startServed } from "./served.ts";

let served: Served;
let operator: Api;

beforeAll(async () => {
  served = await startServed({
    settings: {
      port: 0,
      limits: {
        maxBodyBytes: 2 ** 20,
        headersTimeoutMs: 700,
        requestTimeoutMs: 1_500,
        idleTimeoutMs: 2_500,
        maxRequestsPerConnection: 50,
      },
    },
  });
  operator = apiOf(served, "operator");
  await operator("POST", "/v1/tenants", { id: "1", name: "Hospital A" });
});

afterAll(async () => served[Symbol.asyncDispose]());

afterEach(async () => {
  expect((await fetch(`${served.url}/healthz`)).status).toBe(200);
  expect(await served.db.listTenants()).toHaveLength(1);
});

/** The codes of all problems in what came back. */
function codes(text: string): string[] {
  return [...text.matchAll(/"code":"(\w+)"/g)].map(([, code = ""]) => code);
}

function request(lines: readonly string[], body = ""): string {
  return `${["POST /v1/tenants HTTP/1.1", "Host: x", "Authorization: Bearer operator", ...lines].join("\r\n")}\r\n\r\n${body}`;
}

async function post(body: string | Uint8Array<ArrayBuffer>, type = "application/json"): Promise<string> {
  const response = await fetch(`${served.url}/v1/tenants`, {
    method: "POST",
    headers: { authorization: "Bearer operator", "content-type": type },
    body,
  });
  return ((await response.json()) as { code: string }).code;
}

describe("bodies", () => {
  it("are JSON in UTF-8, without a key twice, without a prototype's key, and not deep", async () => {
    const id = '"id":"5","name":"x"';
    expect(await post("")).toBe("invalid_argument");
    expect(await post("{")).toBe("invalid_argument");
    expect(await post("null")).toBe("invalid_argument");
    expect(await post("[]")).toBe("invalid_argument");
    expect(await post(`{${id},"name":"y"}`)).toBe("invalid_argument");
    expect(await post(`{${id},"n\\u0061me":"y"}`)).toBe("invalid_argument");
    expect(await post(`{${id},"__proto__":{"admin":true}}`)).toBe("invalid_argument");
    expect(await post(`{${id},"\\u005f_proto__":{}}`)).toBe("invalid_argument");
    expect(await post(`{${id},"constructor":{"prototype":{"x":1}}}`)).toBe("invalid_argument");
    expect(await post("[".repeat(100_000))).toBe("invalid_argument");
    expect(await post(`${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}`)).toBe("invalid_argument");
    expect(await post(`"${"\\\\".repeat(400_000)}`)).toBe("invalid_argument");
    expect(await post(Buffer.from(`{"id":"5","name":"\xff\xfe"}`, "latin1"))).toBe("invalid_argument");
    expect(await post(Buffer.from("\ufeff{}", "utf16le"))).toBe("invalid_argument");
    expect(({} as { admin?: boolean }).admin).toBeUndefined();
  });

  it("are looked through in time that grows with their length, also where a string in them has no end", async () => {
    const began = performance.now();
    for (const body of [
      `"${'\\"'.repeat(300_000)}`,
      `"${'\\"'.repeat(300_000)}\\`,
      `{"a":"${"\\\\".repeat(400_001)}`,
      `{${'"a'.repeat(300_001)}`,
    ]) {
      expect(await post(body)).toBe("invalid_argument");
    }
    expect(performance.now() - began).toBeLessThan(5_000);
  });

  it("are of the type that is served, and no larger than is taken", async () => {
    expect(await post("a=b", "application/x-www-form-urlencoded")).toBe("media_type_unsupported");
    expect(await post("{}", "text/plain")).toBe("media_type_unsupported");
    expect(await post("{}", 'application/json; charset="')).toMatch(
      /media_type_unsupported|invalid_argument/,
    );
    expect(await post(" ".repeat(2 ** 20 + 1))).toBe("request_too_large");
    const chunked = `${request(["Content-Type: application/json", "Transfer-Encoding: chunked"])}100001\r\n${" ".repeat(0x100001)}\r\n0\r\n\r\n`;
    expect(codes((await exchange(served, chunked)).text)).toEqual(["request_too_large"]);
  });

  it("that end early or never come are given up", async () => {
    const short = request(["Content-Type: application/json", "Content-Length: 100"], '{"id":');
    const halfClosed = await exchange(served, short, { end: true });
    expect(halfClosed.closed).toBe(true);
    const waiting = await exchange(served, short, { waitMs: 6_000 });
    expect(waiting.closed).toBe(true);
    expect(codes(waiting.text)).toEqual(["request_timeout"]);
  });
});

describe("connections", () => {
  it("whose headers drip in are closed", async () => {
    const socket = await openSocket(served);
    socket.on("error", () => undefined);
    const pieces: string[] = [];
    socket.on("data", (piece: Buffer) => pieces.push(piece.toString("latin1")));
    socket.write("GET /v1/node HTTP/1.1\r\nHost: x\r\n");
    const drip = setInterval(() => socket.write("X: y\r\n"), 200);
    const began = performance.now();
    await new Promise((resolve) => socket.once("close", resolve).once("end", resolve));
    clearInterval(drip);
    socket.destroy();
    expect(performance.now() - began).toBeLessThan(6_000);
    expect(codes(pieces.join(""))).toEqual(["request_timeout"]);
  });

  it("that say nothing, or no HTTP, are closed", async () => {
    expect((await exchange(served, "", { waitMs: 6_000 })).closed).toBe(true);
    for (const garbage of [
      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
      "hello\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
    ]) {
      const { text, closed } = await exchange(served, Buffer.from(garbage, "latin1"));
      expect(closed).toBe(true);
      expect(codes(text)).toEqual(["invalid_argument"]);
    }
  });

  it("that pipeline get their answers in order, up to the requests that one may have", async () => {
    const one = "GET /v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\n\r\n";
    const { text, closed } = await exchange(served, one.repeat(60));
    expect(text.match(/HTTP\/1\.1 200/g)).toHaveLength(50);
    expect(closed).toBe(true);
  });

  it("that send no HTTP after a request get the answer to that first, and never another's", async () => {
    const body = '{"id":"1","name":"y"}';
    const make = request(["Content-Type: application/json", `Content-Length: ${body.length}`], body);
    const { text, closed } = await exchange(served, `${make}garbage garbage\r\n\r\n`);
    expect(closed).toBe(true);
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 409", "HTTP/1.1 400"]);
    const late = `${make.replace(body, body.slice(0, 5))}`;
    const cut = await exchange(served, `GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n${late}`, {
      waitMs: 6_000,
    });
    expect(codes(cut.text)).toEqual(["unauthenticated", "request_timeout"]);
    const wrong = make.replace(/Content-Length.*\r\n\r\n/, "Transfer-Encoding: chunked\r\n\r\nZZ\r\n");
    expect(codes((await exchange(served, wrong)).text)).toEqual(["invalid_argument"]);
  });

  it("that do not read cost nothing without end", async () => {
    const socket = await openSocket(served);
    socket.on("error", () => undefined);
    socket.pause();
    const one = `GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n`;
    const before = process.memoryUsage.rss();
    const closed = new Promise((resolve) => socket.once("close", resolve));
    for (let sent = 0; sent < 2_000 && socket.writable; sent += 1) socket.write(one);
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 6_000))]);
    expect(process.memoryUsage.rss() - before).toBeLessThan(200 * 2 ** 20);
    socket.destroy();
  });
});

describe("requests", () => {
  it("do not smuggle another, nor a header", async () => {
    const both = request(
      ["Content-Type: application/json", "Content-Length: 4", "Transfer-Encoding: chunked"],
      "0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
    );
    const smuggled = await exchange(served, both);
    expect(smuggled.text).not.toContain('"status":"ok"');
    const injected = await exchange(served, request(["X-Request-Id: a\r\nSet-Cookie: b=c"], ""), {
      waitMs: 2_000,
    });
    expect(injected.text.toLowerCase()).not.toContain("set-cookie");
    const strange = await fetch(`${served.url}/v1/node`, { headers: { "x-request-id": "a b<script>" } });
    expect(strange.headers.get("x-request-id")).toMatch(/^[\w-]{16}$/);
    await strange.body?.cancel();
  });

  it("without a host, or with one or a credential twice, are refused; what is no request of ours too", async () => {
    const auth = "Authorization: Bearer operator\r\n";
    for (const [bytes, code] of [
      [`GET /v1/whoami HTTP/1.1\r\n${auth}\r\n`, "invalid_argument"],
      [`GET /v1/whoami HTTP/1.1\r\nHost: x\r\nHost: y\r\n${auth}\r\n`, "invalid_argument"],
      [
        `GET /v1/whoami HTTP/1.1\r\nHost: x\r\n${auth}authorization: Bearer 1:admin\r\n\r\n`,
        "invalid_argument",
      ],
      ["CONNECT example.com:80 HTTP/1.1\r\nHost: x\r\n\r\n", "method_not_allowed"],
      ["TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", "route_not_found"],
      ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "invalid_argument"],
      ["GET /v1/whoami HTTP/1.1\r\nHost: x\r\nExpect: magic\r\n\r\n", "unauthenticated"],
      [
        `${request(["Content-Type: application/json", "Content-Length: 99999999999999999999999"])}`,
        "invalid_argument",
      ],
      [`${request(["Content-Type: application/json", "Content-Length: -1"])}`, "invalid_argument"],
      [`${request(["Content-Type: application/json", "Transfer-Encoding: gzip"])}x`, "invalid_argument"],
    ] as const) {
      const { text } = await exchange(served, bytes, { waitMs: 500 });
      expect(codes(text), bytes).toEqual([code]);
    }
  });

  it("with headers past the limit are refused", async () => {
    const { text, closed } = await exchange(served, request([`X: ${"y".repeat(20_000)}`]));
    expect(closed).toBe(true);
    expect(codes(text)).toEqual(["request_too_large"]);
  });

  it("whose address leads elsewhere find nothing", async () => {
    for (const path of [
      "/v1/tenants/../../etc/passwd",
      "/v1/tenants/..%2f..%2fetc",
      "/v1/tenants/%2e%2e/audit",
      "/v1/tenants/1%00",
      "/v1/tenants/1%2faudit",
      "/v1/tenants/0",
      "/v1/tenants/-1",
      "/v1/tenants/1e3",
      "/v1/tenants/9223372036854775808",
      "/v1/tenants/01",
      "/v1/tenants/%ff",
      "/v1/tenants/１",
      `/v1/tenants/${"9".repeat(5_000)}`,
      "//v1/tenants/1",
    ]) {
      const { text } = await exchange(
        served,
        `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer operator\r\nConnection: close\r\n\r\n`,
      );
      expect(text, path).toMatch(/^HTTP\/1\.1 4\d\d/);
      expect(codes(text)[0], path).toMatch(/^(invalid_argument|route_not_found|request_too_large)$/);
    }
  });

  it("with a parameter twice, or one that is unknown, are refused", async () => {
    for (const query of [
      "limit=1&limit=2",
      "limit=0",
      "limit=1001",
      "limit=x",
      "cursor=%00",
      "cursor=AAAA",
      "x=1",
    ]) {
      expect((await operator("GET", `/v1/tenants?${query}`)).body.code, query).toBe("invalid_argument");
    }
  });

  it("with a credential in the wrong place, or no Bearer, are nobody's", async () => {
    for (const authorization of [
      "operator",
      "Basic operator",
      "Bearer",
      "Bearer a b",
      "Bearer operator, Bearer operator",
    ]) {
      const response = await fetch(`${served.url}/v1/node`, { headers: { authorization } });
      expect(response.status, authorization).toBe(401);
      await response.body?.cancel();
    }
    const inAddress = await fetch(`${served.url}/v1/node?access_token=operator`);
    expect(inAddress.status).toBe(401);
    await inAddress.body?.cancel();
  });

  it("a name with control characters is refused, and no answer repeats it", async () => {
    const name = "x\r\nSet-Cookie: a=b\u0000";
    const refused = await operator("POST", "/v1/tenants", { id: "6", name });
    expect(refused.body.code).toBe("invalid_argument");
    expect(JSON.stringify(refused.body)).not.toContain("Set-Cookie");
    expect(await served.db.describeTenant(TenantId(1))).toMatchObject({ name: "Hospital A" });
  });
});
