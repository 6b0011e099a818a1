/**
 * Credentials: API keys of tenants and operators, enrolments, issuers of JWTs. A secret is in the answer that makes it and
 * in no other.
 */
import { type Static, Type } from "typebox";
import type { ApiKeyDescription } from "../auth/api-key.ts";
import type { IssuerConfig } from "../auth/issuer.ts";
import type { PublicJwk } from "../auth/jwk.ts";
import { Duration } from "../tenant/duration.ts";
import { CLOSED, type Operation, operation } from "./operation.ts";
import { Decimal, Microseconds, Reason } from "./shapes.ts";
import { type Shape, shapeOf, type Wire } from "./wire.ts";

export type ApiKeyAnswer = Wire<ApiKeyDescription>;

const TenantRoleSchema = Type.Union([Type.Literal("reader"), Type.Literal("writer"), Type.Literal("admin")]);
const RoleSchema = Type.Union([TenantRoleSchema, Type.Literal("operator")]);
const KeyId = Type.String({ pattern: "^[\\w-]{1,64}$" });

const ApiKeySchema: Shape<ApiKeyAnswer> = shapeOf<ApiKeyAnswer>()(
  Type.Object(
    {
      id: Type.String(),
      tenant: Type.Optional(Decimal),
      role: RoleSchema,
      name: Type.String(),
      grant: Type.Optional(Type.String()),
      enrolment: Type.Optional(Type.Literal(true)),
      createdAtUs: Microseconds,
      createdBy: Type.String(),
      expiresAtUs: Type.Optional(Microseconds),
      revokedAtUs: Type.Optional(Microseconds),
      lastUsedAtUs: Type.Optional(Microseconds),
    },
    CLOSED,
  ),
);

const NewKeySchema = Type.Object(
  { token: Type.String({ description: "shown here alone" }), key: ApiKeySchema },
  CLOSED,
);
const KeysPage = Type.Object({ items: Type.Array(ApiKeySchema) }, CLOSED);

const KEY_REQUEST = {
  name: Type.Optional(Type.String({ minLength: 1, maxLength: 100, description: "for people" })),
  expiresInMs: Type.Optional(Type.Integer({ minimum: 1 })),
  reason: Type.Optional(Reason),
};
const KeyRequest = Type.Object(KEY_REQUEST, CLOSED);

function toKeyRequest({ expiresInMs, ...rest }: Static<typeof KeyRequest>) {
  return { ...rest, ...(expiresInMs === undefined ? {} : { expiresIn: Duration.milliseconds(expiresInMs) }) };
}

const TENANT_KEYS: readonly Operation[] = [
  operation({
    id: "tokens.list",
    method: "GET",
    path: "/v1/tenants/{tenant}/tokens",
    action: "token.list",
    summary: "The tenant's API keys, oldest first, ended ones too; never a secret",
    answer: KeysPage,
    run: async ({ db }, { tenant }) => ({ items: await db.listApiKeys(tenant) }),
  }),
  operation({
    id: "tokens.create",
    method: "POST",
    path: "/v1/tenants/{tenant}/tokens",
    action: "token.create",
    summary: "Makes an API key of the tenant",
    body: Type.Object({ role: TenantRoleSchema, grant: Type.Optional(KeyId), ...KEY_REQUEST }, CLOSED),
    status: 201,
    answer: NewKeySchema,
    run: async ({ db, by, principal }, { tenant, body: { role, grant, ...rest } }) => {
      const enrolled = principal.kind === "tenant" && principal.enrolment === true;
      return db.createApiKey(tenant, {
        ...by,
        ...toKeyRequest(rest),
        role,
        ...(grant === undefined ? {} : { grant }),
        ...(enrolled ? { enrolment: principal.credential.id } : {}),
      });
    },
  }),
  operation({
    id: "tokens.revoke",
    method: "DELETE",
    path: "/v1/tenants/{tenant}/tokens/{token}",
    action: "token.revoke",
    summary: "Ends an API key, also for connections that it opened",
    params: Type.Object({ token: KeyId }, CLOSED),
    answer: ApiKeySchema,
    errors: ["credential_not_found"],
    run: async ({ db, by }, { tenant, params }) => db.revokeApiKey(tenant, params.token, by),
  }),
  operation({
    id: "tokens.enrol",
    method: "POST",
    path: "/v1/tenants/{tenant}/enrolment",
    action: "token.enrol",
    summary: "Makes the key that makes an untouched tenant's first key, once, and does nothing else",
    body: KeyRequest,
    status: 201,
    answer: NewKeySchema,
    run: async ({ db, by }, { tenant, body }) => db.enrolTenant(tenant, { ...by, ...toKeyRequest(body) }),
  }),
];

