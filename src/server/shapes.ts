/**
 * What crosses the wire of the admin API, as schemas: each describes exactly the type of the library that it carries, or
 * does not compile. Tenants, offsets and times are decimal strings, hashes are base64.
 */
import { Type } from "typebox";
import type { RefusedErasure } from "../directory/catalogue.ts";
import type { ErasureCertificate, RemovedPart } from "../erasure/certificate.ts";
import type { KeyVersionReport } from "../keys/key-report.ts";
import type { TenantKeyUse } from "../kimberlite.ts";
import type { ConsistencyProof, InclusionProof } from "../log/proofs.ts";
import type { VerifyReport } from "../log/verify.ts";
import type { NodeStats, TenantDescription } from "../operations.ts";
import type { LegalHold, TenantEntry, TenantQuota } from "../tenant/tenant-config.ts";
import { CLOSED } from "./operation.ts";
import { type Shape, shapeOf, type Wire } from "./wire.ts";

/** A region is a name here, and is parsed where it is used. */
type Named<T> = Omit<Wire<T>, "region"> & { readonly region: string };

export type TenantAnswer = Named<TenantEntry>;
export type TenantDetailAnswer = Named<TenantDescription>;
export type LegalHoldAnswer = Wire<LegalHold>;
export type RefusedErasureAnswer = Wire<RefusedErasure>;
export type KeysAnswer = Wire<TenantKeyUse>;
export type CertificateAnswer = Wire<ErasureCertificate>;
export type VerifyAnswer = Wire<Omit<VerifyReport, "roots">>;
export type InclusionAnswer = Wire<InclusionProof>;
export type ConsistencyAnswer = Wire<ConsistencyProof>;

export const Decimal: Type.TString = Type.String({
  pattern: "^(0|[1-9][0-9]{0,19})$",
  description: "an integer of up to 64 bits, in decimal",
});
export const Bytes: Type.TString = Type.String({ description: "base64" });
export const Microseconds: Type.TString = Type.String({
  pattern: "^-?[0-9]{1,19}$",
  description: "microseconds since 1970-01-01T00:00:00Z, in decimal",
});
export const Reason: Type.TString = Type.String({
  minLength: 1,
  maxLength: 1_000,
  description: "why; it is recorded",
});
export const Label: Type.TString = Type.String({ minLength: 1, maxLength: 255 });
const Count = (): Type.TInteger => Type.Integer({ minimum: 0 });
const Limit = (): Type.TOptional<Type.TInteger> => Type.Optional(Type.Integer({ minimum: 1 }));

export const RetentionModeSchema: Shape<TenantEntry["retentionMode"]> = shapeOf<
  TenantEntry["retentionMode"]
>()(Type.Union([Type.Literal("governance"), Type.Literal("compliance")]));

export const QuotaSchema: Shape<TenantQuota> = shapeOf<TenantQuota>()(
  Type.Object(
    {
      maxLogBytes: Limit(),
      maxProjectionBytes: Limit(),
      maxOpsPerSec: Limit(),
      burstOps: Limit(),
      maxConcurrentOps: Limit(),
    },
    CLOSED,
  ),
);

export const LegalHoldSchema: Shape<LegalHoldAnswer> = shapeOf<LegalHoldAnswer>()(
  Type.Object(
    { name: Type.String(), reason: Type.String(), actor: Type.String(), placedAtUs: Microseconds },
    CLOSED,
  ),
);

const ENTRY = {
  id: Decimal,
  name: Type.String(),
  region: Type.String(),
  retentionMs: Count(),
  retentionMode: RetentionModeSchema,
  legalHolds: Type.Array(LegalHoldSchema),
  quota: QuotaSchema,
  masterKey: Type.Optional(Type.String({ description: "URI of the tenant's own master key" })),
  keyAccess: Type.Optional(
    Type.Union([Type.Literal("available"), Type.Literal("withdrawn"), Type.Literal("unknown")], {
      description: "what the holder of the tenant's own master key answered last",
    }),
  ),
  state: Type.Union([
    Type.Literal("active"),
    Type.Literal("suspended"),
    Type.Literal("erasing"),
    Type.Literal("erased"),
  ]),
  createdAtUs: Microseconds,
};

export const TenantSchema: Shape<TenantAnswer> = shapeOf<TenantAnswer>()(Type.Object(ENTRY, CLOSED));

