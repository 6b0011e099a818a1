/**
 * API keys: whoever holds one is the tenant's and nobody else's, until it ends, also on connections that are open and
 * after a restart; an operator gets none of a tenant that holds anything; and the token is nowhere on the disk.
 */
import * as fs from "node:fs";
import * as zlib from "node:zlib";
import { describe, expect, it } from "vitest";
import { authorize } from "../../src/auth/authorize.ts";
import { type Clock, Duration, type Kimberlite, TenantId } from "../../src/index.ts";
import { Needles, scanFolders, textSecret } from "../at-rest/scanner.ts";
import { filesBelow, Scratch } from "../isolation/scratch.ts";
import { ORIGIN } from "./credentials.ts";

const A = TenantId(1);
const B = TenantId(2);
const REFUSED = { code: "unauthenticated", message: "the credential is missing or not valid" };

async function twoTenants(db: Kimberlite): Promise<void> {
  for (const id of [A, B]) await db.createTenant({ id, name: `tenant ${id}` });
}

class TestClock implements Clock {
  aheadUs = 0n;
  wallTimeUs(): bigint {
    return 1_800_000_000_000_000n + this.aheadUs;
  }
  monotonicMs(): number {
    return Number(this.aheadUs / 1000n);
  }
  pass(seconds: number): void {
    this.aheadUs += BigInt(seconds) * 1_000_000n;
  }
}

