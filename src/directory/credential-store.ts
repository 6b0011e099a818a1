/**
 * Credentials of the node: API keys by their hash, and the issuers that tenants registered. Rows of the system tenant, so
 * they are encrypted and logged as tenants' data are; all of them are in memory, so that each request is answered from
 * there and a revocation holds from the moment it is durable.
 *
 * Bounded: keys and issuers a tenant. A secret is nowhere, not even sealed.
 */

import type { AuditEvent } from "../audit/audit-event.ts";
import { noteAudit } from "../audit/audit-stream.ts";
import type { ApiKeyRecord } from "../auth/api-key.ts";
import { endOf } from "../auth/api-key.ts";
import type { Issuer, IssuerDescription, RegisteredIssuer } from "../auth/issuer.ts";
import type { TenantRole } from "../auth/principal.ts";
import { kimberliteError } from "../errors.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import type { WriteSession } from "../projection/writer.ts";
import { SYSTEM_TENANT, TenantId } from "../tenant/tenant-id.ts";
import { damaged, integer, requireNoErasure, type SqlRow, select, text } from "./catalogue.ts";

const MAX_KEYS = 1_000;
const MAX_ISSUERS = 16;
const ACTOR = { actor: "system", unmetered: true };

/** `undefined` stands for the node's operators. */
type Owner = TenantId | undefined;

export class CredentialStore {
  readonly #system: () => Promise<TenantEngine>;
  readonly #keys: Map<string, ApiKeyRecord> = new Map();
  readonly #byOwner: Map<Owner, Set<string>> = new Map();
  readonly #issuers: Map<TenantId, Map<string, RegisteredIssuer & Issuer>> = new Map();
  readonly #lastUsed: Map<string, bigint> = new Map();

  private constructor(system: () => Promise<TenantEngine>) {
    this.#system = system;
  }

  /** @throws `catalog_damaged` */
  static async load(system: () => Promise<TenantEngine>): Promise<CredentialStore> {
    const store = new CredentialStore(system);
    const engine = await system();
    for (const row of await select(engine, "SELECT * FROM api_keys")) store.#remember(parseKey(row));
    for (const row of await select(engine, "SELECT * FROM issuers")) store.#rememberIssuer(parseRow(row));
    for (const row of await select(engine, "SELECT * FROM api_key_uses")) {
      store.#lastUsed.set(text(row, "id"), integer(row, "last_used_at_us"));
    }
    return store;
  }

  key(id: string): ApiKeyRecord | undefined {
    return this.#keys.get(id);
  }

