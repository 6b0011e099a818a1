/**
 * Grants: made, revoked, listed, ended. Each change is in both tenants' audit streams, and in the system's in the same
 * transaction as the change itself.
 *
 * Kept: a grant stands only once both tenants have a record of it; an ending takes effect before it is written; only a
 * tenant's own streams are granted, so what is shared is not passed on. A row predicate may hold values: it is in its
 * owner's log alone. Survives: a crash at any step (a grant without a row does not stand), clocks that jump.
 */
import { auditTenant, type GovernanceOptions } from "./administration.ts";
import { type AuditAction, type AuditEvent, parseReason } from "./audit/audit-event.ts";
import { noteAudit, recordAudit } from "./audit/audit-stream.ts";
import { KimberliteError, kimberliteError } from "./errors.ts";
import type { NodeState } from "./node-state.ts";
import { parseContext } from "./operations.ts";
import type { TenantEngine } from "./pipeline/tenant-engine.ts";
import { FIRST_USER_STREAM } from "./projection/bookkeeping.ts";
import { readShape, requirePredicate } from "./projection/shared-shape.ts";
import { quoteName } from "./projection/tables.ts";
import {
  type Grant,
  type GrantEnd,
  type GrantRow,
  type GrantTimes,
  grantError,
  hasExpired,
} from "./sharing/grant.ts";
import {
  type GrantRequest,
  type GrantTerms,
  grantedColumns,
  parseTerms,
  streamNotFound,
} from "./sharing/grant-terms.ts";
import { encodeEvent } from "./stream/event.ts";
import { readItems } from "./stream/stream-reader.ts";
import type { TenantId } from "./tenant/tenant-id.ts";

/** The owner's stream of row predicates: local stream 2, made with the first. */
export const PREDICATE_STREAM = 2;
const PREDICATE_STREAM_NAME = "_kimberlite_predicates";
const MAX_COLUMN_NAMES = 1_000;

/** What is shared of a stream, as it is now. */
type Shared = Pick<GrantRow, "kind" | "name" | "columns" | "shape">;

export class Granting {
  readonly #node: NodeState;
  readonly #admit: (id: TenantId) => unknown;
  /** Row predicates of grants that were used. */
  readonly #predicates: Map<string, string> = new Map();
  #latestUs = 0n;

  /** @param admit throws if a tenant is not served. */
  constructor(node: NodeState, admit: (id: TenantId) => unknown) {
    this.#node = node;
    this.#admit = admit;
  }