describe("an API key", () => {
  it("is its tenant's, with its role, and is listed without its secret", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const made = await db.createApiKey(A, { role: "writer", name: "billing", actor: "ada" });
    expect(made.token).toMatch(/^kmb_[0-9a-f]{16}_[0-9a-f]{72}$/);
    const principal = await db.authenticator().authenticate(made.token, ORIGIN);
    expect(principal).toEqual({
      kind: "tenant",
      tenant: A,
      role: "writer",
      actor: `key:${made.key.id}`,
      credential: { kind: "api_key", id: made.key.id },
    });
    const [listed, ...others] = await db.listApiKeys(A);
    expect(others).toEqual([]);
    expect(listed).toMatchObject({ id: made.key.id, name: "billing", role: "writer", createdBy: "ada" });
    expect(listed?.lastUsedAtUs).toBeTypeOf("bigint");
    expect(JSON.stringify(listed, (_, value) => String(value))).not.toContain(made.token.slice(21, 60));
    expect(Object.keys(listed ?? {})).not.toContain("hash");
    expect(await db.listApiKeys(B)).toEqual([]);
  });

  it("that is another's, truncated, longer, with a bit changed or of another form is refused, all in one way", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const { token } = await db.createApiKey(A, { role: "reader" });
    const other = await db.createApiKey(B, { role: "reader" });
    const authenticator = db.authenticator();
    // The id of one with the secret of the other, and the checksum made right.
    const crossed = withChecksum(`${token.slice(0, 21)}${other.token.slice(21, 85)}`);
    const wrongSecret = withChecksum(`${token.slice(0, 84)}${token[84] === "0" ? "1" : "0"}`);
    const unknown = withChecksum(`kmb_0123456789abcdef_${token.slice(21, 85)}`);
    const bad = [
      ...["", " ", "kmb_", "Bearer", token.slice(0, -1), token.slice(0, 50), `${token}0`, ` ${token}`],
      ...[
        token.toUpperCase(),
        token.replace("kmb", "kmc"),
        `${token}\0`,
        "kmb_".repeat(5_000),
        "é".repeat(97),
      ],
      ...[crossed, wrongSecret, unknown],
    ];
    for (const [at, presented] of bad.entries()) {
      const origin = { ...ORIGIN, remoteAddress: `192.0.2.${at}` };
      await expect(authenticator.authenticate(presented, origin)).rejects.toMatchObject(REFUSED);
    }
    await expect(authenticator.authenticate(undefined, ORIGIN)).rejects.toMatchObject(REFUSED);
    expect(await authenticator.authenticate(token, ORIGIN)).toMatchObject({ tenant: A });
  });

  it("that was revoked or expired opens nothing, keeps nothing open, and does not come back with a restart", async () => {
    await using scratch = new Scratch();
    const clock = new TestClock();
    const db = await scratch.open({ clock });
    await twoTenants(db);
    const authenticator = db.authenticator();
    const forGood = await db.createApiKey(A, { role: "reader" });
    const revoked = await db.createApiKey(A, { role: "admin" });
    const brief = await db.createApiKey(A, { role: "admin", expiresIn: Duration.seconds(60) });
    const open = await authenticator.authenticate(revoked.token, ORIGIN);
    const openBriefly = await authenticator.authenticate(brief.token, ORIGIN);
    expect(() => authenticator.recheck(open)).not.toThrow();
    await expect(db.revokeApiKey(B, revoked.key.id)).rejects.toMatchObject({ code: "credential_not_found" });
    authenticator.recheck(open);
    const ended = await db.revokeApiKey(A, revoked.key.id, { reason: "left the company" });
    expect(await db.revokeApiKey(A, revoked.key.id)).toEqual(ended);
    expect(() => authenticator.recheck(open)).toThrow(expect.objectContaining(REFUSED));
    clock.pass(59);
    authenticator.recheck(openBriefly);
    clock.pass(1);
    expect(() => authenticator.recheck(openBriefly)).toThrow(expect.objectContaining(REFUSED));
    await db.close();
    const again = await scratch.open({ clock });
    const anew = again.authenticator();
    for (const { token } of [revoked, brief]) {
      await expect(anew.authenticate(token, ORIGIN)).rejects.toMatchObject(REFUSED);
    }
    expect(await anew.authenticate(forGood.token, ORIGIN)).toMatchObject({ tenant: A, role: "reader" });
    expect(await again.listApiKeys(A)).toHaveLength(3);
  });

  it("goes with its tenant's erasure, from memory and from the catalogue", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const { token } = await db.createApiKey(A, { role: "admin" });
    const other = await db.createApiKey(B, { role: "admin" });
    const authenticator = db.authenticator();
    const open = await authenticator.authenticate(token, ORIGIN);
    await db.eraseTenant(A, { reason: "the contract has ended" });
    expect(() => authenticator.recheck(open)).toThrow(expect.objectContaining(REFUSED));
    await expect(authenticator.authenticate(token, ORIGIN)).rejects.toMatchObject(REFUSED);
    await expect(db.createApiKey(A, { role: "admin" })).rejects.toMatchObject({ code: "tenant_erased" });
    await expect(db.listApiKeys(A)).rejects.toMatchObject({ code: "tenant_erased" });
    await db.close();
    const again = await scratch.open();
    await expect(again.authenticator().authenticate(token, ORIGIN)).rejects.toMatchObject(REFUSED);
    expect(await again.authenticator().authenticate(other.token, ORIGIN)).toMatchObject({ tenant: B });
  });

  it("leaves no byte of its secret in any file", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const { token } = await db.createApiKey(A, { role: "admin" });
    const operator = await db.createOperatorKey({ name: "ops" });
    await db.authenticator().authenticate(token, ORIGIN);
    await expect(db.authenticator().authenticate(`${token}1`, ORIGIN)).rejects.toMatchObject(REFUSED);
    const secrets = [token.slice(21, 85), operator.token.slice(21, 85)];
    const all = [...secrets, ...secrets.map((hex) => Buffer.from(hex, "hex").toString("latin1"))];
    expect(scanFolders([scratch.dataDir], new Needles(all.map(textSecret)))).toEqual([]);
    await db.close();
    expect(scanFolders([scratch.dataDir], new Needles(all.map(textSecret)))).toEqual([]);
    // The scanner sees what is there.
    fs.writeFileSync(scratch.path("planted"), `x${secrets[0]}x`);
    expect(scanFolders([scratch.dataDir], new Needles(all.map(textSecret)))).not.toEqual([]);
    expect(filesBelow(scratch.dataDir).length).toBeGreaterThan(5);
  });

  it("is compared in constant time, also where there is none", () => {
    const source = fs.readFileSync(new URL("../../src/auth/api-key.ts", import.meta.url), "utf8");
    expect(source).toContain("timingSafeEqual(record?.hash ?? NOBODYS_HASH, hash)");
    expect(source).not.toMatch(/hash\s*===|\.equals\(/);
  });

  it("is refused with nonsense, and too many of them", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    for (const request of [
      ...[undefined, null, {}, { role: "operator" }, { role: "root" }, { role: "reader", name: "" }],
      ...[
        { role: "reader", expiresIn: Duration.seconds(0) },
        { role: "reader", expiresIn: 5 },
      ],
      ...[
        { role: "reader", grant: "../x" },
        { role: "reader", name: "x".repeat(101) },
        { role: "reader", actor: "" },
      ],
    ]) {
      await expect(db.createApiKey(A, request as never)).rejects.toMatchObject({ code: "invalid_argument" });
    }
    await expect(db.createApiKey(TenantId(9), { role: "reader" })).rejects.toMatchObject({
      code: "tenant_not_found",
    });
    expect(await db.listApiKeys(A)).toEqual([]);
  });

  it("can be made by many at once, each with an id of its own, in both audit streams", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const made = await Promise.all(
      Array.from({ length: 20 }, () => db.createApiKey(A, { role: "reader", reason: "for the fleet" })),
    );
    expect(new Set(made.map(({ key }) => key.id)).size).toBe(20);
    const own = await Array.fromAsync(db.audit(A, { action: "token.create" }));
    const node = await Array.fromAsync(db.nodeAudit({ action: "token.create" }));
    expect([own.length, node.length]).toEqual([20, 20]);
    expect(own[0]).toMatchObject({ reason: "for the fleet", detail: { role: "reader" } });
    const revoked = await Promise.all([0, 1, 2].map(() => db.revokeApiKey(A, made[0]?.key.id ?? "")));
    expect(revoked.every(({ revokedAtUs }) => revokedAtUs !== undefined)).toBe(true);
  });
});

