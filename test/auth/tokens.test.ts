/**
 * JWTs: an issuer makes tokens of its own tenant and no other, whatever they claim; every known trick with a header,
 * algorithm, key, audience or time is refused; and keys that cannot be fetched refuse nobody for good.
 */
import { createHmac, createPublicKey } from "node:crypto";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { keyFetcher } from "../../src/auth/jwks-fetch.ts";
import { STRICT_JWKS_POLICY } from "../../src/auth/jwks-uri.ts";
import {
  type Authenticator,
  type Clock,
  Duration,
  type Kimberlite,
  type NodeIssuerConfig,
  TenantId,
} from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";
import {
  AUDIENCE,
  type Changes,
  forge,
  issuerOf,
  makeSigner,
  ORIGIN,
  type Signer,
  sign,
} from "./credentials.ts";

const A = TenantId(1);
const B = TenantId(2);
const REFUSED = { code: "unauthenticated", message: "the credential is missing or not valid" };
const NOW_US = 1_800_000_000_000_000n;

class TestClock implements Clock {
  aheadMs = 0;
  wallTimeUs(): bigint {
    return NOW_US + BigInt(this.aheadMs) * 1000n;
  }
  monotonicMs(): number {
    return this.aheadMs;
  }
}

let scratch: Scratch;
let db: Kimberlite;
let authenticator: Authenticator;
let ofA: Signer;
let ofB: Signer;
let ofNode: Signer;
const clock = new TestClock();
let attempts = 0;

/** From an address of its own, so that back-off does not stand between two attempts. */
function present(
  token: string,
  by: Authenticator = authenticator,
): ReturnType<Authenticator["authenticate"]> {
  attempts += 1;
  return by.authenticate(token, { ...ORIGIN, remoteAddress: `host-${attempts}` });
}

const NODE: Omit<NodeIssuerConfig, "issuer" | "keys"> = { audience: AUDIENCE, operators: true };

beforeAll(async () => {
  scratch = new Scratch();
  db = await scratch.open({ clock, jwks: { allowLoopback: true } });
  for (const id of [A, B]) await db.createTenant({ id, name: `tenant ${id}` });
  [ofA, ofB, ofNode] = await Promise.all([
    makeSigner("https://a.example"),
    makeSigner("https://b.example", "ES256"),
    makeSigner("https://node.example", "RS256"),
  ]);
  await db.registerIssuer(A, issuerOf(ofA));
  await db.registerIssuer(B, issuerOf(ofB, { maxRole: "writer" }));
  const node = { ...NODE, issuer: ofNode.issuer, keys: [ofNode.publicJwk] };
  authenticator = db.authenticator({ issuers: [node] });
});

afterAll(async () => {
  await db.close();
  await scratch[Symbol.asyncDispose]();
});