  /** Keys of a tenant or of the operators, oldest first, ended ones included. */
  keysOf(owner: Owner): ApiKeyRecord[] {
    const keys = [...(this.#byOwner.get(owner) ?? [])].map((id) => this.#keys.get(id) as ApiKeyRecord);
    return keys.sort((a, b) => (a.createdAtUs < b.createdAtUs ? -1 : 1));
  }

  lastUsedAtUs(id: string): bigint | undefined {
    return this.#lastUsed.get(id);
  }

  /** True once the tenant ever had a key, other than an enrolment, or has an issuer. */
  hasCredentials(tenant: TenantId): boolean {
    return this.issuersOf(tenant).length > 0 || this.keysOf(tenant).some((key) => key.enrolment !== true);
  }

  /**
   * Adds a key; `ends` is the enrolment that makes it, which ends in the same transaction.
   *
   * @throws `not_authorized` if that has ended already; `quota_exceeded` for more than 1,000 that stand
   */
  async addKey(
    record: ApiKeyRecord,
    about: { readonly nowUs: bigint; readonly audit: AuditEvent; readonly ends?: string | undefined },
  ): Promise<void> {
    const { nowUs, audit, ends } = about;
    const removed = this.#makeRoom(record.tenant, nowUs);
    const id = record.id;
    // Taken at once, so that many at the same time do not pass the limit together.
    this.#remember(record);
    try {
      await this.#write(
        (session) => {
          if (ends !== undefined) endEnrolment(session, ends, nowUs);
          for (const old of removed) deleteKey(session, old);
          insertKey(session, record);
        },
        audit,
        record.tenant,
      );
    } catch (error) {
      this.#forgetKey(id);
      throw error;
    }
    for (const old of removed) this.#forgetKey(old);
    const ended = ends === undefined ? undefined : this.#keys.get(ends);
    if (ended !== undefined) this.#remember({ ...ended, revokedAtUs: nowUs });
  }

  async revokeKey(record: ApiKeyRecord, nowUs: bigint, audit: AuditEvent): Promise<ApiKeyRecord> {
    const revoked = { ...record, revokedAtUs: nowUs };
    await this.#write((session) => {
      session.run({ sql: "UPDATE api_keys SET revoked_at_us = ? WHERE id = ?", params: [nowUs, record.id] });
    }, audit);
    this.#remember(revoked);
    return revoked;
  }

  noteUse(id: string, nowUs: bigint): void {
    this.#lastUsed.set(id, nowUs);
  }

  /** Writes when these keys were last used, in one record. */
  async writeUses(ids: readonly string[]): Promise<void> {
    await this.#write((session) => {
      for (const id of ids) {
        const lastUsed = this.#lastUsed.get(id);
        if (lastUsed === undefined || !this.#keys.has(id)) continue;
        session.run({ sql: "INSERT OR REPLACE INTO api_key_uses VALUES (?, ?)", params: [id, lastUsed] });
      }
    });
  }

  issuer(tenant: TenantId, issuer: string): (RegisteredIssuer & Issuer) | undefined {
    return this.#issuers.get(tenant)?.get(issuer);
  }

  issuersOf(tenant: TenantId): RegisteredIssuer[] {
    return [...(this.#issuers.get(tenant)?.values() ?? [])].map(({ operators: _, ...known }) => known);
  }

  /** Adds an issuer, or replaces the tenant's of that name. @throws `quota_exceeded` for more than 16 */
  async putIssuer(issuer: RegisteredIssuer, audit: AuditEvent): Promise<void> {
    const { tenant, createdAtUs, createdBy, ...config } = issuer;
    this.requireRoomForIssuer(tenant, issuer.issuer);
    await this.#write(
      (session) => {
        const params = [tenant, issuer.issuer, JSON.stringify(config), createdAtUs, createdBy];
        session.run({ sql: "INSERT OR REPLACE INTO issuers VALUES (?, ?, ?, ?, ?)", params });
      },
      audit,
      tenant,
    );
    this.#rememberIssuer(issuer);
  }

  async removeIssuer(tenant: TenantId, issuer: string, audit: AuditEvent): Promise<void> {
    await this.#write((session) => {
      const params = [tenant, issuer];
      session.run({ sql: "DELETE FROM issuers WHERE tenant = ? AND issuer = ?", params });
    }, audit);
    this.#issuers.get(tenant)?.delete(issuer);
  }

  /**
   * Ends every key and issuer, in one transaction, with a record for each whose they are in the system's audit stream: the
   * tenants' own would have to be opened, each of them.
   */
  async endAll(about: {
    readonly nowUs: bigint;
    readonly actor: string;
    readonly why: string;
  }): Promise<void> {
    const { nowUs, actor, why } = about;
    const standing = [...this.#keys.values()].filter((key) => key.revokedAtUs === undefined);
    const keysOf = Map.groupBy(standing, ({ tenant }): Owner => tenant);
    const owners = new Set<Owner>([...keysOf.keys(), ...this.#issuers.keys()]);
    const events = [...owners].map((tenant) => {
      const issuers = tenant === undefined ? 0 : (this.#issuers.get(tenant)?.size ?? 0);
      const detail = { keys: keysOf.get(tenant)?.length ?? 0, issuers };
      return {
        action: "token.revoke" as const,
        outcome: "done" as const,
        actor,
        reason: why,
        tenant,
        detail,
      };
    });
    await this.#write((session) => {
      const params = [nowUs];
      session.run({ sql: "UPDATE api_keys SET revoked_at_us = ? WHERE revoked_at_us IS NULL", params });
      session.run({ sql: "DELETE FROM issuers", params: [] });
      for (const event of events) noteAudit(session, event);
    });
    for (const record of standing) this.#remember({ ...record, revokedAtUs: nowUs });
    this.#issuers.clear();
  }

  /** Drops a tenant's credentials from memory; their rows go with its erasure. */
  forget(tenant: TenantId): void {
    for (const id of [...(this.#byOwner.get(tenant) ?? [])]) this.#forgetKey(id);
    this.#byOwner.delete(tenant);
    this.#issuers.delete(tenant);
  }

  /** @throws `quota_exceeded` if no more keys of this owner fit */
  requireRoom(owner: Owner, nowUs: bigint): void {
    this.#makeRoom(owner, nowUs);
  }

  /** @throws `quota_exceeded` if no more issuers of the tenant fit */
  requireRoomForIssuer(tenant: TenantId, issuer: string): void {
    const others = this.issuersOf(tenant).filter((one) => one.issuer !== issuer);
    if (others.length >= MAX_ISSUERS) throw tooMany("issuers", MAX_ISSUERS);
  }

  /** Ids of ended keys that go so that one more fits. @throws `quota_exceeded` */
  #makeRoom(owner: Owner, nowUs: bigint): string[] {
    const keys = this.keysOf(owner);
    if (keys.length < MAX_KEYS) return [];
    const oldest = keys.find((key) => endOf(key, nowUs) !== undefined);
    if (oldest === undefined) throw tooMany("API keys", MAX_KEYS);
    return [oldest.id];
  }

  /** Of a tenant whose erasure has begun nothing is written any more. */
  async #write(work: (session: WriteSession) => void, audit?: AuditEvent, tenant?: Owner): Promise<void> {
    const { pipeline } = await this.#system();
    await pipeline.submit(ACTOR, (session) => {
      if (tenant !== undefined) requireNoErasure(session, tenant);
      work(session);
      if (audit !== undefined) noteAudit(session, audit);
    });
  }

  #remember(record: ApiKeyRecord): void {
    this.#keys.set(record.id, Object.freeze(record));
    const ids = this.#byOwner.get(record.tenant) ?? new Set();
    this.#byOwner.set(record.tenant, ids.add(record.id));
  }

  #forgetKey(id: string): void {
    const record = this.#keys.get(id);
    this.#keys.delete(id);
    this.#lastUsed.delete(id);
    this.#byOwner.get(record?.tenant)?.delete(id);
  }

  #rememberIssuer(issuer: RegisteredIssuer): void {
    const issuers = this.#issuers.get(issuer.tenant) ?? new Map();
    this.#issuers.set(issuer.tenant, issuers);
    issuers.set(issuer.issuer, Object.freeze({ ...issuer, operators: false }));
  }
}

