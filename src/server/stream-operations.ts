/**
 * Event streams, and reading the streams of tables: made, appended to, read in pages, followed live as server-sent events
 * (WHATWG HTML §9.2).
 *
 * Kept: the streams of the system, among them the audit stream, are not read here, for that takes another role; a page is
 * bounded in bytes, whatever its items; who follows is asked for its credential anew twice a second, so that what was
 * revoked ends.
 */
import { type Static, Type } from "typebox";
import { kimberliteError } from "../errors.ts";
import { FIRST_USER_STREAM } from "../projection/bookkeeping.ts";
import { MAX_EVENTS_PER_APPEND } from "../stream/event.ts";
import { StreamId, type TenantId } from "../tenant/tenant-id.ts";
import { parseIdempotencyKey } from "./idempotency.ts";
import { firstOf, type Item, pageOf, toItems } from "./item-pages.ts";
import { CLOSED, type Operation, operation, type Streamed } from "./operation.ts";
import { follow, resumedOffset } from "./server-sent-events.ts";
import { Decimal, PageQuery } from "./shapes.ts";
import { StreamItemSchema, StreamSchema, toStreamItem } from "./stream-shapes.ts";

const StreamParam = Type.Object(
  {
    stream: Type.String({
      pattern: "^[1-9][0-9]{0,9}$",
      description: "a stream's number, which the list of streams has as `id.local`",
    }),
  },
  CLOSED,
);
const Offset = Type.Optional(Decimal);
const RangeQuery = Type.Object({ ...PageQuery.properties, from: Offset }, CLOSED);

const list = operation({
  id: "streams.list",
  method: "GET",
  path: "/v1/tenants/{tenant}/streams",
  action: "stream.read",
  summary: "The tenant's streams: its tables and its event streams",
  answer: Type.Object({ items: Type.Array(StreamSchema) }, CLOSED),
  run: async ({ db }, { tenant }) => ({ items: await db.streams(tenant) }),
});

const create = operation({
  id: "streams.create",
  method: "POST",
  path: "/v1/tenants/{tenant}/streams",
  action: "stream.create",
  summary: "Makes an event stream",
  body: Type.Object({ name: Type.String({ minLength: 1, maxLength: 255 }) }, CLOSED),
  status: 201,
  answer: StreamSchema,
  errors: ["stream_exists"],
  run: async ({ db, by }, { tenant, body: { name } }) => ({
    id: await db.createStream(tenant, name, by),
    kind: "events",
    name,
  }),
});

const append = operation({
  id: "streams.append",
  method: "POST",
  path: "/v1/tenants/{tenant}/streams/{stream}/events",
  action: "stream.append",
  summary:
    "Appends events as one transaction; the idempotency key, if there is one, is kept with them and outlives a restart",
  params: StreamParam,
  unkept: true,
  body: Type.Object(
    {
      events: Type.Array(Type.Unknown(), { minItems: 1, maxItems: MAX_EVENTS_PER_APPEND }),
      /** That the first event must get. */
      expectedOffset: Offset,
    },
    CLOSED,
  ),
  status: 201,
  answer: Type.Object({ offset: Decimal, count: Type.Integer({ minimum: 1 }), logOffset: Decimal }, CLOSED),
  errors: ["stream_not_found", "offset_conflict", "value_too_large", "transaction_too_large"],
  run: async (call, { tenant, params, body: { events, expectedOffset } }) => {
    for (const event of events) requireExact(event);
    const idempotencyKey = parseIdempotencyKey(call.header("idempotency-key"));
    return call.db.append(tenant, streamOf(tenant, params), events, {
      ...call.by,
      ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
      ...(expectedOffset === undefined ? {} : { expectedOffset: BigInt(expectedOffset) }),
    });
  },
});

/** JSON's own parser rounds such a number before anybody sees it. @throws `invalid_argument` */
function requireExact(value: unknown): void {
  if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw kimberliteError("invalid_argument", "an integer past 2^53 is no number in JSON; write it as text");
  }
  if (typeof value === "object" && value !== null)
    for (const field of Object.values(value)) requireExact(field);
}

const read = operation({
  id: "streams.read",
  method: "GET",
  path: "/v1/tenants/{tenant}/streams/{stream}/events",
  action: "stream.read",
  summary:
    "A stream's items in order: events, or the changes of a table's rows; the next page is there if more is",
  params: StreamParam,
  query: RangeQuery,
  answer: Type.Object({ items: Type.Array(StreamItemSchema), next: Type.Optional(Type.String()) }, CLOSED),
  errors: ["stream_not_found", "offset_trimmed"],
  run: async ({ db }, { tenant, params, query }) => {
    const stream = streamOf(tenant, params);
    return pageOf(toItems(db.read(tenant, stream, { from: firstOf(query) }), toStreamItem), query.limit);
  },
});

const tail = operation({
  id: "streams.tail",
  method: "GET",
  path: "/v1/tenants/{tenant}/streams/{stream}/tail",
  action: "stream.read",
  summary: "A stream's items as they come; `Last-Event-ID` goes on after one",
  params: StreamParam,
  query: Type.Object({ from: Offset }, CLOSED),
  answer: Type.Unknown(),
  streams: ["text/event-stream"],
  errors: ["stream_not_found", "offset_trimmed"],
  run: async (call, { tenant, params, query }): Promise<Streamed> => {
    const stream = streamOf(tenant, params);
    const from = resumedOffset(call) ?? firstOf(query);
    // Refused while there is still a status to refuse with.
    await call.db.read(tenant, stream, { from, limit: 0 }).next();
    const open = (signal: AbortSignal) =>
      toItems(call.db.subscribe(tenant, stream, { from, signal }), toStreamItem);
    return { contentType: "text/event-stream", pieces: follow(call, open, toEvent) };
  },
});

/** @throws `not_authorized` for a stream of the system's */
function streamOf(tenant: TenantId, { stream }: Static<typeof StreamParam>): StreamId {
  const local = Number(stream);
  if (local >= FIRST_USER_STREAM) return StreamId(tenant, local);
  throw kimberliteError("not_authorized", "that stream is the system's; the audit stream is read as such");
}

function toEvent(item: Item): string {
  return `id: ${item.offset}\ndata: ${JSON.stringify(item)}\n\n`;
}

export const STREAM_OPERATIONS: readonly Operation[] = [list, create, append, read, tail];