export const TenantDetailSchema: Shape<TenantDetailAnswer> = shapeOf<TenantDetailAnswer>()(
  Type.Object(
    { ...ENTRY, size: Decimal, firstOffset: Decimal, logBytes: Count(), projectionBytes: Count() },
    CLOSED,
  ),
);

export const RefusedErasureSchema: Shape<RefusedErasureAnswer> = shapeOf<RefusedErasureAnswer>()(
  Type.Object(
    {
      tenant: Decimal,
      refusedAtUs: Microseconds,
      actor: Type.String(),
      reason: Type.String(),
      code: Type.String(),
    },
    CLOSED,
  ),
);

const KeyVersionSchema: Shape<Wire<KeyVersionReport>> = shapeOf<Wire<KeyVersionReport>>()(
  Type.Object({ version: Count(), createdAtUs: Microseconds, ageMs: Count() }, CLOSED),
);

export const KeysSchema: Shape<KeysAnswer> = shapeOf<KeysAnswer>()(
  Type.Object(
    {
      tenant: Decimal,
      masterKeyId: Type.String(),
      kek: KeyVersionSchema,
      deks: Type.Array(KeyVersionSchema),
      projectionDek: Count(),
      hasSigningKey: Type.Boolean(),
      blocksSealed: Count(),
      blocksLimit: Count(),
    },
    CLOSED,
  ),
);

export const RemovedSchema: Shape<Wire<RemovedPart>> = shapeOf<Wire<RemovedPart>>()(
  Type.Object(
    {
      what: Type.Union([
        Type.Literal("keys"),
        Type.Literal("memory"),
        Type.Literal("journal"),
        Type.Literal("projection"),
        Type.Literal("log"),
        Type.Literal("log payload"),
      ]),
      where: Type.String(),
      count: Count(),
    },
    CLOSED,
  ),
);

export const CertificateSchema: Shape<CertificateAnswer> = shapeOf<CertificateAnswer>()(
  Type.Object(
    {
      tenant: Decimal,
      installation: Type.String(),
      actor: Type.String(),
      reason: Type.String(),
      beganAt: Type.String(),
      endedAt: Type.String(),
      keysDestroyed: Type.Object(
        { kek: Count(), deks: Type.Array(Count()), masterKeyId: Type.String() },
        CLOSED,
      ),
      log: Type.Union([
        Type.Object({ size: Decimal, root: Bytes, checkpoint: Type.String() }, CLOSED),
        Type.Null(),
      ]),
      removed: Type.Array(RemovedSchema),
      ciphertextKept: Type.Boolean(),
      retentionOverriddenUntil: Type.Optional(Type.String()),
      outsideReach: Type.Array(Type.String()),
      note: Type.String({ description: "the signed note: keep this" }),
    },
    CLOSED,
  ),
);

export const VerifySchema: Shape<VerifyAnswer> = shapeOf<VerifyAnswer>()(
  Type.Object(
    {
      tenant: Decimal,
      ok: Type.Boolean(),
      size: Decimal,
      trimmed: Decimal,
      blocks: Count(),
      segments: Count(),
      bytes: Count(),
      root: Bytes,
      sealsOpened: Type.Boolean(),
      firstBadOffset: Type.Optional(Decimal),
      reason: Type.Optional(Type.String()),
    },
    CLOSED,
  ),
);

export const InclusionSchema: Shape<InclusionAnswer> = shapeOf<InclusionAnswer>()(
  Type.Object(
    { offset: Decimal, size: Decimal, leafHash: Bytes, path: Type.Array(Bytes), root: Bytes },
    CLOSED,
  ),
);

export const ConsistencySchema: Shape<ConsistencyAnswer> = shapeOf<ConsistencyAnswer>()(
  Type.Object(
    { fromSize: Decimal, toSize: Decimal, fromRoot: Bytes, toRoot: Bytes, path: Type.Array(Bytes) },
    CLOSED,
  ),
);

export const NodeSchema: Shape<NodeStats> = shapeOf<NodeStats>()(
  Type.Object({ tenants: Count(), openTenants: Count(), installation: Type.String() }, CLOSED),
);

/** A page of a list, with the cursor of the next. */
export const PageQuery: Type.TObject<{
  cursor: Type.TOptional<Type.TString>;
  limit: Type.TOptional<Type.TInteger>;
}> = Type.Object(
  {
    cursor: Type.Optional(Type.String({ maxLength: 64, description: "`next` of the page before" })),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000, default: 100 })),
  },
  CLOSED,
);