describe("a token", () => {
  it("is its tenant's, as what its issuer says", async () => {
    expect(await present(await sign(ofA, NOW_US, { claims: { jti: "t-1" } }))).toEqual({
      kind: "tenant",
      tenant: A,
      role: "writer",
      actor: "alice@https://a.example",
      credential: { kind: "jwt", id: "t-1", expiresAtUs: NOW_US + 300_000_000n },
    });
    const scoped = { claims: { kimberlite_tenant: 2, kimberlite_role: "reader", kimberlite_grant: "g1" } };
    expect(await present(await sign(ofB, NOW_US, scoped))).toMatchObject({ tenant: B, grant: "g1" });
    expect(await present(await sign(ofNode, NOW_US))).toMatchObject({ tenant: A, role: "writer" });
    const operator = { claims: { kimberlite_tenant: undefined, kimberlite_role: "operator" } };
    expect(await present(await sign(ofNode, NOW_US, operator))).toMatchObject({ kind: "operator" });
  });

  const S = Number(NOW_US / 1_000_000n);
  const WRONG: readonly [string, Changes][] = [
    ["of another audience", { claims: { aud: "somebody-else" } }],
    ["of no audience", { claims: { aud: undefined } }],
    ["expired by a second", { claims: { exp: S - 1 } }],
    ["expiring this second", { claims: { exp: S } }],
    ["that never expires", { claims: { exp: undefined } }],
    ["with an expiry of text", { claims: { exp: "soon" } }],
    ["with an expiry beyond every number", { claims: { exp: 1e300 } }],
    ["that lives too long", { claims: { exp: S + 86_401 } }],
    ["of tomorrow", { claims: { nbf: S + 1 } }],
    ["issued in the future", { claims: { iat: S + 60 } }],
    ["of another issuer", { claims: { iss: "https://b.example" } }],
    ["of an issuer nobody registered", { claims: { iss: "https://evil.example" } }],
    ["of another tenant", { claims: { kimberlite_tenant: "2" } }],
    ["of the system's tenant", { claims: { kimberlite_tenant: "0" } }],
    ["of no tenant", { claims: { kimberlite_tenant: undefined } }],
    ["of a tenant that is no id", { claims: { kimberlite_tenant: "1 OR 1=1" } }],
    ["of a tenant that is a list", { claims: { kimberlite_tenant: ["1"] } }],
    ["of an operator", { claims: { kimberlite_role: "operator" } }],
    [
      "of an operator without a tenant",
      { claims: { kimberlite_role: "operator", kimberlite_tenant: undefined } },
    ],
    ["of no role", { claims: { kimberlite_role: undefined } }],
    ["of a role that there is not", { claims: { kimberlite_role: "root" } }],
    ["of a role named as a property", { claims: { kimberlite_role: "__proto__" } }],
    ["of nobody", { claims: { sub: undefined } }],
    ["of somebody with a line break", { claims: { sub: "a\nb" } }],
    ["of somebody with a long name", { claims: { sub: "a".repeat(101) } }],
    ["with a grant that is no text", { claims: { kimberlite_grant: { $ne: 1 } } }],
    ["with an unknown kid", { header: { kid: "k2" } }],
    ["with a kid that is a path", { header: { kid: "../../../../etc/passwd" } }],
    ["with a kid that is SQL", { header: { kid: "k1' OR '1'='1" } }],
    ["with a huge kid", { header: { kid: "k".repeat(4_000) } }],
    ["of another type", { header: { typ: "secevent+jwt" } }],
    ["that is huge", { claims: { note: "x".repeat(20_000) } }],
  ];

  it.each(WRONG)("%s is refused", async (_, changes) => {
    await expect(present(await sign(ofA, NOW_US, changes))).rejects.toMatchObject(REFUSED);
  });

  it("that expired within this second is refused", async () => {
    clock.aheadMs = 500;
    const at = (exp: number): Promise<string> => sign(ofA, NOW_US, { claims: { exp } });
    expect(await present(await at(S + 0.6))).toMatchObject({ tenant: A });
    await expect(present(await at(S + 0.4))).rejects.toMatchObject(REFUSED);
    clock.aheadMs = 0;
  });

  it("signed by another tenant's key is refused, in every dress", async () => {
    for (const claims of [{}, { iss: ofB.issuer }, { iss: ofB.issuer, kimberlite_tenant: "2" }]) {
      await expect(
        present(await sign(ofA, NOW_US, { claims: { ...claims, iss: ofB.issuer } })),
      ).rejects.toMatchObject(REFUSED);
    }
    // B's own key, A's issuer and tenant.
    const stolen = await sign(ofB, NOW_US, { claims: { iss: ofA.issuer } });
    await expect(present(stolen)).rejects.toMatchObject(REFUSED);
    // B registers A's issuer with its own key: it still speaks for B alone.
    await db.registerIssuer(B, issuerOf({ ...ofB, issuer: ofA.issuer }));
    await expect(present(stolen)).rejects.toMatchObject(REFUSED);
    const own = await sign(ofB, NOW_US, { claims: { iss: ofA.issuer, kimberlite_tenant: "2" } });
    expect(await present(own)).toMatchObject({ tenant: B });
    expect(await present(await sign(ofA, NOW_US))).toMatchObject({ tenant: A });
    await db.removeIssuer(B, ofA.issuer);
    await expect(present(own)).rejects.toMatchObject(REFUSED);
  });

  it("of more than its issuer may give is refused", async () => {
    const admin = { claims: { kimberlite_tenant: "2", kimberlite_role: "admin" } };
    await expect(present(await sign(ofB, NOW_US, admin))).rejects.toMatchObject(REFUSED);
    const few = db.authenticator({
      issuers: [{ ...NODE, operators: false, tenants: [B], issuer: ofNode.issuer, keys: [ofNode.publicJwk] }],
    });
    await expect(present(await sign(ofNode, NOW_US), few)).rejects.toMatchObject(REFUSED);
    const operator = { claims: { kimberlite_tenant: undefined, kimberlite_role: "operator" } };
    await expect(present(await sign(ofNode, NOW_US, operator), few)).rejects.toMatchObject(REFUSED);
    const both = { claims: { kimberlite_role: "operator" } };
    await expect(present(await sign(ofNode, NOW_US, both))).rejects.toMatchObject(REFUSED);
  });

  it("with alg none, a symmetric algorithm, a swapped one or a key of its own is refused", async () => {
    const payload = {
      iss: ofA.issuer,
      aud: AUDIENCE,
      sub: "x",
      exp: S + 60,
      kimberlite_tenant: "1",
      kimberlite_role: "admin",
    };
    const pem = createPublicKey({ key: ofNode.publicJwk as never, format: "jwk" }).export({
      type: "spki",
      format: "pem",
    });
    const tokens: string[] = [];
    for (const alg of [
      "none",
      "None",
      "NONE",
      "",
      null,
      ["none"],
      "HS256",
      "RS512",
      "PS256",
      "ES384",
      "dir",
    ]) {
      tokens.push(forge({ alg, kid: "k1" }, payload), forge({ alg, kid: "k1" }, payload, "x"));
    }
    // The public key as a secret.
    for (const key of [pem, JSON.stringify(ofNode.publicJwk), ofA.publicJwk.x ?? ""]) {
      const unsigned = forge(
        { alg: "HS256", kid: "k1", typ: "JWT" },
        { ...payload, iss: ofNode.issuer },
      ).slice(0, -1);
      tokens.push(`${unsigned}.${createHmac("sha256", key).update(unsigned).digest("base64url")}`);
    }
    const evil = await makeSigner(ofA.issuer);
    for (const header of [
      { jwk: evil.publicJwk },
      { jku: "https://evil.example/jwks" },
      { x5u: "https://evil.example/c" },
    ]) {
      tokens.push(await sign(evil, NOW_US, { header }));
    }
    tokens.push(
      await sign(evil, NOW_US),
      await sign({ ...ofA, algorithm: "EdDSA" }, NOW_US).then(flipAlgorithm),
    );
    for (const token of tokens) await expect(present(token)).rejects.toMatchObject(REFUSED);
  });

  it("that is truncated, changed or no token at all is refused", async () => {
    const token = await sign(ofA, NOW_US);
    const [header = "", payload = "", signature = ""] = token.split(".");
    const deep = Buffer.from(`${"[".repeat(5_000)}`).toString("base64url");
    for (const bad of [
      ...[token.slice(0, -1), token.slice(0, 40), `${token}.`, `${token}.x`, ` ${token}`, `${token}\n`],
      ...[`${header}.${payload}.`, `${header}..${signature}`, `.${payload}.${signature}`, "..", "a.b.c"],
      ...[
        `${header}.${deep}.${signature}`,
        `${deep}.${payload}.${signature}`,
        "null.null.null",
        "%00.%00.%00",
      ],
      `${header}.${forge({}, { ...decode(payload), kimberlite_role: "admin" }).split(".")[1]}.${signature}`,
      forge({ alg: "EdDSA", kid: "k1", crit: ["b64"], b64: false }, decode(payload), "x"),
    ]) {
      await expect(present(bad)).rejects.toMatchObject(REFUSED);
    }
  });

  it("stands as long as it has not expired and its issuer is there", async () => {
    const signer = await makeSigner("https://brief.example");
    await db.registerIssuer(A, issuerOf(signer, { maxLife: Duration.minutes(10), defaultRole: "reader" }));
    const token = await sign(signer, NOW_US, { claims: { kimberlite_role: undefined } });
    const open = await present(token);
    expect(open).toMatchObject({ role: "reader" });
    expect(await present(token)).toBe(open);
    authenticator.recheck(open);
    expect(() => authenticator.recheck({ ...open })).toThrow(expect.objectContaining(REFUSED));
    await db.registerIssuer(A, issuerOf(signer, { defaultRole: "reader" }));
    expect(() => authenticator.recheck(open)).toThrow(expect.objectContaining(REFUSED));
    const anew = await present(token);
    await db.removeIssuer(A, signer.issuer);
    expect(() => authenticator.recheck(anew)).toThrow(expect.objectContaining(REFUSED));
    await expect(present(token)).rejects.toMatchObject(REFUSED);
    const until = await present(await sign(ofA, NOW_US));
    clock.aheadMs = 299_999;
    authenticator.recheck(until);
    clock.aheadMs = 300_000;
    expect(() => authenticator.recheck(until)).toThrow(expect.objectContaining(REFUSED));
    clock.aheadMs = 0;
  });

  it("is checked again after a restart, from what was registered", async () => {
    await using other = new Scratch();
    const first = await other.open({ clock });
    await first.createTenant({ id: A, name: "a" });
    await first.registerIssuer(A, issuerOf(ofA), { actor: "ada" });
    await first.close();
    const again = await other.open({ clock });
    expect(await present(await sign(ofA, NOW_US), again.authenticator())).toMatchObject({ tenant: A });
    expect(await again.listIssuers(A)).toMatchObject([
      { issuer: ofA.issuer, createdBy: "ada", maxRole: "admin" },
    ]);
    await again.eraseTenant(A, { reason: "over" });
    await expect(present(await sign(ofA, NOW_US), again.authenticator())).rejects.toMatchObject(REFUSED);
  });
});

