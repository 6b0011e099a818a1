/**
 * Streams, and grants of them: what a tenant lets another read. A grant is ended by the tenant that made it; one scoped to
 * a grant reads by that grant alone.
 */
import { type Static, Type } from "typebox";
import { kimberliteError } from "../errors.ts";
import type { StreamDescription } from "../operations.ts";
import type { SqlInput, SqlValue } from "../projection/values.ts";
import { type Grant, Permissions } from "../sharing/grant.ts";
import { Duration } from "../tenant/duration.ts";
import { StreamId, TenantId } from "../tenant/tenant-id.ts";
import { type Call, CLOSED, type Operation, operation } from "./operation.ts";
import { Decimal, Microseconds, Reason } from "./shapes.ts";
import { type Shape, shapeOf, type Wire } from "./wire.ts";

export type GrantAnswer = Wire<Grant>;
export type StreamAnswer = Wire<StreamDescription>;

const StreamKind = Type.Union([Type.Literal("table"), Type.Literal("events")]);
const LocalStream = Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1 });
const StreamRef = Type.Object({ tenant: Decimal, local: LocalStream }, CLOSED);
const GrantId = Type.String({ pattern: "^[\\w-]{1,64}$" });

const StreamSchema: Shape<Pick<StreamAnswer, "kind" | "name"> & { id: Static<typeof StreamRef> }> = shapeOf<
  Pick<StreamAnswer, "kind" | "name"> & { id: Static<typeof StreamRef> }
>()(Type.Object({ id: StreamRef, kind: StreamKind, name: Type.String() }, CLOSED));

const GrantSchema: Shape<Omit<GrantAnswer, "stream"> & { readonly stream: Static<typeof StreamRef> }> =
  shapeOf<Omit<GrantAnswer, "stream"> & { readonly stream: Static<typeof StreamRef> }>()(
    Type.Object(
      {
        id: Type.String(),
        fromTenant: Decimal,
        toTenant: Decimal,
        stream: StreamRef,
        kind: StreamKind,
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

/** A value of SQLite with its type, as Hrana writes it: nothing is rounded. */
const Value = Type.Union([
  Type.Object({ type: Type.Literal("null") }, CLOSED),
  Type.Object({ type: Type.Literal("integer"), value: Type.String({ pattern: "^-?[0-9]{1,19}$" }) }, CLOSED),
  Type.Object({ type: Type.Literal("float"), value: Type.Number() }, CLOSED),
  Type.Object({ type: Type.Literal("text"), value: Type.String() }, CLOSED),
  Type.Object(
    { type: Type.Literal("blob"), base64: Type.String({ pattern: "^[A-Za-z0-9+/]*={0,2}$" }) },
    CLOSED,
  ),
]);
type TypedValue = Static<typeof Value>;

function toInput(value: TypedValue): SqlInput {
  if (value.type === "null") return null;
  if (value.type === "integer") return BigInt(value.value);
  if (value.type === "blob") return Buffer.from(value.base64, "base64");
  return value.value;
}

/** Integers that are safe come as numbers; what is whole and came from a REAL is then told from them by nothing, as in JavaScript. */
function toTyped(value: SqlValue): TypedValue {
  if (value === null) return { type: "null" };
  if (typeof value === "bigint") return { type: "integer", value: value.toString() };
  if (typeof value === "number") {
    return Number.isSafeInteger(value)
      ? { type: "integer", value: value.toString() }
      : { type: "float", value };
  }
  if (typeof value === "string") return { type: "text", value };
  return { type: "blob", base64: Buffer.from(value).toString("base64") };
}

const listStreams = operation({
  id: "streams.list",
  method: "GET",
  path: "/v1/tenants/{tenant}/streams",
  action: "stream.read",
  summary: "The tenant's streams: its tables and its event streams",
  answer: Type.Object({ items: Type.Array(StreamSchema) }, CLOSED),
  run: async ({ db }, { tenant }) => ({ items: await db.streams(tenant) }),
});

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
  reads: true,
  body: Type.Object(
    {
      owner: Decimal,
      stream: LocalStream,
      sql: Type.String({ minLength: 1, maxLength: 1_000_000 }),
      params: Type.Optional(Type.Array(Value, { maxItems: 32_766 })),
    },
    CLOSED,
  ),
  answer: Type.Object({ columns: Type.Array(Type.String()), rows: Type.Array(Type.Array(Value)) }, CLOSED),
  errors: ["grant_not_found", "grant_revoked", "grant_expired", "invalid_sql"],
  run: async (call, { tenant, body: { owner, stream, sql, params = [] } }) => {
    const shared = StreamId(owner, stream);
    const { columns, rows } = await call.db.sharedArrays(
      tenant,
      shared,
      sql,
      params.map(toInput),
      grantOf(call),
    );
    return { columns, rows: rows.map((row) => row.map(toTyped)) };
  },
});

function grantOf({ by, principal }: Call) {
  const grant = principal.kind === "tenant" ? principal.grant : undefined;
  return grant === undefined ? by : { ...by, grant };
}

export const SHARING_OPERATIONS: readonly Operation[] = [
  listStreams,
  listGrants,
  createGrant,
  revokeGrant,
  queryShared,
];
