/**
 * The admin API: routes made from the table of operations.
 *
 * Kept: nothing of a request is read before it is known who asks and that they may; a tenant's principal learns nothing
 * about another tenant, not even whether there is one; whatever came is checked against the schema that is published.
 */
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { Clean } from "typebox/value";
import { authorize } from "../auth/authorize.ts";
import { bearerOf } from "../auth/bearer.ts";
import { assert, kimberliteError } from "../errors.ts";
import type { ServedHost } from "../hrana/served-host.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { AdminGate } from "./admin-gate.ts";
import { compileCheck } from "./check.ts";
import { IdempotentRequests, parseIdempotencyKey } from "./idempotency.ts";
import type { Job } from "./jobs.ts";
import { toJsonValue } from "./json-value.ts";
import { openApiDocument } from "./openapi.ts";
import type { Call, Input, Operation, Streamed } from "./operation.ts";
import { OPERATIONS } from "./operations.ts";
import { nextLink } from "./pagination.ts";
import type { Services } from "./services.ts";
import type { ServerConfig } from "./settings.ts";

interface AdminParts {
  readonly host: ServedHost;
  readonly config: ServerConfig;
  readonly services: Services;
}

interface Shared extends AdminParts {
  readonly gate: AdminGate;
  /** Of those who follow: they stay, and may not keep the tenant's admin out. */
  readonly tails: AdminGate;
  readonly idempotent: IdempotentRequests;
}

const METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"] as const;

export function registerAdminApi(app: FastifyInstance, parts: AdminParts): void {
  const shared: Shared = {
    ...parts,
    gate: new AdminGate("maxConcurrentAdminRequests", parts.config.limits.maxAdminRequestsPerTenant),
    tails: new AdminGate("maxConcurrentTails", parts.config.limits.maxTailsPerTenant),
    idempotent: new IdempotentRequests(parts.host.clock),
  };
  app.addHook("onSend", async (_request, reply) => {
    void reply.header("cache-control", "no-store").header("x-content-type-options", "nosniff");
  });
  const document = JSON.stringify(openApiDocument(OPERATIONS));
  app.get("/v1/openapi.json", async (_request, reply) => reply.type("application/json").send(document));
  for (const operation of OPERATIONS) addRoute(app, operation, shared);
  for (const [path, operations] of Map.groupBy(OPERATIONS, ({ path }) => path))
    refuseOthers(app, path, operations);
}

/** A path that is served with other methods says so. */
function refuseOthers(app: FastifyInstance, path: string, operations: readonly Operation[]): void {
  const allowed = operations.map(({ method }) => method);
  app.route({
    method: METHODS.filter((method) => !(allowed as readonly string[]).includes(method)),
    url: toRoute(path),
    onRequest: async (_request, reply) => {
      void reply.header("allow", allowed.join(", "));
      throw kimberliteError("method_not_allowed", "the path is not served with this method");
    },
    handler: () => undefined,
  });
}

function addRoute(app: FastifyInstance, operation: Operation, shared: Shared): void {
  const read = inputReader(operation);
  app.route({
    method: operation.method,
    url: toRoute(operation.path),
    onRequest: async (request) => admit(request, operation, shared),
    handler: async (request, reply) => {
      const input = read(request);
      const call = makeCall(request, shared);
      const answered = runOnce(request, operation, { call, input, shared });
      if (operation.lasting !== true || !prefersAsync(request)) {
        return sendAnswer(request, reply, operation, await answered);
      }
      answered.catch(() => undefined);
      return sendJob(reply, shared.services.jobs.jobOf(answered), operation);
    },
  });
}

function toRoute(path: string): string {
  return path.replaceAll(/\{(\w+)\}/g, ":$1");
}

/** Who asks, whether they may, and whether there is room; all before the body is read. */
async function admit(
  request: FastifyRequest,
  { action, streams = [] }: Operation,
  { host, gate, tails }: Shared,
): Promise<void> {
  if (action === "public") return;
  const origin = { remoteAddress: request.ip, requestId: request.id };
  const principal = await host.authenticate(bearerOf(request.headers.authorization), origin);
  request.principal = principal;
  host.holdConnection(principal, request.raw.socket);
  // Whoever is refused is noted where requests end.
  if (action !== "authenticated") authorize(principal, action, tenantOf(request));
  if (principal.kind === "tenant") {
    const own = streams.includes("text/event-stream") ? tails : gate;
    request.exchange?.whenOver(own.enter(principal.tenant));
  }
}

