/**
 * Reading audit streams: a tenant's is its admin's, the system's is the operator's. As pages, as OCSF events in JSON
 * Lines, or live as server-sent events (WHATWG HTML §9.2).
 *
 * Kept: who reads live is asked for its credential anew at each look, so that what was revoked ends.
 */
import { setTimeout as wait } from "node:timers/promises";
import { type Static, Type } from "typebox";
import type { AuditAction, AuditEntry } from "../audit/audit-event.ts";
import type { AuditRange } from "../audit/audit-stream.ts";
import { toOcsf } from "../audit/ocsf.ts";
import { PRODUCT_VERSION } from "../host/product.ts";
import type { Kimberlite } from "../kimberlite.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { toJsonValue } from "./json-value.ts";
import { type Call, CLOSED, type Operation, operation, type Streamed } from "./operation.ts";
import { parseOffsetCursor, toPage } from "./pagination.ts";
import {
  HEARTBEAT,
  HEARTBEAT_EVERY_LOOKS,
  LOOK_EVERY_MS,
  RETRY,
  resumedOffset,
} from "./server-sent-events.ts";
import { Decimal, Microseconds } from "./shapes.ts";

const Filter = {
  action: Type.Optional(Type.String({ pattern: "^[a-z]+\\.[a-z-]+$", maxLength: 64 })),
  from: Type.Optional(Decimal),
};

const AuditQuery = Type.Object(
  {
    ...Filter,
    cursor: Type.Optional(Type.String({ maxLength: 64, description: "`next` of the page before" })),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000, default: 100 })),
  },
  CLOSED,
);
const AllQuery = Type.Object(Filter, CLOSED);

const Scalar = Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Null()]);

const AuditPage = Type.Object(
  {
    items: Type.Array(
      Type.Object(
        {
          offset: Decimal,
          logOffset: Decimal,
          timeUs: Microseconds,
          action: Type.String(),
          outcome: Type.Union([
            Type.Literal("began"),
            Type.Literal("done"),
            Type.Literal("refused"),
            Type.Literal("failed"),
          ]),
          actor: Type.String(),
          reason: Type.Optional(Type.String()),
          correlationId: Type.Optional(Type.String()),
          tenant: Type.Optional(Decimal),
          code: Type.Optional(Type.String()),
          detail: Type.Optional(Type.Record(Type.String(), Scalar)),
        },
        { description: "fields may be added" },
      ),
    ),
    next: Type.Optional(Type.String()),
  },
  CLOSED,
);

/** Whose stream is read: a tenant's, or with undefined the system's. */
type Whose = TenantId | undefined;

function entries(db: Kimberlite, whose: Whose, range: AuditRange): AsyncGenerator<AuditEntry, void> {
  return whose === undefined ? db.nodeAudit(range) : db.audit(whose, range);
}

async function page(call: Call, whose: Whose, query: Static<typeof AuditQuery>): Promise<unknown> {
  const { cursor, limit = 100 } = query;
  const range = { ...toRange(query), limit: limit + 1 };
  const from = cursor === undefined ? {} : { from: parseOffsetCursor(cursor) };
  const items = await Array.fromAsync(entries(call.db, whose, { ...range, ...from }));
  return toPage(items, limit, ({ offset }) => offset);
}

function toRange({ action, from }: Static<typeof AllQuery>): AuditRange {
  return {
    ...(action === undefined ? {} : { action: action as AuditAction }),
    ...(from === undefined ? {} : { from: BigInt(from) }),
  };
}

function exported(call: Call, whose: Whose, query: Static<typeof AllQuery>): Streamed {
  const { db } = call;
  const source = {
    installation: db.stats().installation,
    productVersion: PRODUCT_VERSION,
    ...(whose === undefined ? {} : { tenant: whose }),
  };
  async function* lines(): AsyncGenerator<string, void> {
    for await (const entry of entries(db, whose, toRange(query))) {
      call.recheck();
      if (call.draining.aborted || call.gone.aborted) return;
      yield `${JSON.stringify(toOcsf(entry, source))}\n`;
    }
  }
  return { contentType: "application/jsonl", pieces: lines() };
}

