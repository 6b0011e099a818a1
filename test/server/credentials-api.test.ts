/** Credentials, issuers and grants over HTTP, with the database's own authenticator. */
import { generateKeyPairSync } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { type Api, apiOf } from "./api.ts";
import { type Served, startServed } from "./served.ts";

let served: Served;
let owner: Api;
let reader: Api;

beforeAll(async () => {
  served = await startServed({ authenticate: "really" });
  for (const id of [1, 2, 3]) await served.db.createTenant({ id: TenantId(id), name: `Hospital ${id}` });
  const admin = async (id: number): Promise<Api> =>
    apiOf(served, (await served.db.createApiKey(TenantId(id), { role: "admin" })).token);
  [owner, reader] = [await admin(1), await admin(2)];
  await served.db.execute(TenantId(1), "CREATE TABLE t (id INTEGER PRIMARY KEY, x, secret TEXT)");
  await served.db.execute(TenantId(1), "INSERT INTO t VALUES (1, 9007199254740993, 's'), (2, x'00ff', 's')");
});

afterAll(async () => served[Symbol.asyncDispose]());

it("a key is made, listed without its secret, and opens nothing from its end on", async () => {
  const made = await owner("POST", "/v1/tenants/1/tokens", {
    role: "reader",
    name: "nightly",
    expiresInMs: 60_000,
  });
  const { token, key } = made.body as unknown as { token: string; key: { id: string } };
  const mine = apiOf(served, token);
  expect((await mine("GET", "/v1/whoami")).body).toMatchObject({
    tenant: "1",
    role: "reader",
    credential: key.id,
  });
  expect((await mine("GET", "/v1/tenants/1/tokens")).body.code).toBe("not_authorized");
  expect(JSON.stringify((await owner("GET", "/v1/tenants/1/tokens")).body)).not.toContain(
    token.split("_")[2],
  );
  expect((await reader("DELETE", `/v1/tenants/2/tokens/${key.id}`)).body.code).toBe("credential_not_found");
  expect((await mine("GET", "/v1/whoami")).status).toBe(200);
  await owner("DELETE", `/v1/tenants/1/tokens/${key.id}`);
  expect((await mine("GET", "/v1/whoami")).status).toBe(401);
});

it("an operator gets no key of a tenant that holds anything, and manages operators' keys", async () => {
  const { token } = await served.db.createOperatorKey({ name: "on call" });
  const operator = apiOf(served, token);
  expect((await operator("POST", "/v1/tenants/1/tokens", { role: "reader" })).body.code).toBe(
    "not_authorized",
  );
  expect((await operator("POST", "/v1/tenants/1/enrolment", {})).body.code).toBe("not_authorized");
  const other = await operator("POST", "/v1/node/tokens", { name: "second" });
  const { id } = (other.body as unknown as { key: { id: string } }).key;
  expect((await operator("GET", "/v1/node/tokens")).body.items).toHaveLength(2);
  expect((await operator("DELETE", `/v1/node/tokens/${id}`)).body).toMatchObject({ id });
});

it("issuers are registered, listed and removed by the tenant", async () => {
  const jwk = {
    ...generateKeyPairSync("ed25519").publicKey.export({ format: "jwk" }),
    kid: "k1",
    alg: "EdDSA",
  };
  const issuer = { issuer: "https://id.example", audience: "kimberlite", keys: [jwk], maxRole: "writer" };
  const made = await owner("POST", "/v1/tenants/1/issuers", issuer);
  expect(made).toMatchObject({
    status: 201,
    body: { issuer: issuer.issuer, tenant: "1", maxRole: "writer" },
  });
  expect((await owner("GET", "/v1/tenants/1/issuers")).body.items).toHaveLength(1);
  const inside = await owner("POST", "/v1/tenants/1/issuers", {
    ...issuer,
    keys: undefined,
    jwksUri: "http://169.254.169.254/",
  });
  expect(inside.status).toBe(400);
  const query = `issuer=${encodeURIComponent(issuer.issuer)}`;
  await owner("DELETE", `/v1/tenants/1/issuers?${query}`);
  expect((await owner("DELETE", `/v1/tenants/1/issuers?${query}`)).body.code).toBe("credential_not_found");
});

it("a grant shares its columns until its owner, and nobody else, ends it", async () => {
  const streams = (await owner("GET", "/v1/tenants/1/streams")).body.items as {
    id: { local: number };
    name: string;
  }[];
  const stream = streams.find(({ name }) => name === "t")?.id.local;
  const made = await owner("POST", "/v1/tenants/1/grants", {
    toTenant: "2",
    stream,
    columns: ["id", "x"],
    purpose: "referral",
    expiresInMs: 3_600_000,
  });
  expect(made.status).toBe(201);
  const ask = {
    owner: "1",
    stream,
    sql: "SELECT id, x FROM t WHERE id >= ? ORDER BY id",
    params: [{ type: "integer", value: "1" }],
  };
  const shared = await reader("POST", "/v1/tenants/2/shared/query", ask);
  expect(shared.body.rows).toEqual([
    [
      { type: "integer", value: "1" },
      { type: "integer", value: "9007199254740993" },
    ],
    [
      { type: "integer", value: "2" },
      { type: "blob", base64: "AP8=" },
    ],
  ]);
  const secret = await reader("POST", "/v1/tenants/2/shared/query", {
    ...ask,
    sql: "SELECT secret FROM t",
    params: [],
  });
  expect(secret.body.code).toBe("invalid_sql");
  const path = `/v1/tenants/2/grants/${String(made.body.id)}/revoke`;
  expect((await reader("POST", path, { reason: "mine" })).body.code).toBe("grant_not_found");
  expect((await reader("GET", "/v1/tenants/2/grants")).body.items).toHaveLength(1);
  await owner("POST", path.replace("/2/", "/1/"), { reason: "over" });
  expect((await reader("POST", "/v1/tenants/2/shared/query", ask)).body.code).toBe("grant_revoked");
});
