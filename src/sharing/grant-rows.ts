/**
 * Grants as rows of the catalogue. What is there is names, ids and times; a row predicate may hold values, so it is in
 * its owner's log alone, under the owner's keys.
 */
import { kimberliteError } from "../errors.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import type { SharedShape } from "../projection/shared-table.ts";
import type { WriteSession } from "../projection/writer.ts";
import { StreamId, TenantId } from "../tenant/tenant-id.ts";
import type { GrantEnd, GrantRow, GrantState } from "./grant.ts";

export const GRANTS_TABLE = `CREATE TABLE grants (
  id TEXT PRIMARY KEY, owner INTEGER NOT NULL, reader INTEGER NOT NULL, stream INTEGER NOT NULL, kind TEXT NOT NULL,
  name TEXT NOT NULL, terms TEXT NOT NULL, purpose TEXT NOT NULL, actor TEXT NOT NULL, created_at_us INTEGER NOT NULL,
  not_before_us INTEGER, expires_at_us INTEGER, predicate INTEGER, state TEXT NOT NULL,
  ended_at_us INTEGER, end_reason TEXT) STRICT`;

/** What `terms` holds, as JSON. */
interface StoredTerms {
  readonly columns?: readonly string[];
  readonly maxRows?: number;
  readonly shape?: SharedShape;
}

export function insertGrant(session: WriteSession, grant: GrantRow): void {
  const { columns, maxRows, shape } = grant;
  const params = [
    grant.id,
    grant.fromTenant,
    grant.toTenant,
    grant.stream.local,
    grant.kind,
    grant.name,
    JSON.stringify({ columns, maxRows, shape }),
    grant.purpose,
    grant.actor,
    grant.createdAtUs,
    grant.notBeforeUs ?? null,
    grant.expiresAtUs ?? null,
    grant.predicate ?? null,
    grant.state,
  ];
  const places = params.map(() => "?").join(", ");
  session.run({ sql: `INSERT INTO grants VALUES (${places}, NULL, NULL)`, params });
}

export function endGrant(session: WriteSession, id: string, end: GrantEnd): void {
  const params = [end.state, end.endedAtUs, end.endReason, id];
  session.run({ sql: "UPDATE grants SET state = ?, ended_at_us = ?, end_reason = ? WHERE id = ?", params });
}

export function deleteGrant(session: WriteSession, id: string): void {
  session.run({ sql: "DELETE FROM grants WHERE id = ?", params: [id] });
}

/** Every grant from or to the tenant. */
export function deleteGrantsOf(session: WriteSession, tenant: TenantId): void {
  session.run({ sql: "DELETE FROM grants WHERE owner = ?1 OR reader = ?1", params: [tenant] });
}

/** @throws `catalog_damaged` */
export async function loadGrants(engine: TenantEngine): Promise<GrantRow[]> {
  const reader = await engine.settledReader();
  const { rows } = reader.query({ sql: "SELECT * FROM grants ORDER BY created_at_us" });
  return (rows as unknown as Record<string, unknown>[]).map(parseGrant);
}

function parseGrant(row: Record<string, unknown>): GrantRow {
  try {
    const { columns, maxRows, shape } = JSON.parse(row["terms"] as string) as StoredTerms;
    const fromTenant = TenantId(row["owner"] as bigint);
    return {
      id: row["id"] as string,
      fromTenant,
      toTenant: TenantId(row["reader"] as bigint),
      stream: StreamId(fromTenant, row["stream"] as number),
      kind: row["kind"] as GrantRow["kind"],
      name: row["name"] as string,
      permissions: "read",
      purpose: row["purpose"] as string,
      actor: row["actor"] as string,
      createdAtUs: BigInt(row["created_at_us"] as bigint),
      state: row["state"] as GrantState,
      ...(columns === undefined ? {} : { columns }),
      ...(maxRows === undefined ? {} : { maxRows }),
      ...(shape === undefined ? {} : { shape }),
      ...optional("notBeforeUs", row["not_before_us"], BigInt),
      ...optional("expiresAtUs", row["expires_at_us"], BigInt),
      ...optional("predicate", row["predicate"], BigInt),
      ...optional("endedAtUs", row["ended_at_us"], BigInt),
      ...optional("endReason", row["end_reason"], String),
    };
  } catch (cause) {
    throw kimberliteError("catalog_damaged", "the catalogue holds a grant that is not what it should be", {
      cause,
    });
  }
}

function optional<K extends string, T>(
  name: K,
  value: unknown,
  convert: (value: bigint) => T,
): { readonly [key in K]?: T } {
  return value === null ? {} : ({ [name]: convert(value as bigint) } as { readonly [key in K]?: T });
}