const NODE_KEYS: readonly Operation[] = [
  operation({
    id: "node.listTokens",
    method: "GET",
    path: "/v1/node/tokens",
    action: "node.tokens",
    summary: "The operators' API keys",
    answer: KeysPage,
    run: async ({ db }) => ({ items: await db.listOperatorKeys() }),
  }),
  operation({
    id: "node.createToken",
    method: "POST",
    path: "/v1/node/tokens",
    action: "node.tokens",
    summary: "Makes an API key of the node's operators, which reads no tenant's data",
    body: KeyRequest,
    status: 201,
    answer: NewKeySchema,
    run: async ({ db, by }, { body }) => db.createOperatorKey({ ...by, ...toKeyRequest(body) }),
  }),
  operation({
    id: "node.revokeToken",
    method: "DELETE",
    path: "/v1/node/tokens/{token}",
    action: "node.tokens",
    summary: "Ends an operator's API key",
    params: Type.Object({ token: KeyId }, CLOSED),
    answer: ApiKeySchema,
    errors: ["credential_not_found"],
    run: async ({ db, by }, { params }) => db.revokeOperatorKey(params.token, by),
  }),
];

/** RFC 7517; which keys are taken is for the issuer's own parser. */
const Jwk = Type.Record(Type.String(), Type.Unknown());
const IssuerName = Type.String({ minLength: 1, maxLength: 2_048, description: "the `iss` of its tokens" });
const ISSUER = {
  issuer: IssuerName,
  audience: Type.String({ minLength: 1, maxLength: 2_048 }),
  jwksUri: Type.Optional(Type.String({ maxLength: 2_048 })),
  keys: Type.Optional(Type.Array(Jwk, { maxItems: 16 })),
  maxRole: Type.Optional(TenantRoleSchema),
  defaultRole: Type.Optional(TenantRoleSchema),
};
const IssuerSchema = Type.Object(
  {
    ...ISSUER,
    maxRole: TenantRoleSchema,
    maxLifeMs: Type.Integer(),
    tenant: Decimal,
    createdAtUs: Microseconds,
    createdBy: Type.String(),
  },
  CLOSED,
);
const NewIssuer = Type.Object(
  { ...ISSUER, maxLifeMs: Type.Optional(Type.Integer({ minimum: 1 })), reason: Type.Optional(Reason) },
  CLOSED,
);

function toIssuer({ keys, maxLifeMs, reason: _, ...rest }: Static<typeof NewIssuer>): IssuerConfig {
  return {
    ...rest,
    ...(keys === undefined ? {} : { keys: keys as unknown as readonly PublicJwk[] }),
    ...(maxLifeMs === undefined ? {} : { maxLife: Duration.milliseconds(maxLifeMs) }),
  };
}

const ISSUERS: readonly Operation[] = [
  operation({
    id: "issuers.list",
    method: "GET",
    path: "/v1/tenants/{tenant}/issuers",
    action: "issuer.list",
    summary: "Who may mint JWTs of the tenant",
    answer: Type.Object({ items: Type.Array(IssuerSchema) }, CLOSED),
    run: async ({ db }, { tenant }) => ({ items: await db.listIssuers(tenant) }),
  }),
  operation({
    id: "issuers.register",
    method: "POST",
    path: "/v1/tenants/{tenant}/issuers",
    action: "issuer.register",
    summary:
      "Registers an issuer of JWTs, in the place of one of its name: its tokens are of this tenant and no other",
    body: NewIssuer,
    status: 201,
    answer: IssuerSchema,
    run: async ({ db, by }, { tenant, body }) => {
      const { reason } = body;
      return db.registerIssuer(tenant, toIssuer(body), {
        ...by,
        ...(reason === undefined ? {} : { reason }),
      });
    },
  }),
  operation({
    id: "issuers.remove",
    method: "DELETE",
    path: "/v1/tenants/{tenant}/issuers",
    action: "issuer.remove",
    summary: "Ends an issuer, and what its tokens opened",
    query: Type.Object({ issuer: IssuerName }, CLOSED),
    answer: Type.Object({}, CLOSED),
    errors: ["credential_not_found"],
    run: async ({ db, by }, { tenant, query }) => {
      await db.removeIssuer(tenant, query.issuer, by);
      return {};
    },
  }),
];

export const TOKEN_OPERATIONS: readonly Operation[] = [...TENANT_KEYS, ...NODE_KEYS, ...ISSUERS];