  /** @throws as `Kimberlite.grantAccess` */
  async grant(request: GrantRequest): Promise<Grant> {
    const terms = parseTerms(request);
    const purpose = parseReason(request.purpose);
    const { actor, correlationId } = parseContext(request);
    const { fromTenant: owner, toTenant: reader, expirationUs, notBeforeUs, maxRows, where } = terms;
    this.#admit(owner);
    this.#node.directory.get(reader);
    this.#node.grants.requireRoom(owner);
    const createdAtUs = this.times().latestUs;
    const row: GrantRow = {
      id: Buffer.from(this.#node.randomness.bytes(16)).toString("hex"),
      fromTenant: owner,
      toTenant: reader,
      stream: terms.stream,
      ...(await this.#node.tenants.use(owner, (engine) => sharedNow(engine, terms))),
      permissions: "read",
      ...(maxRows === undefined ? {} : { maxRows }),
      purpose,
      actor,
      createdAtUs,
      ...(notBeforeUs === undefined ? {} : { notBeforeUs }),
      ...(expirationUs === undefined ? {} : { expiresAtUs: createdAtUs + expirationUs }),
      state: "active",
    };
    const event = grantEvent(row, "grant.create", { actor, correlationId, reason: purpose });
    const began = { ...event, outcome: "began" as const };
    const predicate = await this.#node.tenants.use(owner, (engine) => definePredicate(engine, began, where));
    await this.#node.tenants.use(reader, (engine) => recordAudit(engine, began));
    const stored = { ...row, ...(predicate === undefined ? {} : { predicate }) };
    await this.#node.grants.add(stored, { ...event, tenant: owner });
    return shownTo(owner, stored, where);
  }

  /** @throws `grant_not_found`, `invalid_argument` */
  async revoke(id: string, options: GovernanceOptions): Promise<Grant> {
    const row = this.find(id);
    const reason = parseReason(options?.reason);
    const about = { ...parseContext(options), reason };
    if (row.state !== "active") return shownTo(row.fromTenant, row, undefined);
    const end: GrantEnd = { state: "revoked", endedAtUs: this.times().latestUs, endReason: reason };
    return shownTo(
      row.fromTenant,
      await this.#end(row, end, grantEvent(row, "grant.revoke", about)),
      undefined,
    );
  }

  /** Grants from and to a tenant, oldest first. */
  async list(id: TenantId): Promise<Grant[]> {
    return Promise.all(this.#node.grants.of(id).map((row) => this.describe(id, row.id)));
  }

  /** @throws `grant_not_found`, also for a grant between others */
  async describe(id: TenantId, grantId: string): Promise<Grant> {
    await this.expire([this.findFor(id, grantId)]);
    const row = this.findFor(id, grantId);
    const own = row.fromTenant === id && row.state === "active";
    return shownTo(id, row, own ? await this.predicateOf(row) : undefined);
  }

  /** @throws `grant_not_found`, also for a grant between others */
  findFor(id: TenantId, grantId: string): GrantRow {
    const row = this.find(grantId);
    if (row.fromTenant === id || row.toTenant === id) return row;
    throw grantError("grant_not_found");
  }

  /** @throws `grant_not_found` */
  find(id: unknown): GrantRow {
    const row = typeof id === "string" ? this.#node.grants.find(id) : undefined;
    if (row === undefined) throw grantError("grant_not_found");
    return row;
  }

  /** The times to judge grants by. What was ever seen as the latest stays, and each commit of an owner leaves one. */
  times(engine?: TenantEngine): GrantTimes {
    const { clock, system } = this.#node;
    const seen = [
      clock.wallTimeUs(),
      clock.trustedUs(),
      system.log.head.lastTimeUs,
      engine?.log.head.lastTimeUs ?? 0n,
    ];
    this.#latestUs = seen.reduce((latest, time) => (time > latest ? time : latest), this.#latestUs);
    const wallUs = clock.wallTimeUs();
    const trustedUs = clock.trustedUs();
    return { latestUs: this.#latestUs, earliestUs: wallUs < trustedUs ? wallUs : trustedUs };
  }

  /** Ends those whose time is over. */
  async expire(rows: readonly GrantRow[]): Promise<void> {
    const times = this.times();
    for (const row of rows) {
      if (!hasExpired(row, times)) continue;
      const end: GrantEnd = {
        state: "expired",
        endedAtUs: row.expiresAtUs as bigint,
        endReason: "its time was over",
      };
      await this.#end(row, end, grantEvent(row, "grant.expire", { actor: "system" }));
    }
  }

  /** Ends a grant of what is not there any more. */
  async endLost(row: GrantRow, why: string): Promise<void> {
    const end: GrantEnd = { state: "ended", endedAtUs: this.times().latestUs, endReason: why };
    await this.#end(row, end, grantEvent(row, "grant.end", { actor: "system", reason: why }));
  }

  /** The row predicate of a grant; undefined if all rows are shared. Read under the owner's keys, once. */
  async predicateOf(row: GrantRow): Promise<string | undefined> {
    const { predicate: offset, id, fromTenant } = row;
    if (offset === undefined) return undefined;
    const known = this.#predicates.get(id);
    if (known !== undefined) return known;
    const text = await this.#node.tenants.use(fromTenant, (engine) => readPredicate(engine, offset));
    if (text === undefined) throw grantError("grant_ended", row);
    this.#predicates.set(id, text);
    return text;
  }

  /** An erasure of owner or reader ends their grants: told to the other, who is still there. */
  async tenantErased(tenant: TenantId): Promise<void> {
    for (const row of this.#node.grants.of(tenant)) {
      const other = row.fromTenant === tenant ? row.toTenant : row.fromTenant;
      const end: GrantEnd = {
        state: "ended",
        endedAtUs: this.times().latestUs,
        endReason: "a tenant was erased",
      };
      const closed = row.state === "active" ? this.#node.grants.close(row.id, end) : undefined;
      this.#predicates.delete(row.id);
      if (closed === undefined) continue;
      await this.#tell(other, grantEvent(row, "grant.end", { actor: "system", reason: end.endReason }));
    }
  }

  async #end(row: GrantRow, end: GrantEnd, event: AuditEvent): Promise<GrantRow> {
    this.#node.grants.close(row.id, end);
    this.#predicates.delete(row.id);
    const told = await Promise.all([this.#tell(row.fromTenant, event), this.#tell(row.toTenant, event)]);
    return this.#node.grants.end(row.id, end, told.find(({ detail }) => detail?.["tenantStream"]) ?? told[0]);
  }

  /** Into the tenant's own stream, if it can be written. */
  async #tell(tenant: TenantId, event: AuditEvent): Promise<AuditEvent> {
    return auditTenant(this.#node, tenant, { ...event, tenant });
  }
}

/** What an event says of a grant: names, ids and counts. */
export function grantEvent(
  row: GrantRow,
  action: Extract<AuditAction, `grant.${string}`>,
  about: Partial<AuditEvent> & Pick<AuditEvent, "actor">,
): AuditEvent {
  const { id, fromTenant, toTenant, stream, columns } = row;
  const names = columns === undefined ? {} : { columns: columns.join(", ").slice(0, MAX_COLUMN_NAMES) };
  const detail = {
    grant: id,
    owner: fromTenant,
    reader: toTenant,
    stream: stream.local,
    ...names,
    ...about.detail,
  };
  return { outcome: "done", ...about, action, detail };
}

/** The grant as a tenant may see it. */
function shownTo(tenant: TenantId, row: GrantRow, where: string | undefined): Grant {
  const { shape: _, predicate: __, ...shown } = row;
  return where === undefined || tenant !== row.fromTenant ? shown : { ...shown, where };
}

/** @throws `stream_not_found`, `invalid_argument`, `invalid_sql` */
async function sharedNow(engine: TenantEngine, terms: GrantTerms): Promise<Shared> {
  const { stream, columns, where } = terms;
  const row = (await engine.settledReader()).bookkeeping.stream(stream.local);
  if (row === undefined || row.dropped || row.id < FIRST_USER_STREAM) throw streamNotFound(stream);
  if (row.kind === "events") {
    if (columns === undefined && where === undefined) return { kind: "events", name: row.name };
    throw kimberliteError("invalid_argument", "an event stream has no columns and no rows to choose from");
  }
  const snapshot = await engine.snapshot();
  const shape = (() => {
    try {
      return readShape(snapshot, row);
    } finally {
      snapshot.close();
    }
  })();
  if (shape === undefined) {
    throw kimberliteError("invalid_argument", "only ordinary tables and event streams are shared");
  }
  if (where !== undefined) {
    requirePredicate(shape, row.name, where);
    await engine.query({ sql: `SELECT 1 FROM ${quoteName(row.name)} WHERE (\n${where}\n) LIMIT 0` });
  }
  return { kind: "table", name: row.name, columns: grantedColumns(shape, columns), shape };
}

/** Records the grant, and its row predicate beside. @returns the offset of that, if there is one */
async function definePredicate(
  engine: TenantEngine,
  event: AuditEvent,
  where: string | undefined,
): Promise<bigint | undefined> {
  const { actor, correlationId } = event;
  const context = { actor, correlationId, unmetered: true };
  const { value } = await engine.pipeline.submit(context, (session) => {
    noteAudit(session, event);
    if (where === undefined) return undefined;
    session.ensureStream(PREDICATE_STREAM, PREDICATE_STREAM_NAME);
    const grant = String(event.detail?.["grant"]);
    return session.appendEvents(PREDICATE_STREAM, [encodeEvent({ grant, where }, Number.MAX_SAFE_INTEGER)]);
  });
  return value;
}

/** Undefined for one that was trimmed. */
async function readPredicate(engine: TenantEngine, offset: bigint): Promise<string | undefined> {
  const stream = (await engine.settledReader()).bookkeeping.stream(PREDICATE_STREAM);
  if (stream === undefined) return undefined;
  try {
    for await (const item of readItems(engine, stream, { from: offset, limit: 1 })) {
      if (item.kind === "event") return (item.data as { readonly where: string }).where;
    }
  } catch (error) {
    if (!(error instanceof KimberliteError) || error.code !== "offset_trimmed") throw error;
  }
  return undefined;
}
