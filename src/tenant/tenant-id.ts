/**
 * Branded ids of tenants and streams, each made by one parse function that rejects nonsense.
 *
 * A raw `bigint`, `number` or `string` never reaches a tenant-scoped function: a stream id, an offset or a row id
 * cannot be passed where a tenant is expected.
 */
import { kimberliteError } from "../errors.ts";

declare const tenantBrand: unique symbol;
declare const streamBrand: unique symbol;

/** A tenant's id: an integer in 1 … 2⁶³−1. Tenant 0 is the system's and cannot be made here. */
export type TenantId = bigint & { readonly [tenantBrand]: true };

/** One stream of one tenant: `local` is the stream's number within the tenant, 1 … 2³¹−1. */
export type StreamId = {
  readonly tenant: TenantId;
  readonly local: number;
  readonly [streamBrand]: true;
};

const MAX_TENANT_ID = 2n ** 63n - 1n;
const MAX_STREAM_LOCAL = 2 ** 31 - 1;

/** The system tenant: its log and projection hold the catalogue. */
export const SYSTEM_TENANT: TenantId = 0n as TenantId;

/**
 * Parses a tenant id from a number, bigint or decimal string.
 *
 * @throws `invalid_argument` for anything but an integer in 1 … 2⁶³−1 (a number must also be a safe integer).
 */
export function TenantId(value: number | bigint | string): TenantId {
  const id = parseInteger(value);
  if (id === undefined || id < 1n || id > MAX_TENANT_ID) {
    throw kimberliteError("invalid_argument", "a tenant id is an integer from 1 to 2^63-1");
  }
  return id as TenantId;
}

/**
 * Names a stream of a tenant.
 *
 * @throws `invalid_argument` unless `local` is an integer in 1 … 2³¹−1.
 */
export function StreamId(
  tenant: TenantId | number | bigint | string,
  local: number | bigint | string,
): StreamId {
  const number = parseInteger(local);
  if (number === undefined || number < 1n || number > BigInt(MAX_STREAM_LOCAL)) {
    throw kimberliteError("invalid_argument", "a stream's local id is an integer from 1 to 2^31-1");
  }
  return Object.freeze({ tenant: TenantId(tenant), local: Number(number) }) as StreamId;
}

/** True for a value that `StreamId` made, or one of its shape. */
export function isStreamId(value: unknown): value is StreamId {
  if (typeof value !== "object" || value === null) return false;
  const { tenant, local } = value as { tenant?: unknown; local?: unknown };
  return typeof tenant === "bigint" && typeof local === "number" && Number.isInteger(local) && local >= 1;
}

function parseInteger(value: unknown): bigint | undefined {
  if (typeof value === "bigint") return value;
  if (typeof value === "number") return Number.isSafeInteger(value) ? BigInt(value) : undefined;
  if (typeof value === "string" && /^(0|[1-9][0-9]{0,18})$/.test(value)) return BigInt(value);
  return undefined;
}
