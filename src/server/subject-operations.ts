/**
 * Subjects: the persons in a tenant's tables, declared and erased one by one. The tenant's own, by its admin: an operator
 * knows none. A person's value is in the request alone, never in an answer, a record or a log.
 */
import { Type } from "typebox";
import type { SubjectErasureCertificate } from "../erasure/subject-certificate.ts";
import type { DeclaredSubject } from "../subjects.ts";
import { CLOSED, type Operation, operation } from "./operation.ts";
import { Bytes, Decimal, Reason, RemovedSchema } from "./shapes.ts";
import { toInput } from "./typed-value.ts";
import { TypedValueSchema } from "./typed-value-schema.ts";
import { type Shape, shapeOf, type Wire } from "./wire.ts";

export type SubjectAnswer = Wire<DeclaredSubject>;
export type SubjectCertificateAnswer = Wire<SubjectErasureCertificate>;

const Name = Type.String({ minLength: 1, maxLength: 1_000 });

const SubjectSchema: Shape<SubjectAnswer> = shapeOf<SubjectAnswer>()(
  Type.Object({ table: Type.String(), column: Type.String(), declaredAt: Decimal }, CLOSED),
);

const ErasedTable = Type.Object(
  {
    table: Type.String(),
    column: Type.String(),
    declaredAt: Decimal,
    rows: Type.Integer({ minimum: 0 }),
  },
  CLOSED,
);

const CertificateSchema: Shape<SubjectCertificateAnswer> = shapeOf<SubjectCertificateAnswer>()(
  Type.Object(
    {
      tenant: Decimal,
      installation: Type.String(),
      subject: Type.String({ description: "random name of the person in the log, hex" }),
      actor: Type.String(),
      reason: Type.String(),
      beganAt: Type.String(),
      endedAt: Type.String(),
      tables: Type.Array(ErasedTable),
      retentionOverriddenUntil: Type.Optional(Type.String()),
      offset: Decimal,
      log: Type.Object({ size: Decimal, root: Bytes, checkpoint: Type.String() }, CLOSED),
      removed: Type.Array(RemovedSchema),
      outsideReach: Type.Array(Type.String()),
      note: Type.String({ description: "the signed note: keep this" }),
    },
    CLOSED,
  ),
);

const list = operation({
  id: "subjects.list",
  method: "GET",
  path: "/v1/tenants/{tenant}/subjects",
  action: "subject.list",
  summary: "Tables with the column that says whose a row is",
  answer: Type.Object({ items: Type.Array(SubjectSchema) }, CLOSED),
  run: async ({ db }, { tenant }) => ({ items: await db.subjects(tenant) }),
});

const declare = operation({
  id: "subjects.declare",
  method: "POST",
  path: "/v1/tenants/{tenant}/subjects",
  action: "subject.declare",
  summary: "Declares the column of a table without rows that says whose a row is",
  body: Type.Object({ table: Name, column: Name, reason: Type.Optional(Reason) }, CLOSED),
  status: 201,
  answer: SubjectSchema,
  errors: ["stream_not_found", "unsupported_sql", "constraint_violation"],
  run: async ({ db, by }, { tenant, body: { table, column, ...why } }) =>
    db.declareSubject(tenant, { table, column }, { ...by, ...why }),
});

const erase = operation({
  id: "subjects.erase",
  method: "POST",
  path: "/v1/tenants/{tenant}/subjects/erasures",
  action: "subject.erase",
  summary: "Erases one person: deletes the rows, destroys the key of their history, certifies it",
  body: Type.Object(
    {
      subject: TypedValueSchema,
      reason: Reason,
      overrideRetention: Type.Optional(Type.Boolean({ default: false })),
    },
    CLOSED,
  ),
  answer: CertificateSchema,
  lasting: true,
  errors: [
    "subject_not_found",
    "legal_hold",
    "retention_not_over",
    "retention_locked",
    "constraint_violation",
  ],
  run: async ({ db, by }, { tenant, body: { subject, ...rest } }) =>
    db.eraseSubject(tenant, toInput(subject), { ...by, ...rest }),
});

const certificates = operation({
  id: "subjects.certificates",
  method: "GET",
  path: "/v1/tenants/{tenant}/subjects/erasures",
  action: "subject.list",
  summary: "The certificates of persons who were erased, oldest first",
  answer: Type.Object({ items: Type.Array(CertificateSchema) }, CLOSED),
  run: async ({ db }, { tenant }) => ({ items: await db.subjectCertificates(tenant) }),
});

export const SUBJECT_OPERATIONS: readonly Operation[] = [list, declare, erase, certificates];
