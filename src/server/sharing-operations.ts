/**
 * Grants: what a tenant lets another read. A grant is ended by the tenant that made it; one scoped to a grant reads by that
 * grant alone.
 */
import { Type } from "typebox";
import { kimberliteError } from "../errors.ts";
import { type Grant, Permissions } from "../sharing/grant.ts";
import { Duration } from "../tenant/duration.ts";
import { StreamId, TenantId } from "../tenant/tenant-id.ts";
import { firstOf, pageOf, toItems } from "./item-pages.ts";
import { type Call, CLOSED, type Operation, operation } from "./operation.ts";
import { Decimal, Microseconds, PageQuery, Reason } from "./shapes.ts";
import {
  LocalStream,
  SharedItemSchema,
  StreamKindSchema,
  type StreamRef,
  StreamRefSchema,
  toSharedItem,
} from "./stream-shapes.ts";
import { toInput, toTyped } from "./typed-value.ts";
import { TypedValueSchema } from "./typed-value-schema.ts";
import { type Shape, shapeOf, type Wire } from "./wire.ts";

export type GrantAnswer = Omit<Wire<Grant>, "stream"> & { readonly stream: StreamRef };
const REFUSALS = ["grant_not_found", "grant_revoked", "grant_expired"] as const;
const GrantId = Type.String({ pattern: "^[\\w-]{1,64}$" });

const GrantSchema: Shape<GrantAnswer> = shapeOf<GrantAnswer>()(
  Type.Object(
    {
      id: Type.String(),
      fromTenant: Decimal,
      toTenant: Decimal,
      stream: StreamRefSchema,
      kind: StreamKindSchema,
      name: Type.String(),
      permissions: Type.Literal("read"),
      columns: Type.Optional(Type.Array(Type.String())),
      where: Type.Optional(Type.String({ description: "shown to the owner alone" })),
      maxRows: Type.Optional(Type.Integer()),
      purpose: Type.String(),
      actor: Type.String(),
      createdAtUs: Microseconds,
      notBeforeUs: Type.Optional(Microseconds),
      expiresAtUs: Type.Optional(Microseconds),
      state: Type.Union([
        Type.Literal("active"),
        Type.Literal("revoked"),
        Type.Literal("expired"),
        Type.Literal("ended"),
      ]),
      endedAtUs: Type.Optional(Microseconds),
      endReason: Type.Optional(Type.String()),
    },
    CLOSED,
  ),
);

const listGrants = operation({
  id: "grants.list",
  method: "GET",
  path: "/v1/tenants/{tenant}/grants",
  action: "grant.list",
  summary: "Grants that the tenant made and that were made to it, oldest first, ended ones too",
  answer: Type.Object({ items: Type.Array(GrantSchema) }, CLOSED),
  run: async ({ db }, { tenant }) => ({ items: await db.listGrants(tenant) }),
});

const createGrant = operation({
  id: "grants.create",
  method: "POST",
  path: "/v1/tenants/{tenant}/grants",
  action: "grant.create",
  summary: "Lets another tenant read a table or event stream of this one",
  body: Type.Object(
    {
      toTenant: Decimal,
      stream: LocalStream,
      columns: Type.Optional(Type.Array(Type.String(), { minItems: 1, maxItems: 1_000 })),
      where: Type.Optional(Type.String({ maxLength: 4_000 })),
      maxRows: Type.Optional(Type.Integer({ minimum: 1 })),
      notBefore: Type.Optional(Type.String({ format: "date-time" })),
      expiresInMs: Type.Optional(Type.Integer({ minimum: 1 })),
      purpose: Reason,
    },
    CLOSED,
  ),
  status: 201,
  answer: GrantSchema,
  errors: ["stream_not_found", "invalid_sql"],
  run: async ({ db, by }, { tenant, body }) => {
    const { toTenant, stream, notBefore, expiresInMs, ...rest } = body;
    return db.grantAccess({
      ...by,
      ...rest,
      fromTenant: tenant,
      toTenant: TenantId(toTenant),
      stream: StreamId(tenant, stream),
      permissions: Permissions.Read,
      ...(notBefore === undefined ? {} : { notBefore: new Date(notBefore) }),
      ...(expiresInMs === undefined ? {} : { expiration: Duration.milliseconds(expiresInMs) }),
    });
  },
});

