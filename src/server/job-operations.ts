/** Looking at work that takes long: on a tenant, and on the node. */
import { Type } from "typebox";
import type { Job } from "./jobs.ts";
import { CLOSED, type Operation, operation } from "./operation.ts";
import type { Progress } from "./progress.ts";
import { Microseconds } from "./shapes.ts";
import { type Shape, shapeOf, type Wire } from "./wire.ts";

export type ProgressAnswer = Wire<Progress>;

/** The answer and the problem are those of the operation. */
export type JobAnswer = Omit<Wire<Omit<Job, "answer" | "problem">>, never> & {
  readonly answer?: unknown;
  readonly problem?: unknown;
};

const ProgressSchema: Shape<ProgressAnswer> = shapeOf<ProgressAnswer>()(
  Type.Object(
    {
      done: Type.Integer({ minimum: 0 }),
      total: Type.Optional(Type.Integer({ minimum: 0, description: "absent where it is not known" })),
      unit: Type.Union([Type.Literal("records"), Type.Literal("bytes"), Type.Literal("tenants")]),
    },
    CLOSED,
  ),
);

export const JobSchema: Shape<JobAnswer> = shapeOf<JobAnswer>()(
  Type.Object(
    {
      id: Type.String(),
      operation: Type.String({ description: "its name, such as `keys.reencrypt`" }),
      actor: Type.String(),
      state: Type.Union([Type.Literal("running"), Type.Literal("done"), Type.Literal("failed")]),
      beganAtUs: Microseconds,
      endedAtUs: Type.Optional(Microseconds),
      progress: Type.Optional(ProgressSchema),
      answer: Type.Optional(Type.Unknown({ description: "what the operation answers, once it is done" })),
      problem: Type.Optional(Type.Unknown({ description: "why it failed (RFC 9457)" })),
    },
    CLOSED,
  ),
);

const JobParam = Type.Object({ job: Type.String({ pattern: "^[\\w-]{1,64}$" }) }, CLOSED);
const JobList = Type.Object({ items: Type.Array(JobSchema) }, CLOSED);

export const JOB_OPERATIONS: readonly Operation[] = [
  operation({
    id: "jobs.list",
    method: "GET",
    path: "/v1/tenants/{tenant}/jobs",
    action: "job.read",
    summary:
      "Long work on the tenant, under way or ended within the hour, of those kinds that the caller may ask for",
    answer: JobList,
    run: async ({ services, principal }, { tenant }) => ({ items: services.jobs.list(principal, tenant) }),
  }),
  operation({
    id: "jobs.describe",
    method: "GET",
    path: "/v1/tenants/{tenant}/jobs/{job}",
    action: "job.read",
    summary: "How far it is, and what came of it",
    params: JobParam,
    answer: JobSchema,
    errors: ["job_not_found"],
    run: async ({ services, principal }, { tenant, params }) =>
      services.jobs.find(principal, tenant, params.job),
  }),
  operation({
    id: "node.jobs",
    method: "GET",
    path: "/v1/node/jobs",
    action: "node.read",
    summary: "Long work on the node: backups, imports, rotations of the master key",
    answer: JobList,
    run: async ({ services, principal }) => ({ items: services.jobs.list(principal, undefined) }),
  }),
  operation({
    id: "node.job",
    method: "GET",
    path: "/v1/node/jobs/{job}",
    action: "node.read",
    summary: "How far it is, and what came of it",
    params: JobParam,
    answer: JobSchema,
    errors: ["job_not_found"],
    run: async ({ services, principal }, { params }) => services.jobs.find(principal, undefined, params.job),
  }),
];
