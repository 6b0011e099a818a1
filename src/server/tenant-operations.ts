/** Operations on tenants: made, looked at, limited, suspended; how long their data lives, and how it ends. */
import { type Static, Type } from "typebox";
import { Duration } from "../tenant/duration.ts";
import { Region } from "../tenant/region.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { CLOSED, type Operation, operation } from "./operation.ts";
import { parseCursor, toPage } from "./pagination.ts";
import { inRecords } from "./progress.ts";
import {
  CertificateSchema,
  Decimal,
  Label,
  LegalHoldSchema,
  PageQuery,
  QuotaSchema,
  Reason,
  RefusedErasureSchema,
  RetentionModeSchema,
  TenantDetailSchema,
  TenantSchema,
} from "./shapes.ts";

const OptionalReason = Type.Object({ reason: Type.Optional(Reason) }, CLOSED);
const RetentionMs = Type.Integer({
  minimum: 0,
  description: "how long data is kept at least, in milliseconds",
});

/** What is given to make a tenant. */
const NewTenant = Type.Object(
  {
    id: Decimal,
    name: Label,
    region: Type.Optional(Type.String({ maxLength: 63, default: "us-east" })),
    retentionMs: Type.Optional(RetentionMs),
    retentionMode: Type.Optional(RetentionModeSchema),
    quota: Type.Optional(QuotaSchema),
    reason: Type.Optional(Reason),
  },
  CLOSED,
);

const HoldBody = Type.Object({ name: Label, reason: Reason }, CLOSED);

const list = operation({
  id: "tenants.list",
  method: "GET",
  path: "/v1/tenants",
  action: "tenant.list",
  summary: "The tenants, in order of id",
  query: PageQuery,
  answer: Type.Object({ items: Type.Array(TenantSchema), next: Type.Optional(Type.String()) }, CLOSED),
  run: async ({ db }, { query: { cursor, limit = 100 } }) => {
    const after = cursor === undefined ? {} : { after: TenantId(parseCursor(cursor)) };
    const items = await db.listTenants({ ...after, limit: limit + 1 });
    return toPage(items, limit, ({ id }) => id);
  },
});

const create = operation({
  id: "tenants.create",
  method: "POST",
  path: "/v1/tenants",
  action: "tenant.create",
  summary: "Makes a tenant, with keys of its own",
  body: NewTenant,
  status: 201,
  answer: TenantSchema,
  errors: ["tenant_exists", "tenant_erased"],
  run: async ({ db, by }, { body }) => db.createTenant(toConfig(body), { ...by, ...reasonOf(body) }),
});

function toConfig({ id, name, region, retentionMs, retentionMode, quota }: Static<typeof NewTenant>) {
  return {
    id: TenantId(id),
    name,
    ...(region === undefined ? {} : { region: Region.of(region) }),
    ...(retentionMs === undefined ? {} : { retention: Duration.milliseconds(retentionMs) }),
    ...(retentionMode === undefined ? {} : { retentionMode }),
    ...(quota === undefined ? {} : { quota }),
  };
}

const describe = operation({
  id: "tenants.describe",
  method: "GET",
  path: "/v1/tenants/{tenant}",
  action: "tenant.describe",
  summary: "A tenant, and what it uses",
  answer: TenantDetailSchema,
  run: async ({ db }, { tenant }) => db.describeTenant(tenant),
});

const suspend = operation({
  id: "tenants.suspend",
  method: "POST",
  path: "/v1/tenants/{tenant}/suspend",
  action: "tenant.suspend",
  summary: "Refuses the tenant's reads and writes until it is resumed",
  body: OptionalReason,
  answer: TenantSchema,
  run: async ({ db, by }, { tenant, body }) => db.suspendTenant(tenant, { ...by, ...body }),
});

const resume = operation({
  id: "tenants.resume",
  method: "POST",
  path: "/v1/tenants/{tenant}/resume",
  action: "tenant.resume",
  summary: "Ends a suspension",
  body: OptionalReason,
  answer: TenantSchema,
  run: async ({ db, by }, { tenant, body }) => db.resumeTenant(tenant, { ...by, ...body }),
});

const setQuota = operation({
  id: "quota.set",
  method: "PUT",
  path: "/v1/tenants/{tenant}/quota",
  action: "quota.set",
  summary: "Replaces the tenant's quota, at once; a limit that is absent is none",
  body: Type.Object({ quota: QuotaSchema, reason: Type.Optional(Reason) }, CLOSED),
  answer: TenantSchema,
  run: async ({ db, by }, { tenant, body }) => db.setQuota(tenant, body.quota, { ...by, ...reasonOf(body) }),
});

