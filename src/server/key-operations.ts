/** Operations on keys. No key, wrapped or not, is in an answer. */
import { Type } from "typebox";
import { kimberliteError } from "../errors.ts";
import { CLOSED, type Operation, operation } from "./operation.ts";
import { inRecords } from "./progress.ts";
import { Decimal, KeysSchema, Reason, TenantSchema } from "./shapes.ts";

const Versions = Type.Array(Type.Integer({ minimum: 0 }));

const list = operation({
  id: "keys.list",
  method: "GET",
  path: "/v1/tenants/{tenant}/keys",
  action: "key.list",
  summary: "Versions and ages of the tenant's keys",
  answer: KeysSchema,
  run: async ({ db }, { tenant }) => db.keys(tenant),
});

const rotate = operation({
  id: "keys.rotate",
  method: "POST",
  path: "/v1/tenants/{tenant}/keys/rotations",
  action: "key.rotate",
  summary: "Puts a new data key into force for new blocks, or wraps the data keys under a new key",
  body: Type.Object(
    { key: Type.Union([Type.Literal("dek"), Type.Literal("kek")]), reason: Type.Optional(Reason) },
    CLOSED,
  ),
  answer: KeysSchema,
  run: async ({ db, by }, { tenant, body: { key, ...rest } }) => {
    if (key === "dek") await db.rotateDek(tenant, { ...by, ...rest });
    else await db.rotateKek(tenant, { ...by, ...rest });
    return db.keys(tenant);
  },
});

const reencrypt = operation({
  id: "keys.reencrypt",
  method: "POST",
  path: "/v1/tenants/{tenant}/keys/reencryption",
  action: "key.reencrypt",
  summary:
    "Writes log and database anew under a new data key; interrupted, it goes on when it is asked again",
  body: Type.Object(
    { destroyFormerKeys: Type.Optional(Type.Boolean({ default: false })), reason: Type.Optional(Reason) },
    CLOSED,
  ),
  answer: Type.Object(
    { dekVersion: Type.Integer({ minimum: 0 }), records: Decimal, destroyed: Versions },
    CLOSED,
  ),
  errors: ["operation_running"],
  lasting: true,
  run: async ({ db, by, draining, onProgress }, { tenant, body }) =>
    db.reencryptTenant(tenant, { ...by, ...body, signal: draining, onProgress: inRecords(onProgress) }),
});

const move = operation({
  id: "keys.move",
  method: "PUT",
  path: "/v1/tenants/{tenant}/master-key",
  action: "key.move",
  summary: "Moves the tenant's keys under a master key of its own, or with null back under the node's",
  body: Type.Object(
    {
      uri: Type.Union([Type.String({ minLength: 1, maxLength: 2_048 }), Type.Null()]),
      reason: Type.Optional(Reason),
    },
    CLOSED,
  ),
  answer: TenantSchema,
  errors: ["master_key_denied", "master_key_unreachable", "not_authorized"],
  run: async ({ db, by, services }, { tenant, body: { uri, ...rest } }) => {
    requireScheme(uri, services.masterKeySchemes);
    return db.setTenantMasterKey(tenant, uri, { ...by, ...rest });
  },
});

/** A tenant names services for the node to call and no file or device of the node's machine. */
function requireScheme(uri: string | null, schemes: readonly string[]): void {
  if (uri === null || schemes.some((scheme) => uri.startsWith(`${scheme}:`))) return;
  throw kimberliteError("not_authorized", "the server's settings do not let tenants name such a master key");
}

const rotateMaster = operation({
  id: "node.rotateMasterKey",
  method: "POST",
  path: "/v1/node/master-key/rotations",
  action: "key.rotate-master",
  summary: "Wraps every tenant's key under another of the master keys that the settings name",
  body: Type.Object({ to: Type.String({ minLength: 1, maxLength: 64 }) }, CLOSED),
  answer: Type.Object({ masterKeyId: Type.String() }, CLOSED),
  errors: ["not_authorized", "master_key_unreachable", "operation_running", "keys_damaged"],
  lasting: true,
  run: async ({ services, by, onProgress }, { body: { to } }) => {
    const { rotateMasterKey } = services;
    if (rotateMasterKey === undefined) {
      throw kimberliteError("not_authorized", "the server's settings name no other master key");
    }
    return {
      masterKeyId: await rotateMasterKey(to, {
        ...by,
        onProgress: (progress) => onProgress({ ...progress, unit: "tenants" }),
      }),
    };
  },
});

export const KEY_OPERATIONS: readonly Operation[] = [list, rotate, reencrypt, move, rotateMaster];
