/** The description of the admin API in OpenAPI 3.1.1, made from the schemas that check what comes. */
import type { TSchema } from "typebox";
import { ERROR_CODES, type ErrorCode } from "../errors.ts";
import { PRODUCT_VERSION } from "../host/product.ts";
import { JobSchema } from "./job-operations.ts";
import type { Operation } from "./operation.ts";
import { PROBLEM_TYPE } from "./problem.ts";

/** Codes that any operation may answer with. */
const ANY: readonly ErrorCode[] = ["invalid_argument", "overloaded", "draining", "internal"];
const KNOWN: readonly ErrorCode[] = ["unauthenticated", "not_authorized", "rate_limited"];
const OF_TENANT: readonly ErrorCode[] = ["tenant_not_found", "tenant_erased", "quota_exceeded"];
const WITH_BODY: readonly ErrorCode[] = [
  "media_type_unsupported",
  "request_too_large",
  "idempotency_conflict",
];

type Json = Readonly<Record<string, unknown>>;

/** The document, as plain data. */
export function openApiDocument(operations: readonly Operation[]): Json {
  const paths = Object.fromEntries(
    [...Map.groupBy(operations, ({ path }) => path)].map(([path, ofPath]) => [
      path,
      Object.fromEntries(ofPath.map((operation) => [operation.method.toLowerCase(), describe(operation)])),
    ]),
  );
  return {
    openapi: "3.1.1",
    info: {
      title: "Kimberlite admin API",
      version: PRODUCT_VERSION,
      description:
        "Tenants, their keys, retention, erasure, proofs and audit. Identifiers, offsets and times are decimal strings; errors are problem details (RFC 9457) with a stable `code`.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    security: [{ bearer: [] }],
    tags: [...new Set(operations.map(tagOf))].map((name) => ({ name })),
    paths,
    components: {
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer", description: "an API key or a JWT; it names its tenant" },
      },
      schemas: { Problem: PROBLEM },
      headers: {
        RequestId: { description: "the request's id", schema: { type: "string" } },
      },
    },
  };
}

const PROBLEM: Json = {
  type: "object",
  description: "RFC 9457",
  required: ["type", "title", "status", "detail", "code", "instance"],
  properties: {
    type: { type: "string" },
    title: { type: "string" },
    status: { type: "integer" },
    detail: { type: "string" },
    code: { type: "string", enum: Object.keys(ERROR_CODES) },
    instance: { type: "string", description: "the request's id" },
    retryAfterMs: { type: "integer", minimum: 0 },
    data: { type: "object", description: "ids, counts and sizes that belong to the code" },
  },
};

function describe(operation: Operation): Json {
  const { id, summary, body, action } = operation;
  return {
    operationId: id,
    summary,
    tags: [tagOf(operation)],
    ...(action === "public" ? { security: [] } : {}),
    parameters: parametersOf(operation),
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            required: requiredOf(body).length > 0,
            content: { "application/json": { schema: plain(body) } },
          },
        }),
    responses: { ...answerOf(operation), ...jobOf(operation), ...refusalsOf(operation) },
  };
}

function tagOf({ id }: Operation): string {
  return id.split(".")[0] ?? id;
}

function parametersOf(operation: Operation): readonly Json[] {
  const { path, params, query, method } = operation;
  const ofPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => ({
    name,
    in: "path",
    required: true,
    schema: propertiesOf(params)[name] ?? { type: "string", pattern: "^[1-9][0-9]{0,18}$" },
  }));
  const needed = requiredOf(query);
  const ofQuery = Object.entries(propertiesOf(query)).map(([name, schema]) => ({
    name,
    in: "query",
    required: needed.includes(name),
    schema,
  }));
  const ofPost =
    method === "POST"
      ? [{ name: "Idempotency-Key", in: "header", schema: { type: "string", minLength: 1, maxLength: 257 } }]
      : [];
  const ofLasting =
    operation.lasting === true
      ? [{ name: "Prefer", in: "header", schema: { type: "string", examples: ["respond-async"] } }]
      : [];
  return [...ofPath, ...ofQuery, ...ofPost, ...ofLasting];
}

function answerOf({ answer, status = 200, streams }: Operation): Json {
  const types = streams ?? ["application/json"];
  const schema = streams === undefined ? plain(answer) : { type: "string" };
  return {
    [status]: {
      description: "done",
      headers: { "X-Request-Id": { $ref: "#/components/headers/RequestId" } },
      content: Object.fromEntries(types.map((type) => [type, { schema }])),
    },
  };
}

/** Of work that takes long, for who prefers not to wait. */
function jobOf({ lasting }: Operation): Json {
  if (lasting !== true) return {};
  return {
    202: {
      description: "begun; the job is at `Location`",
      headers: { Location: { schema: { type: "string" } } },
      content: { "application/json": { schema: plain(JobSchema) } },
    },
  };
}

function refusalsOf({ errors = [], action, path, body }: Operation): Json {
  const codes = [
    ...ANY,
    ...(action === "public" ? [] : KNOWN),
    ...(path.includes("{tenant}") ? OF_TENANT : []),
    ...(body === undefined ? [] : WITH_BODY),
    ...errors,
  ];
  const byStatus = Map.groupBy(new Set(codes), (code) => ERROR_CODES[code].httpStatus);
  return Object.fromEntries(
    [...byStatus].map(([status, ofStatus]) => [
      status,
      {
        description: ofStatus.toSorted().join(", "),
        content: { [PROBLEM_TYPE]: { schema: { $ref: "#/components/schemas/Problem" } } },
      },
    ]),
  );
}

function propertiesOf(schema: TSchema): Readonly<Record<string, unknown>> {
  return (plain(schema) as { readonly properties?: Record<string, unknown> }).properties ?? {};
}

function requiredOf(schema: TSchema): readonly string[] {
  return (plain(schema) as { readonly required?: readonly string[] }).required ?? [];
}

/** A schema without what only its library sees. */
function plain(schema: TSchema): Json {
  return JSON.parse(JSON.stringify(schema)) as Json;
}
