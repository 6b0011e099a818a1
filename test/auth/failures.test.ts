/** What failed is told apart, counted and bounded: no tenant's failures hold up another, and nobody fills a log. */
import { crc32 } from "node:zlib";
import { describe, expect, it } from "vitest";
import { BackOff } from "../../src/auth/back-off.ts";
import { type Incident, Incidents } from "../../src/auth/incidents.ts";
import { type Kimberlite, TenantId } from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";
import { issuerOf, makeSigner, ORIGIN, sign } from "./credentials.ts";

const A = TenantId(1);
const B = TenantId(2);

describe("back-off", () => {
  it("holds up who fails, by credential and address, and never who is right", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    for (const id of [A, B]) await db.createTenant({ id, name: `tenant ${id}` });
    const [a, b] = [
      await db.createApiKey(A, { role: "reader" }),
      await db.createApiKey(B, { role: "reader" }),
    ];
    const authenticator = db.authenticator();
    const wrong = await withSecretOf(db, a.token);
    const codes: string[] = [];
    for (let n = 0; n < 8; n += 1) {
      await authenticator
        .authenticate(wrong, ORIGIN)
        .catch((error: { code: string; retryAfterMs?: number }) => {
          codes.push(`${error.code} ${error.retryAfterMs ?? ""}`.trim());
        });
    }
    expect(codes.slice(0, 5)).toEqual(Array.from({ length: 5 }, () => "unauthenticated"));
    expect(codes.slice(5)).toEqual(["rate_limited 1000", "rate_limited 2000", "rate_limited 4000"]);
    expect(await authenticator.authenticate(b.token, ORIGIN)).toMatchObject({ tenant: B });
    expect(await authenticator.authenticate(a.token, ORIGIN)).toMatchObject({ tenant: A });
    const elsewhere = { ...ORIGIN, remoteAddress: "198.51.100.1" };
    await expect(authenticator.authenticate(wrong, elsewhere)).rejects.toMatchObject({
      code: "unauthenticated",
    });
  });

  it("waits alike for what there is and what there is not, so that nobody learns which tenants and keys there are", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await db.createTenant({ id: A, name: "a" });
    const { token } = await db.createApiKey(A, { role: "reader" });
    const signer = await makeSigner("https://id.example");
    await db.registerIssuer(A, issuerOf(signer));
    const stranger = await makeSigner("https://id.example");
    const nowUs = BigInt(Date.now()) * 1_000n;
    const authenticator = db.authenticator();
    const answers = async (presented: string, from: string): Promise<string[]> => {
      const codes: string[] = [];
      const origin = { ...ORIGIN, remoteAddress: from };
      for (let n = 0; n < 7; n += 1)
        await authenticator.authenticate("nonsense", origin).catch(() => undefined);
      for (let n = 0; n < 7; n += 1) {
        await authenticator
          .authenticate(presented, origin)
          .catch(({ code, retryAfterMs = 0 }) => codes.push(`${code} ${retryAfterMs}`));
      }
      return codes;
    };
    const key = await answers(await withSecretOf(db, token), "192.0.2.1");
    const noKey = await answers(withChecksum(`kmb_0123456789abcdef_${token.slice(21, 85)}`), "192.0.2.2");
    const jwt = await answers(await sign(stranger, nowUs), "192.0.2.3");
    const noIssuer = await answers(
      await sign(stranger, nowUs, { claims: { iss: "https://nobody.example" } }),
      "192.0.2.4",
    );
    const noTenant = await answers(
      await sign(stranger, nowUs, { claims: { kimberlite_tenant: "9" } }),
      "192.0.2.5",
    );
    expect(key.slice(0, 6)).toEqual([
      ...Array.from({ length: 5 }, () => "unauthenticated 0"),
      "rate_limited 1000",
    ]);
    for (const other of [noKey, jwt, noIssuer, noTenant]) expect(other).toEqual(key);
  });

  it("forgets after a while, and keeps a bounded number", () => {
    const backOff = new BackOff();
    for (let n = 0; n < 5; n += 1) expect(backOff.fail("x", n)).toBe(0);
    expect(backOff.fail("x", 10)).toBe(1_000);
    expect(backOff.fail("x", 10 + 600_000)).toBe(0);
    for (let n = 0; n < 200; n += 1) backOff.fail("y", 0);
    expect(backOff.fail("y", 0)).toBe(60_000);
    for (let n = 0; n < 30_000; n += 1) backOff.fail(`address ${n}`, 0);
    expect(backOff.size).toBe(10_000);
  });
});