const LOOK_LIMIT = 500;

async function tailed(call: Call, whose: Whose, query: Static<typeof AllQuery>): Promise<Streamed> {
  const from = resumedOffset(call) ?? BigInt(query.from ?? 0n);
  // Refused while there is still a status to refuse with.
  const first = entries(call.db, whose, { from, limit: 1 });
  await first.next();
  await first.return();
  return { contentType: "text/event-stream", pieces: tail(call, whose, { from, action: query.action }) };
}

async function* tail(
  call: Call,
  whose: Whose,
  about: { readonly from: bigint; readonly action: string | undefined },
): AsyncGenerator<string, void> {
  const { action } = about;
  let { from } = about;
  const ends = AbortSignal.any([call.draining, call.gone]);
  yield RETRY;
  for (let look = 1; !ends.aborted; look += 1) {
    call.recheck();
    // Chosen here: what was looked at and is not wanted is not looked at again.
    for await (const entry of entries(call.db, whose, { from, limit: LOOK_LIMIT })) {
      from = entry.offset + 1n;
      if (action !== undefined && entry.action !== action) continue;
      yield `id: ${entry.offset}\nevent: audit\ndata: ${JSON.stringify(toJsonValue(entry))}\n\n`;
    }
    if (look % HEARTBEAT_EVERY_LOOKS === 0) yield HEARTBEAT;
    await wait(LOOK_EVERY_MS, undefined, { signal: ends }).catch(() => undefined);
  }
}

export const AUDIT_OPERATIONS: readonly Operation[] = [
  operation({
    id: "audit.list",
    method: "GET",
    path: "/v1/tenants/{tenant}/audit",
    action: "audit.read",
    summary: "The tenant's audit stream, in order",
    query: AuditQuery,
    answer: AuditPage,
    run: (call, { tenant, query }) => page(call, tenant, query),
  }),
  operation({
    id: "audit.ocsf",
    method: "GET",
    path: "/v1/tenants/{tenant}/audit/ocsf",
    action: "audit.read",
    summary: "The tenant's audit stream as OCSF events, one a line",
    query: AllQuery,
    answer: Type.Unknown(),
    streams: ["application/jsonl"],
    run: async (call, { tenant, query }) => exported(call, tenant, query),
  }),
  operation({
    id: "audit.tail",
    method: "GET",
    path: "/v1/tenants/{tenant}/audit/tail",
    action: "audit.read",
    summary: "The tenant's audit stream as it grows; `Last-Event-ID` goes on after an event",
    query: AllQuery,
    answer: Type.Unknown(),
    streams: ["text/event-stream"],
    run: async (call, { tenant, query }) => tailed(call, tenant, query),
  }),
  operation({
    id: "node.audit",
    method: "GET",
    path: "/v1/node/audit",
    action: "node.audit",
    summary: "The system's audit stream, in order",
    query: AuditQuery,
    answer: AuditPage,
    run: (call, { query }) => page(call, undefined, query),
  }),
  operation({
    id: "node.auditOcsf",
    method: "GET",
    path: "/v1/node/audit/ocsf",
    action: "node.audit",
    summary: "The system's audit stream as OCSF events, one a line",
    query: AllQuery,
    answer: Type.Unknown(),
    streams: ["application/jsonl"],
    run: async (call, { query }) => exported(call, undefined, query),
  }),
  operation({
    id: "node.auditTail",
    method: "GET",
    path: "/v1/node/audit/tail",
    action: "node.audit",
    summary: "The system's audit stream as it grows; `Last-Event-ID` goes on after an event",
    query: AllQuery,
    answer: Type.Unknown(),
    streams: ["text/event-stream"],
    run: async (call, { query }) => tailed(call, undefined, query),
  }),
];
