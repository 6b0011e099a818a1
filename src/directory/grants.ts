/**
 * The grants of a node: rows of the catalogue, all held in memory, so that one is looked at without a query at every
 * fetch. Changes are in memory only after they are durable, but for endings, which take effect at once.
 *
 * Kept: an ending that could not be written still holds in this process; the record of who made a change is in the same
 * transaction as the change.
 */
import type { AuditEvent } from "../audit/audit-event.ts";
import { noteAudit } from "../audit/audit-stream.ts";
import { kimberliteError } from "../errors.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import type { WriteSession } from "../projection/writer.ts";
import type { GrantEnd, GrantRow } from "../sharing/grant.ts";
import { deleteGrant, endGrant, insertGrant, loadGrants } from "../sharing/grant-rows.ts";
import type { StreamId, TenantId } from "../tenant/tenant-id.ts";

const ACTOR = { actor: "system", unmetered: true };

/** Most grants of an owner that stand at a time. */
const MAX_ACTIVE = 1_000;
/** Grants of an owner that have ended and are still listed. */
const MAX_ENDED = 1_000;

export class Grants {
  readonly #system: () => Promise<TenantEngine>;
  readonly #rows: Map<string, GrantRow> = new Map();
  readonly #ofTenant: Map<TenantId, Set<string>> = new Map();

  private constructor(system: () => Promise<TenantEngine>) {
    this.#system = system;
  }

  /** @throws `catalog_damaged` */
  static async load(system: () => Promise<TenantEngine>): Promise<Grants> {
    const grants = new Grants(system);
    for (const row of await loadGrants(await system())) grants.#remember(row);
    return grants;
  }

  find(id: string): GrantRow | undefined {
    return this.#rows.get(id);
  }

  active(): GrantRow[] {
    return [...this.#rows.values()].filter((row) => row.state === "active");
  }

  /** Grants from or to the tenant, oldest first. */
  of(tenant: TenantId): GrantRow[] {
    return [...(this.#ofTenant.get(tenant) ?? [])].map((id) => this.#rows.get(id) as GrantRow);
  }

  /** Grants of one stream to one reader. */
  to(reader: TenantId, stream: StreamId): GrantRow[] {
    return this.of(reader).filter(
      (row) =>
        row.toTenant === reader && row.fromTenant === stream.tenant && row.stream.local === stream.local,
    );
  }

  /** @throws `quota_exceeded` for more than a thousand that stand */
  async add(row: GrantRow, audit: AuditEvent): Promise<GrantRow> {
    this.requireRoom(row.fromTenant);
    const ended = this.of(row.fromTenant).filter(
      (one) => one.fromTenant === row.fromTenant && one.state !== "active",
    );
    const forgotten = ended.slice(0, Math.max(0, ended.length - MAX_ENDED));
    await this.#write((session) => {
      insertGrant(session, row);
      for (const { id } of forgotten) deleteGrant(session, id);
    }, audit);
    for (const { id } of forgotten) this.#forget(id);
    return this.#remember(row);
  }

  /** @throws `quota_exceeded` */
  requireRoom(owner: TenantId): void {
    const active = this.of(owner).filter((one) => one.fromTenant === owner && one.state === "active");
    if (active.length < MAX_ACTIVE) return;
    throw kimberliteError("quota_exceeded", `a tenant has at most ${MAX_ACTIVE} grants that stand`, {
      detail: { tenant: owner, policy: "grants" },
    });
  }

  /** Ends a grant: at once here, and for ever when it resolves. Idempotent: the first ending stays. */
  async end(id: string, end: GrantEnd, audit: AuditEvent): Promise<GrantRow> {
    const ended = this.close(id, end);
    await this.#write((session) => endGrant(session, id, ended as GrantEnd), audit);
    return ended;
  }

  /** Ends a grant in this process alone, before anything is written. */
  close(id: string, end: GrantEnd): GrantRow {
    const row = this.#rows.get(id) as GrantRow;
    return row.state === "active" ? this.#remember({ ...row, ...end }) : row;
  }

  /** After the catalogue forgot every grant of a tenant. */
  forgetTenant(tenant: TenantId): void {
    for (const { id } of this.of(tenant)) this.#forget(id);
  }

  async #write(work: (session: WriteSession) => void, audit: AuditEvent): Promise<void> {
    const { pipeline } = await this.#system();
    await pipeline.submit(ACTOR, (session) => {
      work(session);
      noteAudit(session, withoutNames(audit));
    });
  }

  #remember(row: GrantRow): GrantRow {
    this.#rows.set(row.id, Object.freeze(row));
    for (const tenant of [row.fromTenant, row.toTenant]) {
      const ids = this.#ofTenant.get(tenant) ?? new Set();
      this.#ofTenant.set(tenant, ids.add(row.id));
    }
    return row;
  }

  #forget(id: string): void {
    const row = this.#rows.get(id);
    this.#rows.delete(id);
    for (const tenant of [row?.fromTenant, row?.toTenant]) {
      if (tenant !== undefined) this.#ofTenant.get(tenant)?.delete(id);
    }
  }
}

/** As operators may read it: of a tenant's schema they learn nothing. Both tenants' own records have the columns. */
function withoutNames(audit: AuditEvent): AuditEvent {
  const { columns: _, ...detail } = audit.detail ?? {};
  return { ...audit, detail };
}