describe("an issuer", () => {
  it("is refused with private, symmetric or weak keys, and with places that are not public", async () => {
    const { publicJwk } = ofA;
    const at = (jwksUri: string) => ({ issuer: "i", audience: "a", jwksUri });
    const bad: unknown[] = [
      ...[undefined, {}, { issuer: "i", audience: "a" }, { ...at("https://x.example"), keys: [publicJwk] }],
      ...[issuerOf({ ...ofA, publicJwk: { ...publicJwk, d: "x" } as never }), issuerOf(ofA, { keys: [] })],
      issuerOf(ofA, { keys: [{ kty: "oct", k: "c2VjcmV0" } as never] }),
      issuerOf(ofA, { keys: [{ kty: "RSA", n: Buffer.alloc(128, 255).toString("base64url"), e: "AQAB" }] }),
      issuerOf(ofA, { keys: [{ ...publicJwk, use: "enc" }] }),
      issuerOf(ofA, { keys: Array.from({ length: 17 }, () => publicJwk) }),
      ...[
        issuerOf(ofA, { maxRole: "operator" as never }),
        issuerOf(ofA, { maxRole: "reader", defaultRole: "admin" }),
      ],
      ...[issuerOf(ofA, { maxLife: Duration.days(400) }), issuerOf(ofA, { audience: "" })],
      ...["http://x.example/k", "file:///etc/passwd", "ftp://x.example", "https://u:p@x.example/", "x"].map(
        at,
      ),
      ...["https://10.0.0.1/", "https://169.254.169.254/latest", "https://0x7f.1/", "https://[fc00::1]/"].map(
        at,
      ),
      ...[
        "https://[::ffff:10.0.0.1]/",
        "https://2130706433.example@10.1.1.1/",
        `https://x.example/${"k".repeat(600)}`,
      ].map(at),
    ];
    await using other = new Scratch();
    const strict = await other.open();
    await strict.createTenant({ id: A, name: "a" });
    bad.push(at("http://127.0.0.1:1/"), at("http://localhost/"));
    for (const config of bad) {
      await expect(strict.registerIssuer(A, config as never)).rejects.toMatchObject({
        code: "invalid_argument",
      });
    }
    await expect(db.removeIssuer(A, "nobody")).rejects.toMatchObject({ code: "credential_not_found" });
    for (let count = (await db.listIssuers(B)).length; count < 16; count += 1) {
      await db.registerIssuer(B, { ...issuerOf(ofB), issuer: `i${count}` });
    }
    await expect(db.registerIssuer(B, { ...issuerOf(ofB), issuer: "one more" })).rejects.toMatchObject({
      code: "invalid_argument",
    });
    await expect(db.registerIssuer(B, { ...issuerOf(ofB), issuer: "one-more" })).rejects.toMatchObject({
      code: "quota_exceeded",
    });
  });

  it("rotates its keys; an unknown kid asks it again, but not at every token", async () => {
    const signer = await makeSigner("https://rotating.example");
    const next = { ...(await makeSigner(signer.issuer, "EdDSA", "k2")) };
    let keys = [signer.publicJwk];
    let asked = 0;
    await using place = await serve((_, response) => {
      asked += 1;
      response.end(JSON.stringify({ keys }));
    });
    await db.registerIssuer(A, { issuer: signer.issuer, audience: AUDIENCE, jwksUri: place.url });
    await Promise.all(
      [1, 2, 3].map(async (n) => present(await sign(signer, NOW_US, { claims: { jti: `j${n}` } }))),
    );
    expect(asked).toBe(1);
    // The name leads to this machine: refused where the operator does not allow it, and never asked.
    await using other = new Scratch();
    const strict = await other.open({ clock });
    await strict.createTenant({ id: A, name: "a" });
    const jwksUri = place.url.replace("http://127.0.0.1", "https://localhost");
    await strict.registerIssuer(A, { issuer: signer.issuer, audience: AUDIENCE, jwksUri });
    await expect(present(await sign(signer, NOW_US), strict.authenticator())).rejects.toMatchObject({
      code: "issuer_unreachable",
    });
    expect(asked).toBe(1);
    keys = [signer.publicJwk, next.publicJwk];
    for (let n = 0; n < 5; n += 1) {
      const invented = await sign(signer, NOW_US, { header: { kid: `invented-${n}` } });
      await expect(present(invented)).rejects.toMatchObject(REFUSED);
    }
    expect(asked).toBe(1);
    clock.aheadMs = 10_000;
    expect(await present(await sign(next, NOW_US))).toMatchObject({ tenant: A });
    expect(asked).toBe(2);
    // A key that was withdrawn counts no more once the keys are fetched again.
    keys = [next.publicJwk];
    clock.aheadMs = 700_000;
    const late = { claims: { exp: Number(NOW_US / 1_000_000n) + 5_000 } };
    await expect(present(await sign(signer, NOW_US, late))).rejects.toMatchObject(REFUSED);
    clock.aheadMs = 0;
  });

  it("that cannot be reached, is slow to end, too large, elsewhere or no key set refuses nobody for good", async () => {
    const signer = await makeSigner("https://far.example");
    const good = JSON.stringify({ keys: [signer.publicJwk] });
    let answer: RequestListener = (_, response) => response.writeHead(500).end("no");
    await using place = await serve((request, response) => answer(request, response));
    await using elsewhere = await serve((_, response) => response.end(good));
    await db.registerIssuer(A, { issuer: signer.issuer, audience: AUDIENCE, jwksUri: place.url });
    const tries: RequestListener[] = [
      answer,
      (_, response) => response.writeHead(302, { location: elsewhere.url }).end(),
      (_, response) => response.end(`${good}${" ".repeat(70_000)}`),
      (_, response) => response.end("[1]"),
      (_, response) => response.end('{"keys":{}}'),
      (_, response) => response.end("<html>"),
      (request) => request.socket.destroy(),
    ];
    for (const [at, listener] of tries.entries()) {
      answer = listener;
      clock.aheadMs = at * 10_000;
      const token = await sign(signer, NOW_US, { claims: { jti: `far-${at}` } });
      await expect(present(token)).rejects.toMatchObject({ code: "issuer_unreachable", action: "retry" });
      // Not asked again so soon.
      answer = (_, response) => response.end(good);
      await expect(present(token)).rejects.toMatchObject({
        code: "issuer_unreachable",
        retryAfterMs: 10_000,
      });
    }
    clock.aheadMs = 100_000;
    expect(await present(await sign(signer, NOW_US))).toMatchObject({ tenant: A });
    // Known keys do for an hour.
    answer = (_, response) => response.writeHead(500).end();
    const long = { claims: { exp: Number(NOW_US / 1_000_000n) + 8_000 } };
    clock.aheadMs = 1_000_000;
    expect(await present(await sign(signer, NOW_US, long))).toMatchObject({ tenant: A });
    clock.aheadMs = 3_700_001;
    const later = { claims: { exp: Number(NOW_US / 1_000_000n) + 9_000 } };
    await expect(present(await sign(signer, NOW_US, later))).rejects.toMatchObject({
      code: "issuer_unreachable",
    });
    clock.aheadMs = 0;
  });
});