const revokeGrant = operation({
  id: "grants.revoke",
  method: "POST",
  path: "/v1/tenants/{tenant}/grants/{grant}/revoke",
  action: "grant.revoke",
  summary: "Ends a grant that the tenant made, at once, also for reads that are under way",
  params: Type.Object({ grant: GrantId }, CLOSED),
  body: Type.Object({ reason: Reason }, CLOSED),
  answer: GrantSchema,
  errors: ["grant_not_found"],
  run: async ({ db, by }, { tenant, params, body }) => {
    const made = await db.listGrants(tenant);
    if (!made.some(({ id, fromTenant }) => id === params.grant && fromTenant === tenant)) {
      throw kimberliteError("grant_not_found", "the tenant made no such grant");
    }
    return db.revokeAccess(params.grant, { ...by, ...body });
  },
});

const queryShared = operation({
  id: "shared.query",
  method: "POST",
  path: "/v1/tenants/{tenant}/shared/query",
  action: "shared.read",
  summary: "Reads a table that another tenant shares with this one, by SQL",
  unkept: true,
  body: Type.Object(
    {
      grant: Type.Optional(GrantId),
      owner: Type.Optional(Decimal),
      stream: Type.Optional(LocalStream),
      sql: Type.String({ minLength: 1, maxLength: 1_000_000 }),
      params: Type.Optional(Type.Array(TypedValueSchema, { maxItems: 32_766 })),
    },
    { ...CLOSED, description: "by the grant, or by the owner and its stream" },
  ),
  answer: Type.Object(
    { columns: Type.Array(Type.String()), rows: Type.Array(Type.Array(TypedValueSchema)) },
    CLOSED,
  ),
  errors: [...REFUSALS, "invalid_sql"],
  run: async (call, { tenant, body: { sql, params = [], ...named } }) => {
    const { stream, by } = await sharedOf(call, tenant, named);
    const { columns, rows } = await call.db.sharedArrays(tenant, stream, sql, params.map(toInput), by);
    return { columns, rows: rows.map((row) => row.map(toTyped)) };
  },
});

const readShared = operation({
  id: "shared.read",
  method: "GET",
  path: "/v1/tenants/{tenant}/shared/events",
  action: "shared.read",
  summary: "Reads an event stream that another tenant shares with this one",
  query: Type.Object({ ...PageQuery.properties, from: Type.Optional(Decimal), grant: GrantId }, CLOSED),
  answer: Type.Object({ items: Type.Array(SharedItemSchema), next: Type.Optional(Type.String()) }, CLOSED),
  errors: REFUSALS,
  run: async (call, { tenant, query: { grant, limit, ...range } }) => {
    const { stream, by } = await sharedOf(call, tenant, { grant });
    const items = call.db.readShared(tenant, stream, { from: firstOf(range) }, by);
    return pageOf(toItems(items, toSharedItem), limit);
  },
});

interface Named {
  readonly grant?: string;
  readonly owner?: string;
  readonly stream?: number;
}

/** What is read, and by which grant: the one that the credential is scoped to, or that is named, or any that stands. */
async function sharedOf(call: Call, tenant: TenantId, { grant, owner, stream }: Named) {
  const scoped = call.principal.kind === "tenant" ? call.principal.grant : undefined;
  if (grant !== undefined) {
    if (scoped !== undefined && scoped !== grant) throw noSuchGrant();
    const found = await call.db.describeGrant(tenant, grant);
    if (found.toTenant !== tenant) throw noSuchGrant();
    return { stream: found.stream, by: { ...call.by, grant } };
  }
  if (owner === undefined || stream === undefined) {
    throw kimberliteError("invalid_argument", "name the grant, or the owner and its stream");
  }
  return {
    stream: StreamId(owner, stream),
    by: scoped === undefined ? call.by : { ...call.by, grant: scoped },
  };
}

function noSuchGrant(): Error {
  return kimberliteError("grant_not_found", "there is no such grant to this tenant");
}

export const SHARING_OPERATIONS: readonly Operation[] = [
  listGrants,
  createGrant,
  revokeGrant,
  queryShared,
  readShared,
];
