/** What is asked for in a grant, parsed. */
import { kimberliteError } from "../errors.ts";
import { findColumn, type SharedShape } from "../projection/shared-table.ts";
import { parseCount } from "../tenant/call-options.ts";
import type { Duration } from "../tenant/duration.ts";
import { isStreamId, StreamId, TenantId } from "../tenant/tenant-id.ts";
import { type Permission, Permissions } from "./grant.ts";

/** What is asked for. */
export interface GrantRequest {
  readonly fromTenant: TenantId;
  readonly toTenant: TenantId;
  /** A table or an event stream of `fromTenant`. */
  readonly stream: StreamId;
  readonly permissions: Permission;
  /** How long it stands, from when it is made; until it is revoked unless given. */
  readonly expiration?: Duration;
  /** When it begins to stand; at once unless given. */
  readonly notBefore?: Date;
  /** Of a table, the columns that are shared; all that there are when it is granted, unless given. */
  readonly columns?: readonly string[];
  /**
   * Of a table, an SQL expression over its columns: the rows that are shared. Operators and simple functions, without
   * parameters and subqueries.
   */
  readonly where?: string;
  /** Most rows or events that are shared: the first ones, in the order of the table's key or of the stream. */
  readonly maxRows?: number;
  /** Why, 1 to 1,000 characters: recorded at both tenants with each use. */
  readonly purpose: string;
  readonly actor?: string;
  readonly correlationId?: string;
}

export interface GrantTerms {
  readonly fromTenant: TenantId;
  readonly toTenant: TenantId;
  readonly stream: StreamId;
  readonly columns: readonly string[] | undefined;
  readonly where: string | undefined;
  readonly maxRows: number | undefined;
  readonly notBeforeUs: bigint | undefined;
  readonly expirationUs: bigint | undefined;
}

const MAX_COLUMNS = 1_000;
const MAX_WHERE = 4_000;
const MAX_ROWS = 1_000_000_000;
/** A hundred years. */
const MAX_EXPIRATION_MS = 36_525 * 86_400_000;

/** @throws `invalid_argument`; `stream_not_found` for a stream that is not the owner's: what is shared is not passed on */
export function parseTerms(request: Partial<GrantRequest>): GrantTerms {
  const given: Readonly<Record<string, unknown>> = { ...request };
  const fromTenant = TenantId(given["fromTenant"] as bigint);
  const toTenant = TenantId(given["toTenant"] as bigint);
  if (fromTenant === toTenant) throw invalid("a grant is from one tenant to another");
  const stream = given["stream"];
  if (!isStreamId(stream)) throw invalid("a stream is named by a StreamId");
  if (stream.tenant !== fromTenant) throw streamNotFound(stream);
  if (given["permissions"] !== Permissions.Read) throw invalid("permissions are Permissions.Read");
  const { maxRows } = given;
  return {
    fromTenant,
    toTenant,
    stream: StreamId(stream.tenant, stream.local),
    columns: parseColumns(given["columns"]),
    where: parseWhere(given["where"]),
    maxRows:
      maxRows === undefined ? undefined : parseCount(maxRows, { name: "maxRows", min: 1, max: MAX_ROWS }),
    notBeforeUs: parseDate(given["notBefore"]),
    expirationUs: parseExpiration(given["expiration"]),
  };
}

/** The columns of a table that are granted, as the table spells them. @throws `invalid_argument` for one that it lacks */
export function grantedColumns(shape: SharedShape, asked: readonly string[] | undefined): readonly string[] {
  if (asked === undefined) return shape.columns.map(({ name }) => name);
  const names = asked.map((name) => findColumn(shape, name)?.name);
  const found = names.filter((name) => name !== undefined);
  if (found.length < names.length) throw invalid("the table lacks a column that is named");
  if (new Set(found).size < found.length) throw invalid("a column is named twice");
  return found;
}

export function streamNotFound({ tenant, local }: StreamId): Error {
  return kimberliteError("stream_not_found", "there is no such stream in this tenant", {
    detail: { tenant, stream: local },
  });
}

function parseColumns(columns: unknown): readonly string[] | undefined {
  if (columns === undefined) return undefined;
  const sane = Array.isArray(columns) && columns.length > 0 && columns.length <= MAX_COLUMNS;
  if (sane && columns.every((name) => typeof name === "string" && name.isWellFormed())) return [...columns];
  throw invalid(`columns are a list of 1 to ${MAX_COLUMNS} names`);
}

function parseWhere(where: unknown): string | undefined {
  if (where === undefined) return undefined;
  const sane =
    typeof where === "string" && where.trim() !== "" && where.length <= MAX_WHERE && where.isWellFormed();
  if (sane && !where.includes("\0")) return where;
  throw invalid(`where is an SQL expression of at most ${MAX_WHERE} characters`);
}

function parseDate(date: unknown): bigint | undefined {
  if (date === undefined) return undefined;
  if (!(date instanceof Date) || Number.isNaN(date.getTime())) throw invalid("notBefore is a Date");
  return BigInt(date.getTime()) * 1000n;
}

function parseExpiration(expiration: unknown): bigint | undefined {
  if (expiration === undefined) return undefined;
  const ms = (expiration as { readonly ms?: unknown } | null)?.ms;
  const name = "expiration, a Duration, in milliseconds";
  return BigInt(parseCount(ms, { name, min: 1, max: MAX_EXPIRATION_MS })) * 1000n;
}

function invalid(message: string): Error {
  return kimberliteError("invalid_argument", message);
}