/** Within the transaction that begins an erasure. */
export function deleteCredentials(session: WriteSession, tenant: TenantId): void {
  const params = [tenant];
  session.run({
    sql: "DELETE FROM api_key_uses WHERE id IN (SELECT id FROM api_keys WHERE tenant = ?)",
    params,
  });
  session.run({ sql: "DELETE FROM api_keys WHERE tenant = ?", params });
  session.run({ sql: "DELETE FROM issuers WHERE tenant = ?", params });
}

function insertKey(session: WriteSession, record: ApiKeyRecord): void {
  const { id, tenant, role, name, hash, grant, enrolment, createdAtUs, createdBy, expiresAtUs } = record;
  const owner = tenant ?? SYSTEM_TENANT;
  const first = [id, owner, role, name, hash, grant ?? null, enrolment === true ? 1 : 0];
  session.run({
    sql: "INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
    params: [...first, createdAtUs, createdBy, expiresAtUs ?? null],
  });
}

function deleteKey(session: WriteSession, id: string): void {
  session.run({ sql: "DELETE FROM api_key_uses WHERE id = ?", params: [id] });
  session.run({ sql: "DELETE FROM api_keys WHERE id = ?", params: [id] });
}

/** Of two who use an enrolment at once, one succeeds. */
function endEnrolment(session: WriteSession, id: string, nowUs: bigint): void {
  const { rowsAffected } = session.run({
    sql: "UPDATE api_keys SET revoked_at_us = ? WHERE id = ? AND enrolment = 1 AND revoked_at_us IS NULL",
    params: [nowUs, id],
  });
  if (rowsAffected === 1) return;
  throw kimberliteError("not_authorized", "the enrolment was used already");
}

function parseKey(row: SqlRow): ApiKeyRecord {
  const owner = integer(row, "tenant");
  const hash: unknown = row["hash"];
  if (!(hash instanceof Uint8Array) || hash.length !== 32) throw damaged();
  return {
    id: text(row, "id"),
    ...(owner === SYSTEM_TENANT ? {} : { tenant: TenantId(owner) }),
    role: text(row, "role") as TenantRole | "operator",
    name: text(row, "name"),
    hash: Buffer.from(hash),
    ...(row["grant_id"] === null ? {} : { grant: text(row, "grant_id") }),
    ...(integer(row, "enrolment") === 1n ? { enrolment: true as const } : {}),
    createdAtUs: integer(row, "created_at_us"),
    createdBy: text(row, "created_by"),
    ...(row["expires_at_us"] === null ? {} : { expiresAtUs: integer(row, "expires_at_us") }),
    ...(row["revoked_at_us"] === null ? {} : { revokedAtUs: integer(row, "revoked_at_us") }),
  };
}

function parseRow(row: SqlRow): RegisteredIssuer {
  try {
    return {
      ...(JSON.parse(text(row, "config")) as IssuerDescription),
      tenant: TenantId(integer(row, "tenant")),
      createdAtUs: integer(row, "created_at_us"),
      createdBy: text(row, "created_by"),
    };
  } catch (cause) {
    throw damaged(cause);
  }
}

function tooMany(what: string, most: number): Error {
  return kimberliteError("quota_exceeded", `there are ${most} ${what} already; revoke or remove one`, {
    detail: { policy: "credentials", limit: most },
  });
}
