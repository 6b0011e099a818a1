/** Operations that prove a tenant's log: checkpoints, proofs, verification. Hashes alone, and no record. */
import { Type } from "typebox";
import { CLOSED, type Operation, operation } from "./operation.ts";
import { inBytes } from "./progress.ts";
import { ConsistencySchema, Decimal, InclusionSchema, VerifySchema } from "./shapes.ts";

const checkpoint = operation({
  id: "proofs.checkpoint",
  method: "GET",
  path: "/v1/tenants/{tenant}/checkpoint",
  action: "proof.read",
  summary: "A signed checkpoint (C2SP tlog-checkpoint) of the tenant's log as it is now",
  answer: Type.Object({ note: Type.String(), verifierKey: Type.String() }, CLOSED),
  run: async ({ db }, { tenant }) => ({
    note: await db.checkpoint(tenant),
    verifierKey: db.verifierKey(),
  }),
});

const inclusion = operation({
  id: "proofs.inclusion",
  method: "GET",
  path: "/v1/tenants/{tenant}/proofs/inclusion",
  action: "proof.read",
  summary: "Proof that the record at an offset is in the log (RFC 9162 §2.1.3)",
  query: Type.Object({ offset: Decimal }, CLOSED),
  answer: InclusionSchema,
  errors: ["offset_out_of_range"],
  run: async ({ db }, { tenant, query }) => db.inclusionProof(tenant, BigInt(query.offset)),
});

const consistency = operation({
  id: "proofs.consistency",
  method: "GET",
  path: "/v1/tenants/{tenant}/proofs/consistency",
  action: "proof.read",
  summary: "Proof that the log of `from` records is a prefix of the log of `to` records (RFC 9162 §2.1.4)",
  query: Type.Object({ from: Decimal, to: Decimal }, CLOSED),
  answer: ConsistencySchema,
  errors: ["offset_out_of_range"],
  run: async ({ db }, { tenant, query }) => db.consistencyProof(tenant, BigInt(query.from), BigInt(query.to)),
});

const verify = operation({
  id: "tenants.verify",
  method: "POST",
  path: "/v1/tenants/{tenant}/verify",
  action: "tenant.verify",
  summary: "Checks the tenant's whole log; with a checkpoint, also that it still begins with that",
  unkept: true,
  body: Type.Object({ checkpoint: Type.Optional(Type.String({ maxLength: 16_384 })) }, CLOSED),
  answer: VerifySchema,
  errors: ["checkpoint_mismatch", "signature_invalid"],
  lasting: true,
  run: async ({ db, draining, onProgress }, { tenant, body }) => {
    const told = { signal: draining, onProgress: inBytes(onProgress) };
    const { roots: _, ...report } = await db.verifyTenant(tenant, { ...body, ...told });
    return report;
  },
});

const rebuild = operation({
  id: "tenants.rebuild",
  method: "POST",
  path: "/v1/tenants/{tenant}/rebuild",
  action: "tenant.rebuild",
  summary: "Deletes the tenant's SQL database and builds it anew from its log",
  answer: Type.Object({}, CLOSED),
  errors: ["log_damaged"],
  lasting: true,
  run: async ({ db, draining, onProgress }, { tenant }) => {
    await db.rebuildProjection(tenant, { signal: draining, onProgress: inBytes(onProgress) });
    return {};
  },
});

export const PROOF_OPERATIONS: readonly Operation[] = [checkpoint, inclusion, consistency, verify, rebuild];