const setRetention = operation({
  id: "retention.set",
  method: "PUT",
  path: "/v1/tenants/{tenant}/retention",
  action: "retention.set",
  summary: "How long data is kept at least; a shorter one takes a reason, and in compliance mode is refused",
  body: Type.Object(
    { retentionMs: RetentionMs, mode: Type.Optional(RetentionModeSchema), reason: Type.Optional(Reason) },
    CLOSED,
  ),
  answer: TenantSchema,
  errors: ["retention_locked"],
  run: async ({ db, by }, { tenant, body: { retentionMs, ...rest } }) =>
    db.setRetention(tenant, Duration.milliseconds(retentionMs), { ...by, ...rest }),
});

const listHolds = operation({
  id: "holds.list",
  method: "GET",
  path: "/v1/tenants/{tenant}/holds",
  action: "tenant.describe",
  summary: "The legal holds that stand",
  answer: Type.Object({ items: Type.Array(LegalHoldSchema) }, CLOSED),
  run: async ({ db }, { tenant }) => ({ items: (await db.describeTenant(tenant)).legalHolds }),
});

const placeHold = operation({
  id: "holds.place",
  method: "POST",
  path: "/v1/tenants/{tenant}/holds",
  action: "hold.place",
  summary: "Places a legal hold: nothing of the tenant is erased or trimmed while it stands",
  body: HoldBody,
  status: 201,
  answer: LegalHoldSchema,
  run: async ({ db, by }, { tenant, body }) => db.placeLegalHold(tenant, { ...by, ...body }),
});

const releaseHold = operation({
  id: "holds.release",
  method: "POST",
  path: "/v1/tenants/{tenant}/holds/release",
  action: "hold.release",
  summary: "Ends a legal hold",
  body: HoldBody,
  answer: Type.Object(
    { legalHolds: Type.Array(LegalHoldSchema), refusedErasures: Type.Array(RefusedErasureSchema) },
    CLOSED,
  ),
  run: async ({ db, by }, { tenant, body }) => db.releaseLegalHold(tenant, { ...by, ...body }),
});

const erase = operation({
  id: "erasure.erase",
  method: "POST",
  path: "/v1/tenants/{tenant}/erasure",
  action: "tenant.erase",
  summary: "Erases the tenant for ever: destroys its keys, removes its data, certifies it",
  body: Type.Object(
    {
      reason: Reason,
      overrideRetention: Type.Optional(Type.Boolean({ default: false })),
      keepCiphertext: Type.Optional(Type.Boolean({ default: false })),
    },
    CLOSED,
  ),
  answer: CertificateSchema,
  errors: ["legal_hold", "retention_not_over", "retention_locked", "operation_running"],
  run: async ({ db, by }, { tenant, body }) => db.eraseTenant(tenant, { ...by, ...body }),
});

const certificate = operation({
  id: "erasure.certificate",
  method: "GET",
  path: "/v1/tenants/{tenant}/erasure",
  action: "erasure.read",
  summary: "The certificate of a tenant that was erased",
  answer: CertificateSchema,
  run: async ({ db }, { tenant }) => db.erasureCertificate(tenant),
});

const refused = operation({
  id: "erasure.refused",
  method: "GET",
  path: "/v1/tenants/{tenant}/erasure/refused",
  action: "erasure.read",
  summary: "Erasures that were asked for and refused, oldest first",
  answer: Type.Object({ items: Type.Array(RefusedErasureSchema) }, CLOSED),
  run: async ({ db }, { tenant }) => ({ items: await db.refusedErasures(tenant) }),
});

const trim = operation({
  id: "tenants.trim",
  method: "POST",
  path: "/v1/tenants/{tenant}/trim",
  action: "tenant.trim",
  summary: "Destroys the records that are past their retention; tables and proofs stay",
  body: Type.Object(
    {
      reason: Reason,
      before: Type.Optional(
        Type.String({ format: "date-time", description: "only what was committed before" }),
      ),
      overrideRetention: Type.Optional(Type.Boolean({ default: false })),
    },
    CLOSED,
  ),
  answer: Type.Object({ firstOffset: Decimal, trimmed: Decimal }, CLOSED),
  errors: ["legal_hold", "retention_not_over", "retention_locked", "operation_running"],
  lasting: true,
  run: async ({ db, by, draining, onProgress }, { tenant, body: { before, ...rest } }) =>
    db.trimTenant(tenant, {
      ...by,
      ...rest,
      signal: draining,
      onProgress: inRecords(onProgress),
      ...(before === undefined ? {} : { before: new Date(before) }),
    }),
});

function reasonOf({ reason }: { readonly reason?: string }): { readonly reason?: string } {
  return reason === undefined ? {} : { reason };
}

export const TENANT_OPERATIONS: readonly Operation[] = [
  list,
  create,
  describe,
  suspend,
  resume,
  setQuota,
  setRetention,
  listHolds,
  placeHold,
  releaseHold,
  erase,
  certificate,
  refused,
  trim,
];