describe("failures and refusals in audit streams", () => {
  it("are the tenant's if its credential is known, the system's else, and never hold a secret", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    for (const id of [A, B]) await db.createTenant({ id, name: `tenant ${id}` });
    const { token, key } = await db.createApiKey(A, { role: "reader" });
    const authenticator = db.authenticator();
    const wrong = await withSecretOf(db, token);
    for (const bad of [wrong, wrong, "nonsense", `kmb_${"0".repeat(16)}_${"0".repeat(72)}`]) {
      await expect(authenticator.authenticate(bad, ORIGIN)).rejects.toMatchObject({
        code: "unauthenticated",
      });
    }
    const principal = await authenticator.authenticate(token, ORIGIN);
    authenticator.noteRefusal(principal, "sql.write", ORIGIN);
    await db.close();
    const again = await scratch.open();
    const own = await Array.fromAsync(again.audit(A));
    expect(own.filter(({ action }) => action.startsWith("auth."))).toMatchObject([
      {
        action: "auth.fail",
        outcome: "refused",
        actor: "unauthenticated",
        code: "unauthenticated",
        correlationId: "r1",
        detail: { about: "wrong_secret", count: 2, address: "192.0.2.7", credential: key.id },
      },
      {
        action: "auth.refuse",
        actor: `key:${key.id}`,
        code: "not_authorized",
        detail: { about: "sql.write", count: 1 },
      },
    ]);
    const node = await Array.fromAsync(again.nodeAudit({ action: "auth.fail" }));
    expect(node.map(({ detail }) => detail?.["about"])).toEqual(["malformed"]);
    expect(await Array.fromAsync(again.audit(B))).toEqual([]);
    const everything = JSON.stringify([own, node], (_, value) =>
      typeof value === "bigint" ? String(value) : value,
    );
    expect(everything).not.toContain(wrong.slice(21, 60));
    expect(everything).not.toContain(token.slice(21, 60));
  });

  it("are counted: ten thousand make a handful of records, further and further apart", () => {
    const incidents = new Incidents();
    const records: number[] = [];
    let counted = 0;
    for (let second = 0; second < 7_200; second += 1) {
      for (let n = 0; n < 10; n += 1) incidents.note(incident(A, `reason ${n % 3}`), second * 1_000);
      const taken = incidents.take(second * 1_000, 16);
      if (taken.length > 0) records.push(second);
      counted += taken.reduce((sum, { count }) => sum + count, 0);
    }
    counted += incidents.takeAll().reduce((sum, { count }) => sum + count, 0);
    expect(counted).toBe(72_000);
    expect(records.length).toBeLessThan(16);
    expect(incidents.size).toBe(0);
  });

  it("are counted also where each comes when the pause is just over", () => {
    const incidents = new Incidents();
    let records = 0;
    for (let ms = 0; ms < 86_400_000; ms += 550) {
      if (ms % 1_100 === 0) incidents.note(incident(A, "wrong_secret"), ms);
      records += incidents.take(ms, 16).length;
    }
    expect(records).toBeLessThan(50);
  });

  it("are bounded in kinds and in tenants, and forgotten when quiet", () => {
    const incidents = new Incidents();
    for (let n = 0; n < 1_000; n += 1) incidents.note(incident(A, `reason ${n}`), 0);
    for (let n = 10; n < 20_000; n += 1) incidents.note(incident(TenantId(n), "wrong_secret"), 0);
    expect(incidents.size).toBeLessThanOrEqual(5_001);
    const [first] = [incidents.take(0, 1)];
    expect(first.length).toBeLessThanOrEqual(9);
    expect(first.reduce((sum, { count }) => sum + count, 0)).toBe(1_000);
    incidents.take(0, 10_000);
    incidents.take(10_000, 10_000);
    expect(incidents.size).toBeGreaterThan(5_000);
    incidents.take(20_000, 10_000);
    expect(incidents.size).toBe(0);
  });
});

function incident(tenant: TenantId, about: string): Incident {
  const rest = { actor: "unauthenticated", credential: undefined, remoteAddress: "::1", requestId: "r" };
  return { tenant, action: "auth.fail", about, ...rest };
}

/** The id of a key with the secret of another one. */
async function withSecretOf(db: Kimberlite, token: string): Promise<string> {
  const other = await db.createOperatorKey();
  return withChecksum(`${token.slice(0, 21)}${other.token.slice(21, 85)}`);
}

function withChecksum(body: string): string {
  return `${body}${crc32(body).toString(16).padStart(8, "0")}`;
}
