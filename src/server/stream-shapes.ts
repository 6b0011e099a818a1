/** Streams and what is in them, as schemas. */
import { Type } from "typebox";
import type { SharedItem } from "../sharing.ts";
import { type EventValue, encodeEvent } from "../stream/event.ts";
import type { StreamItem } from "../stream/stream-reader.ts";
import { type JsonValue, toJsonValue } from "./json-value.ts";
import { CLOSED } from "./operation.ts";
import { Decimal, Microseconds } from "./shapes.ts";
import { type TypedValue, toTyped } from "./typed-value.ts";
import { TypedValueSchema } from "./typed-value-schema.ts";
import { type Shape, shapeOf } from "./wire.ts";

export interface StreamRef {
  readonly tenant: string;
  readonly local: number;
}

export interface StreamAnswer {
  readonly id: StreamRef;
  readonly kind: "table" | "events";
  readonly name: string;
}

/** The number of a stream within its tenant. */
export const LocalStream: Type.TInteger = Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1 });

export const StreamRefSchema: Shape<StreamRef> = shapeOf<StreamRef>()(
  Type.Object({ tenant: Decimal, local: LocalStream }, CLOSED),
);

export const StreamKindSchema: Shape<StreamAnswer["kind"]> = shapeOf<StreamAnswer["kind"]>()(
  Type.Union([Type.Literal("table"), Type.Literal("events")]),
);

export const StreamSchema: Shape<StreamAnswer> = shapeOf<StreamAnswer>()(
  Type.Object({ id: StreamRefSchema, kind: StreamKindSchema, name: Type.String() }, CLOSED),
);

/** One item of a stream; which fields it has is told by its kind. */
export interface StreamItemAnswer {
  readonly offset: string;
  readonly logOffset: string;
  readonly timeUs: string;
  readonly actor: string;
  readonly kind: StreamItem["kind"];
  readonly data?: unknown;
  readonly cbor?: string;
  readonly before?: readonly TypedValue[] | null;
  readonly after?: readonly TypedValue[] | null;
  readonly subject?: string;
}

/** As JSON has it, and where that is not all of it, also exactly. */
const EVENT = {
  data: Type.Optional(
    Type.Unknown({
      description:
        "of an event; integers past 2^53 are decimal strings, bytes are base64: then `cbor` is there",
    }),
  ),
  cbor: Type.Optional(
    Type.String({ description: "base64 of the event as it is (RFC 8949), where JSON does not hold it" }),
  ),
};

const Row = Type.Optional(Type.Union([Type.Array(TypedValueSchema), Type.Null()]));

export const StreamItemSchema: Shape<StreamItemAnswer> = shapeOf<StreamItemAnswer>()(
  Type.Object(
    {
      offset: Decimal,
      logOffset: Decimal,
      timeUs: Microseconds,
      actor: Type.String(),
      kind: Type.Union([
        Type.Literal("event"),
        Type.Literal("insert"),
        Type.Literal("update"),
        Type.Literal("delete"),
        Type.Literal("erased"),
      ]),
      ...EVENT,
      before: Row,
      after: Row,
      subject: Type.Optional(Type.String({ description: "of an erased row: as in its certificate, hex" })),
    },
    CLOSED,
  ),
);

/** An event that another tenant shares. */
export interface SharedItemAnswer {
  readonly offset: string;
  readonly timeUs: string;
  readonly kind: "event";
  readonly data?: unknown;
  readonly cbor?: string;
}

export const SharedItemSchema: Shape<SharedItemAnswer> = shapeOf<SharedItemAnswer>()(
  Type.Object({ offset: Decimal, timeUs: Microseconds, kind: Type.Literal("event"), ...EVENT }, CLOSED),
);

export function toStreamItem(item: StreamItem): JsonValue {
  const { offset, logOffset, timeUs, actor, kind } = item;
  const base = { offset, logOffset, timeUs, actor, kind };
  if (item.kind === "event") return toJsonValue({ ...base, ...eventOf(item.data) });
  if (item.kind === "erased") return toJsonValue({ ...base, subject: item.subject });
  const { before, after } = item;
  return toJsonValue({ ...base, before: before?.map(toTyped) ?? null, after: after?.map(toTyped) ?? null });
}

export function toSharedItem({ data, ...item }: SharedItem): JsonValue {
  return toJsonValue({ ...item, ...eventOf(data) });
}

/** An event's fields of an item. */
function eventOf(data: EventValue): { readonly data: EventValue; readonly cbor?: Uint8Array } {
  return isJson(data) ? { data } : { data, cbor: encodeEvent(data, Number.MAX_SAFE_INTEGER) };
}

function isJson(value: EventValue): boolean {
  if (typeof value === "bigint" || value instanceof Uint8Array) return false;
  if (typeof value !== "object" || value === null) return true;
  return Object.values(value).every(isJson);
}