/** The tenant that the path names. @throws `invalid_argument` */
function tenantOf(request: FastifyRequest): TenantId | undefined {
  const { tenant } = request.params as { readonly tenant?: string };
  return tenant === undefined ? undefined : TenantId(tenant);
}

function inputReader(operation: Operation): (request: FastifyRequest) => Input {
  const params = compileCheck(operation.params, "params");
  const query = compileCheck(operation.query, "query");
  const body = operation.body === undefined ? undefined : compileCheck(operation.body, "body");
  return (request) => {
    const { tenant: _, ...others } = request.params as Record<string, string>;
    if (body === undefined && request.body !== undefined) {
      throw kimberliteError("invalid_argument", "the operation takes no body");
    }
    return {
      // Read by operations alone whose path has it.
      tenant: tenantOf(request) as TenantId,
      params: params(others),
      query: query({ ...(request.query as Record<string, unknown>) }),
      body: body?.(request.body ?? {}),
    };
  };
}

function makeCall(request: FastifyRequest, { host, services }: Shared): Call {
  const { principal } = request;
  assert(principal !== null, "an operation runs for somebody who is known");
  const gone = new AbortController();
  request.exchange?.whenOver(() => gone.abort());
  return {
    db: host.db,
    services,
    principal,
    by: { actor: principal.actor, correlationId: request.id, address: request.ip },
    draining: host.draining,
    recheck: () => host.recheck(principal),
    onProgress: () => undefined,
    gone: gone.signal,
    header: (name) => {
      const value = request.headers[name];
      return typeof value === "string" ? value : undefined;
    },
  };
}

function runOnce(
  request: FastifyRequest,
  operation: Operation,
  { call, input, shared }: { readonly call: Call; readonly input: Input; readonly shared: Shared },
): Promise<unknown> {
  const key =
    operation.method === "POST" ? parseIdempotencyKey(request.headers["idempotency-key"]) : undefined;
  const work = (): Promise<unknown> => runTracked(request, operation, { call, input, shared });
  if (key === undefined || operation.unkept === true) return work();
  const fingerprint = createHash("sha256")
    .update(`${operation.id}\n${request.url}\n${JSON.stringify(input.body) ?? ""}`)
    .digest("base64url");
  const { principal } = call;
  const owner = principal.kind === "tenant" ? principal.tenant.toString() : "operator";
  // What one was answered is never told to another; a token that was renewed in between is of the same actor.
  const asked = { owner, key: `${principal.actor}\n${key}`, fingerprint };
  return shared.idempotent.run(asked, work);
}

function runTracked(
  request: FastifyRequest,
  operation: Operation,
  { call, input, shared }: { readonly call: Call; readonly input: Input; readonly shared: Shared },
): Promise<unknown> {
  if (operation.lasting !== true) return operation.run(call, input);
  const { principal } = call;
  const asked = { operation, target: tenantOf(request), principal, requestId: request.id };
  return shared.services.jobs.track(asked, (onProgress) => operation.run({ ...call, onProgress }, input));
}

/** RFC 7240 §4.1. */
function prefersAsync({ headers }: FastifyRequest): boolean {
  return /(?:^|,)\s*respond-async\s*(?:[,;]|$)/i.test(String(headers["prefer"] ?? ""));
}

function sendJob(reply: FastifyReply, job: Job, { path }: Operation): FastifyReply {
  const { tenant } = reply.request.params as { readonly tenant?: string };
  const place = path.includes("{tenant}") ? `/v1/tenants/${tenant}` : "/v1/node";
  return reply
    .code(202)
    .headers({ location: `${place}/jobs/${job.id}`, "preference-applied": "respond-async" })
    .type("application/json")
    .serializer(JSON.stringify)
    .send(toJsonValue(job));
}

/** What the schema publishes leaves, and nothing else that the engine gave. */
function sendAnswer(
  request: FastifyRequest,
  reply: FastifyReply,
  operation: Operation,
  answer: unknown,
): FastifyReply {
  if (operation.streams !== undefined) return sendPieces(reply, answer as Streamed);
  const { next } = (answer ?? {}) as { readonly next?: unknown };
  if (typeof next === "string") void reply.header("link", nextLink(request.url, next));
  return reply
    .code(operation.status ?? 200)
    .type("application/json")
    .serializer(JSON.stringify)
    .send(Clean(operation.answer, toJsonValue(answer)));
}

/** Nothing is made before it is asked for: a client that does not read costs no more than one piece. */
function sendPieces(reply: FastifyReply, { contentType, pieces }: Streamed): FastifyReply {
  return reply.type(contentType).send(Readable.from(pieces, { objectMode: true, highWaterMark: 1 }));
}
