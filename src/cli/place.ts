/** Where statements go: a tenant of the installation in a directory, or over a server the tenant of a token. */
import type { TenantDescription } from "../operations.ts";
import type { Moment } from "../pipeline/time-travel.ts";
import type { SqlParams } from "../projection/values.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { Outcome } from "./statement.ts";

export interface Place {
  readonly tenant: TenantId;
  /** With `at` it only reads. */
  run(sql: string, params?: SqlParams, at?: Moment): Promise<Outcome>;
  /** All statements as one transaction. */
  runAsOne(statements: readonly string[]): Promise<readonly Outcome[]>;
  describe(): Promise<TenantDescription>;
  streams(): Promise<
    readonly { readonly id: { readonly local: number }; readonly kind: string; readonly name: string }[]
  >;
  verify(): Promise<Verified>;
}

/** What a look at a tenant's whole log found. */
export interface Verified {
  readonly ok: boolean;
  readonly tenant: TenantId;
  readonly size: bigint;
  readonly trimmed: bigint;
  readonly blocks: number;
  readonly bytes: number;
  readonly root: Buffer;
  readonly roots?: unknown;
  readonly firstBadOffset?: bigint;
  readonly reason?: string;
}
