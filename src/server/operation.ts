/**
 * What one operation of the admin API is: a row of the table from which its route, its checks, its documentation and the
 * types of its client follow.
 */
import { type Static, type TSchema, Type } from "typebox";
import type { Action } from "../auth/authorize.ts";
import type { Principal } from "../auth/principal.ts";
import type { ErrorCode } from "../errors.ts";
import type { Kimberlite } from "../kimberlite.ts";
import type { OperationOptions } from "../operations.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { Progress } from "./progress.ts";
import type { Services } from "./services.ts";

export type Method = "GET" | "POST" | "PUT" | "DELETE";

/** What an operation runs with. */
export interface Call {
  readonly db: Kimberlite;
  readonly services: Services;
  readonly principal: Principal;
  /** Who is recorded as having done it, in which request. */
  readonly by: Required<Pick<OperationOptions, "actor" | "correlationId" | "address">>;
  /** Aborted when the server goes down: work that can go on later ends. */
  readonly draining: AbortSignal;
  /** Refuses a principal that stands no more; for what outlives the check at its beginning. @throws `unauthenticated` */
  recheck(): void;
  /** Aborted when nobody waits for the answer any more. */
  readonly gone: AbortSignal;
  /** Told of how far it is by work that takes long. */
  readonly onProgress: (progress: Progress) => void;
  /** What came in the header of that name, if once. */
  header(name: string): string | undefined;
}

/** A page of a list. */
export interface Page<T> {
  readonly items: readonly T[];
  /** What to give as `cursor` for the next page; absent on the last. */
  readonly next?: string;
}

/** Lines or events that are sent as they come, in the place of one answer. */
export interface Streamed {
  readonly contentType: "text/event-stream" | "application/jsonl";
  readonly pieces: AsyncIterable<string>;
}

interface Described {
  /** Unique, such as `tenants.create`: the client's method, and OpenAPI's `operationId`. */
  readonly id: string;
  readonly method: Method;
  /** As OpenAPI writes it. `{tenant}` is a tenant's id and is authorised as such. */
  readonly path: `/v1/${string}`;
  /** What the principal must be authorised for; "authenticated" for anybody who is, "public" for anyone at all. */
  readonly action: Action | "authenticated" | "public";
  readonly summary: string;
  readonly status?: 200 | 201;
  /** Codes that it raises itself, beyond those that every operation may. */
  readonly errors?: readonly ErrorCode[];
  /** A POST whose answer is not kept under its idempotency key: it changes nothing, or keeps the key with what it does. */
  readonly unkept?: true;
  /** A POST that may take longer than a request ought to: it is a job, and may be answered as one. */
  readonly lasting?: true;
  /** Content types that it may stream in the place of its answer. */
  readonly streams?: readonly Streamed["contentType"][];
}

export interface Operation extends Described {
  /** Of the path's parameters but `{tenant}`. */
  readonly params: TSchema;
  readonly query: TSchema;
  /** Absent if it takes none. */
  readonly body: TSchema | undefined;
  readonly answer: TSchema;
  run(call: Call, input: Input): Promise<unknown>;
}

/** What came with a request, checked. */
export interface Input<P = unknown, Q = unknown, B = unknown> {
  /** The tenant of the path. Operations without one do not read it. */
  readonly tenant: TenantId;
  readonly params: P;
  readonly query: Q;
  readonly body: B;
}

/** Nothing but what is named. */
export const CLOSED = { additionalProperties: false } as const;
export const NOTHING: TSchema = Type.Object({}, CLOSED);

/** An operation whose handler is checked against its schemas; what it returns is checked against `answer` by tests. */
export function operation<
  P extends TSchema = typeof NOTHING,
  Q extends TSchema = typeof NOTHING,
  B extends TSchema = typeof NOTHING,
>(
  definition: Described & {
    readonly params?: P;
    readonly query?: Q;
    readonly body?: B;
    readonly answer: TSchema;
    readonly run: (call: Call, input: Input<Static<P>, Static<Q>, Static<B>>) => Promise<unknown>;
  },
): Operation {
  const { params = NOTHING, query = NOTHING, body } = definition;
  return { ...definition, params, query, body, run: definition.run as Operation["run"] };
}
