/**
 * Tokens as attackers make them, over the wire: each is refused with a code on every interface, changes nothing, and holds
 * up nobody who has a right one. The tricks themselves, one by one, are in `test/auth/tokens.test.ts`.
 */
import { createHmac } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { WebSocket } from "ws";
import { registerHrana } from "../../src/hrana/register.ts";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { forge, issuerOf, makeSigner, type Signer, sign } from "../auth/credentials.ts";
import { type Served, startServed } from "./served.ts";

const [A, B] = [TenantId(1), TenantId(2)];
let served: Served;
let ofA: Signer;
let ofB: Signer;
const nowUs = BigInt(Date.now()) * 1_000n;

beforeAll(async () => {
  served = await startServed({
    authenticate: "really",
    register: (app, host) => registerHrana(app, host),
  });
  for (const id of [A, B]) await served.db.createTenant({ id, name: `tenant ${id}` });
  [ofA, ofB] = [await makeSigner("https://a.example"), await makeSigner("https://b.example", "RS256")];
  await served.db.registerIssuer(A, issuerOf(ofA));
  await served.db.registerIssuer(B, issuerOf(ofB));
});

afterAll(async () => served[Symbol.asyncDispose]());

async function codeOver(path: string, token: string, body?: string): Promise<string> {
  const response = await fetch(`${served.url}${path}`, {
    method: body === undefined ? "GET" : "POST",
    headers: {
      authorization: `Bearer ${token}`,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body }),
  });
  return `${response.status} ${((await response.json()) as { code?: string }).code}`;
}

/** Type of the answer to a hello, and how the connection ended if it did. */
function helloOver(jwt: string): Promise<string> {
  const socket = new WebSocket(served.url.replace("http", "ws"), ["hrana3"]);
  return new Promise((resolve) => {
    socket.on("open", () => socket.send(JSON.stringify({ type: "hello", jwt })));
    socket.on("message", (data: Buffer) => {
      const { type, error } = JSON.parse(data.toString("utf8")) as { type: string; error?: { code: string } };
      resolve(error === undefined ? type : `${type} ${error.code}`);
      socket.terminate();
    });
    socket.on("error", () => resolve("error"));
    socket.on("close", (code) => resolve(`closed ${code}`));
  });
}

const PIPELINE = JSON.stringify({
  requests: [{ type: "execute", stmt: { sql: "CREATE TABLE stolen (x)" } }, { type: "close" }],
});

it("opens nothing on any interface, and a right one opens its tenant meanwhile", async () => {
  const s = Number(nowUs / 1_000_000n);
  const admin = { kimberlite_role: "admin" };
  const claims = {
    iss: ofA.issuer,
    aud: "kimberlite-test",
    sub: "x",
    exp: s + 60,
    kimberlite_tenant: "1",
    ...admin,
  };
  const bare = forge({ alg: "HS256", kid: "k1", typ: "JWT" }, claims).slice(0, -1);
  const hmac = createHmac("sha256", String(ofA.publicJwk.x)).update(bare).digest("base64url");
  const wrong: Record<string, string> = {
    "alg none": forge({ alg: "none" }, claims),
    "alg none with a signature": forge({ alg: "none" }, claims, "x"),
    "the public key as a secret": `${bare}.${hmac}`,
    "wrong audience": await sign(ofA, nowUs, { claims: { ...admin, aud: "other" } }),
    "expired by a second": await sign(ofA, nowUs, { claims: { ...admin, exp: s - 1 } }),
    "another tenant's key": await sign(ofB, nowUs, { claims }),
    "another tenant's issuer": await sign(ofB, nowUs, { claims: { ...claims, iss: ofB.issuer } }),
    huge: await sign(ofA, nowUs, { claims: { ...admin, note: "x".repeat(8_000) } }),
    "no token": "a.b.c",
  };
  const right = await sign(ofA, nowUs, { claims: admin });
  const refused = /^(401 unauthenticated|429 rate_limited)$/;
  for (const [name, token] of Object.entries(wrong)) {
    const [api, pipeline, hello, mine] = await Promise.all([
      codeOver("/v1/whoami", token),
      codeOver("/v2/pipeline", token, PIPELINE),
      helloOver(token),
      codeOver("/v1/tenants/1/streams", right),
    ]);
    expect(api, name).toMatch(refused);
    expect(pipeline.slice(0, 3), name).toMatch(/^(401|429)$/);
    expect(hello, name).toMatch(/^hello_error |^closed 1008$/);
    expect(mine, name).toBe("200 undefined");
  }
  expect(await codeOver("/v1/whoami", "x".repeat(20_000)).catch(() => "closed")).toMatch(/^413 |closed/);
  expect(await helloOver("x".repeat(200_000))).toMatch(/^hello_error |^closed/);
  for (const id of [A, B])
    expect(await served.db.streams(id)).not.toContainEqual(expect.objectContaining({ name: "stolen" }));
  expect(await codeOver("/v2/pipeline", right, PIPELINE)).toBe("200 undefined");
});
