/** What may be told of a tenant's keys: versions, ages and the name of the master key. */
import type { TenantId } from "../tenant/tenant-id.ts";
import type { StoredKeys } from "./stored-keys.ts";

/** One key version. */
export interface KeyVersionReport {
  readonly version: number;
  /** Microseconds since 1970-01-01T00:00:00Z. */
  readonly createdAtUs: bigint;
  /** Milliseconds by the wall clock, never below 0. */
  readonly ageMs: number;
}

/** The hierarchy of one tenant, without a byte of any key. */
export interface TenantKeyReport {
  readonly tenant: TenantId;
  readonly masterKeyId: string;
  readonly kek: KeyVersionReport;
  /** Ascending by version. */
  readonly deks: readonly KeyVersionReport[];
  /** The DEK version that the projection is encrypted under. */
  readonly projectionDek: number;
  readonly hasSigningKey: boolean;
}

/** The report of an entry, with ages as of `nowUs`. */
export function reportKeys(tenant: TenantId, stored: StoredKeys, nowUs: bigint): TenantKeyReport {
  const version = (key: { readonly version: number; readonly createdAtUs: bigint }): KeyVersionReport => {
    const ageMs = Math.max(0, Number((nowUs - key.createdAtUs) / 1_000n));
    return { version: key.version, createdAtUs: key.createdAtUs, ageMs };
  };
  return {
    tenant,
    masterKeyId: stored.kek.masterKeyId,
    kek: version(stored.kek),
    deks: stored.deks.map(version),
    projectionDek: stored.projectionDek,
    hasSigningKey: stored.signingKey !== undefined,
  };
}