describe("the place of an issuer's keys", () => {
  it("is looked at once more when they are fetched, and given so much time, whatever it sends meanwhile", async () => {
    let asked = 0;
    await using place = await serve((_, response) => {
      asked += 1;
      response.writeHead(200);
      const drip = setInterval(() => response.write(" "), 100);
      response.on("close", () => clearInterval(drip));
    });
    await expect(keyFetcher(STRICT_JWKS_POLICY)(new URL(place.url))).rejects.toThrow();
    const named = new URL(place.url.replace("127.0.0.1", "localhost").replace("http:", "https:"));
    await expect(keyFetcher(STRICT_JWKS_POLICY)(named)).rejects.toThrow("not public");
    expect(asked).toBe(0);
    const began = performance.now();
    await expect(
      keyFetcher({ ...STRICT_JWKS_POLICY, allowLoopback: true })(new URL(place.url)),
    ).rejects.toThrow();
    expect(performance.now() - began).toBeLessThan(10_000);
    expect(asked).toBe(1);
  });

  it("that answers late is waited for by so many, and the others come again", async () => {
    const signer = await makeSigner("https://late.example");
    let answer: () => void = () => undefined;
    const held = new Promise<void>((resolve) => {
      answer = resolve;
    });
    await using place = await serve((_, response) => {
      void held.then(() => response.end(JSON.stringify({ keys: [signer.publicJwk] })));
    });
    await db.registerIssuer(A, { issuer: signer.issuer, audience: AUDIENCE, jwksUri: place.url });
    const token = await sign(signer, NOW_US);
    const all = Array.from({ length: 150 }, () =>
      present(token).then(
        () => "in",
        ({ code }) => String(code),
      ),
    );
    const first = await Promise.race(all);
    expect(first).toBe("issuer_unreachable");
    answer();
    const outcomes = await Promise.all(all);
    expect(outcomes.filter((outcome) => outcome === "in")).toHaveLength(100);
    expect(outcomes.filter((outcome) => outcome === "issuer_unreachable")).toHaveLength(50);
    expect(await present(token)).toMatchObject({ tenant: A });
  });
});

interface Place extends AsyncDisposable {
  readonly url: string;
}

/** Something that answers on this machine. */
async function serve(listener: RequestListener): Promise<Place> {
  const server: Server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/keys`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function decode(part: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(part, "base64url").toString("utf8")) as Record<string, unknown>;
}

/** The same signature under a header that names another algorithm. */
function flipAlgorithm(token: string): string {
  const [, payload, signature] = token.split(".");
  const header = Buffer.from(JSON.stringify({ alg: "ES256", kid: "k1" })).toString("base64url");
  return `${header}.${payload}.${signature}`;
}
