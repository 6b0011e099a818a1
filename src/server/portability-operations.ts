/**
 * Exports, imports and backups. They are written to and read from places that the server's settings name: a request gives
 * a name and never a path.
 */
import { Type } from "typebox";
import { kimberliteError } from "../errors.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { CLOSED, type Operation, operation } from "./operation.ts";
import { inRecords } from "./progress.ts";
import { FOLDER_NAME, type Services } from "./services.ts";
import { Bytes, Decimal, Microseconds, QuotaSchema, Reason, TenantSchema } from "./shapes.ts";

const Name = Type.String({ pattern: FOLDER_NAME, description: "letters, digits, hyphens, underscores" });
const Count = Type.Integer({ minimum: 0 });

const exportTenant = operation({
  id: "exports.create",
  method: "POST",
  path: "/v1/tenants/{tenant}/exports",
  action: "tenant.export",
  summary:
    "Writes the tenant, in clear text and with its proofs, into a folder of the server's; interrupted, it goes on when it is asked again",
  body: Type.Object({ name: Name, reason: Type.Optional(Reason) }, CLOSED),
  status: 201,
  answer: Type.Object({ tenant: Decimal, size: Decimal, root: Bytes, bytes: Count, name: Name }, CLOSED),
  errors: ["destination_exists"],
  lasting: true,
  run: async ({ db, by, services, draining, onProgress }, { tenant, body: { name, ...rest } }) => {
    const folder = services.folders.exportOf(tenant, name);
    const told = { signal: draining, onProgress: inRecords(onProgress) };
    return { ...(await db.exportTenant(tenant, folder, { ...by, ...rest, ...told })), name };
  },
});

const importTenant = operation({
  id: "tenants.import",
  method: "POST",
  path: "/v1/imports",
  action: "tenant.import",
  summary: "Brings an export from a folder of the server's into this installation",
  body: Type.Object(
    {
      name: Name,
      key: Type.String({ maxLength: 1_024, description: "verifier key of the installation that exported" }),
      tenant: Type.Optional(Decimal),
      as: Type.Optional(Decimal),
      quota: Type.Optional(QuotaSchema),
      reason: Type.Optional(Reason),
    },
    CLOSED,
  ),
  status: 201,
  answer: TenantSchema,
  errors: ["export_invalid", "tenant_exists", "tenant_erased"],
  lasting: true,
  run: async ({ db, by, services, draining, onProgress }, { body: { name, tenant, as, ...rest } }) =>
    db.importTenant(services.folders.importOf(name), {
      ...by,
      ...rest,
      ...(tenant === undefined ? {} : { tenant: TenantId(tenant) }),
      ...(as === undefined ? {} : { as: TenantId(as) }),
      signal: draining,
      onProgress: ({ phase, done, total }) =>
        onProgress({ done, total, unit: phase === "verify" ? "bytes" : "records" }),
    }),
});

const backup = operation({
  id: "node.backup",
  method: "POST",
  path: "/v1/node/backups",
  action: "node.backup",
  summary: "Backs up what was written since the backup before, sealed, to a place that the settings name",
  body: Type.Object(
    { place: Name, tenants: Type.Optional(Type.Array(Decimal)), reason: Type.Optional(Reason) },
    CLOSED,
  ),
  status: 201,
  answer: Type.Object(
    { id: Type.String(), tenants: Count, changed: Count, bytes: Count, keys: Count },
    CLOSED,
  ),
  errors: ["storage_failed", "destination_exists"],
  lasting: true,
  run: async ({ db, by, services, draining, onProgress }, { body: { place, tenants, ...rest } }) => {
    const { logs, keys } = placeOf(services, place);
    return db.backup({
      ...by,
      ...rest,
      to: logs,
      ...(keys === undefined ? {} : { keysTo: keys }),
      ...(tenants === undefined ? {} : { tenants: tenants.map((id) => TenantId(id)) }),
      signal: draining,
      onProgress: ({ doneTenants, totalTenants }) =>
        onProgress({ done: doneTenants, total: totalTenants, unit: "tenants" }),
    });
  },
});

const backups = operation({
  id: "node.backups",
  method: "GET",
  path: "/v1/node/backups",
  action: "node.backup",
  summary: "The backups in a place, oldest first",
  query: Type.Object({ place: Name }, CLOSED),
  answer: Type.Object(
    {
      items: Type.Array(
        Type.Object(
          { id: Type.String(), timeUs: Microseconds, partial: Type.Boolean(), tenants: Count },
          CLOSED,
        ),
      ),
    },
    CLOSED,
  ),
  errors: ["storage_failed", "backup_invalid"],
  run: async ({ db, services }, { query: { place } }) => ({
    items: await db.backups(placeOf(services, place).logs),
  }),
});

function placeOf(services: Services, name: string) {
  const place = services.backupPlaces.get(name);
  if (place === undefined) {
    throw kimberliteError("not_authorized", "the server's settings name no such place of backups");
  }
  return place;
}

export const PORTABILITY_OPERATIONS: readonly Operation[] = [exportTenant, importTenant, backup, backups];