describe("an operator", () => {
  it("has keys that authorise no action on a tenant's data", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const { token, key } = await db.createOperatorKey({ name: "ops" });
    const authenticator = db.authenticator();
    const operator = await authenticator.authenticate(token, ORIGIN);
    expect(operator.kind).toBe("operator");
    authorize(operator, "tenant.create", undefined);
    for (const action of ["sql.read", "audit.read", "tenant.export", "token.create"] as const) {
      expect(() => authorize(operator, action, A)).toThrow(
        expect.objectContaining({ code: "not_authorized" }),
      );
    }
    expect((await db.listOperatorKeys()).map(({ id }) => id)).toEqual([key.id]);
    await db.revokeOperatorKey(key.id);
    expect(() => authenticator.recheck(operator)).toThrow(expect.objectContaining(REFUSED));
  });

  it("enrols a tenant that is empty: one key, made once; and no other", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const lost = await db.enrolTenant(A);
    const { token, key } = await db.enrolTenant(A, { actor: "ops" });
    const authenticator = db.authenticator();
    await expect(authenticator.authenticate(lost.token, ORIGIN)).rejects.toMatchObject(REFUSED);
    const enrolment = await authenticator.authenticate(token, ORIGIN);
    authorize(enrolment, "token.create", A);
    for (const [action, tenant] of [
      ["sql.read", A],
      ["token.list", A],
      ["token.create", B],
    ] as const) {
      expect(() => authorize(enrolment, action, tenant)).toThrow(
        expect.objectContaining({ code: "not_authorized" }),
      );
    }
    await expect(db.createApiKey(B, { role: "admin", enrolment: key.id })).rejects.toMatchObject({
      code: "credential_not_found",
    });
    const tries = await Promise.allSettled(
      [0, 1, 2].map(() => db.createApiKey(A, { role: "admin", enrolment: key.id })),
    );
    expect(tries.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(() => authenticator.recheck(enrolment)).toThrow(expect.objectContaining(REFUSED));
    await expect(db.enrolTenant(A)).rejects.toMatchObject({ code: "not_authorized" });
  });

  it("cannot enrol a tenant that holds data, or held some, nor use an enrolment that was made before", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await twoTenants(db);
    const { key } = await db.enrolTenant(A);
    await db.execute(A, "CREATE TABLE t (v)");
    await db.execute(A, "DROP TABLE t");
    await expect(db.enrolTenant(A)).rejects.toMatchObject({ code: "not_authorized" });
    await expect(db.createApiKey(A, { role: "admin", enrolment: key.id })).rejects.toMatchObject({
      code: "not_authorized",
    });
    // What an operator did to it is not data.
    await db.placeLegalHold(B, { name: "case", reason: "a court asks" });
    await db.enrolTenant(B);
  });
});

function withChecksum(body: string): string {
  return `${body}${zlib.crc32(body).toString(16).padStart(8, "0")}`;
}
