/**
 * Credentials of tenants and operators: made, listed, ended; and what authentication leaves behind, recorded.
 *
 * Every change is in the tenant's audit stream before it takes effect and in the system's with it. An operator gets no
 * credential of a tenant that holds anything: an enrolment makes the first key of an empty one, once. When a key was last
 * used is written at most hourly, and failures are counted before they are recorded, so that neither grows with traffic.
 */
import { auditTenant, type GovernanceOptions, governanceEvent } from "./administration.ts";
import type { AuditAction, AuditDetail, AuditEvent } from "./audit/audit-event.ts";
import { recordAudit } from "./audit/audit-stream.ts";
import { type ApiKeyDescription, type ApiKeyRecord, describeApiKey, mintApiKey } from "./auth/api-key.ts";
import type { Credentials } from "./auth/authentication.ts";
import { type CountedIncident, type Incident, Incidents } from "./auth/incidents.ts";
import {
  type Issuer,
  type IssuerConfig,
  type IssuerDescription,
  parseIssuer,
  parseTenantRole,
  type RegisteredIssuer,
} from "./auth/issuer.ts";
import type { TenantRole } from "./auth/principal.ts";
import { type ErrorCode, KimberliteError, kimberliteError } from "./errors.ts";
import type { NodeState } from "./node-state.ts";
import { parseContext } from "./operations.ts";
import { FIRST_USER_STREAM } from "./projection/bookkeeping.ts";
import { parseCount, parseOptions } from "./tenant/call-options.ts";
import { Duration } from "./tenant/duration.ts";
import { SYSTEM_TENANT, type TenantId } from "./tenant/tenant-id.ts";

/** A key to make. */
export interface KeyRequest extends GovernanceOptions {
  /** For people, 1 to 100 characters; "unnamed" unless given. */
  readonly name?: string;
  /** It never expires unless given. */
  readonly expiresIn?: Duration;
}

/** A key of a tenant to make. */
export interface ApiKeyRequest extends KeyRequest {
  readonly role: TenantRole;
  /** A grant to this tenant: the key reads what that shares, and nothing of its own tenant. */
  readonly grant?: string;
  /** Id of the enrolment that it is made with, which ends by that. */
  readonly enrolment?: string;
}

/** A new key. `token` is shown here alone, and kept nowhere. */
export interface NewApiKey {
  readonly token: string;
  readonly key: ApiKeyDescription;
}

interface KeyDetails {
  readonly tenant?: TenantId;
  readonly role: TenantRole | "operator";
  readonly grant?: string;
  readonly enrolment?: true;
}

const TICK_MS = 1_000;
const TENANTS_A_TICK = 16;
const WRITE_USE_EVERY_US = 3_600_000_000n;
const WRITE_USES_EVERY_MS = 60_000;
const USES_A_WRITE = 500;
const ENROLMENT_DAYS = 7;
const MAX_NAME = 100;
const GRANT_FORM = /^[\w-]{1,64}$/;

export class Access implements Credentials {
  readonly #node: NodeState;
  readonly #incidents: Incidents = new Incidents();
  /** Keys whose last use is to be written. */
  readonly #used: Set<string> = new Set();
  readonly #writtenUs: Map<string, bigint> = new Map();
  #usesWrittenMs: number;
  #running: Promise<void> | undefined;
  readonly #timer: NodeJS.Timeout;

  constructor(node: NodeState) {
    this.#node = node;
    this.#usesWrittenMs = node.clock.monotonicMs();
    this.#timer = setInterval(() => void this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  async createKey(tenant: TenantId, request: ApiKeyRequest): Promise<NewApiKey> {
    const { directory, credentials } = this.#node;
    directory.get(tenant);
    const { grant, enrolment } = parseOptions(request);
    const role = parseTenantRole(request?.role);
    if (grant !== undefined && (typeof grant !== "string" || !GRANT_FORM.test(grant))) {
      throw kimberliteError("invalid_argument", "a grant is named by its id");
    }
    if (enrolment !== undefined) {
      const known = credentials.key(enrolment);
      if (known?.tenant !== tenant) throw credentialNotFound();
      if (known.revokedAtUs !== undefined) throw enrolmentUsed();
      await this.#requireUntouched(tenant);
    }
    const { minted, record } = this.#mint(request, {
      tenant,
      role,
      ...(grant === undefined ? {} : { grant }),
    });
    // What is refused was not done: nothing is recorded before it is known to fit.
    credentials.requireRoom(tenant, record.createdAtUs);
    const detail = { key: record.id, role, ...(grant === undefined ? {} : { grant }) };
    const event = await auditTenant(
      this.#node,
      tenant,
      governanceEvent(tenant, { action: "token.create", options: request, detail }),
    );
    await credentials.addKey(record, { nowUs: record.createdAtUs, audit: event, ends: enrolment });
    return { token: minted.token, key: describeApiKey(record) };
  }

  /** The tenant's log is not begun with this: its record is the system's alone. */
  async enrol(tenant: TenantId, request: KeyRequest): Promise<NewApiKey> {
    const { directory, credentials, clock } = this.#node;
    directory.get(tenant);
    await this.#requireUntouched(tenant);
    const expiresIn = request.expiresIn ?? Duration.days(ENROLMENT_DAYS);
    const { minted, record } = this.#mint(
      { ...request, expiresIn },
      { tenant, role: "admin", enrolment: true },
    );
    const event = this.#event("token.enrol", request, { tenant, detail: { key: record.id } });
    for (const former of credentials.keysOf(tenant)) {
      if (former.revokedAtUs !== undefined) continue;
      await credentials.revokeKey(former, clock.wallTimeUs(), { ...event, action: "token.revoke" });
    }
    await credentials.addKey(record, { nowUs: record.createdAtUs, audit: event });
    return { token: minted.token, key: describeApiKey(record) };
  }

  async createOperatorKey(request: KeyRequest): Promise<NewApiKey> {
    const { minted, record } = this.#mint(request, { role: "operator" });
    const audit = this.#event("token.create", request, { detail: { key: record.id, role: "operator" } });
    await this.#node.credentials.addKey(record, { nowUs: record.createdAtUs, audit });
    return { token: minted.token, key: describeApiKey(record) };
  }

  /** @param tenant undefined for the operators' */
  listKeys(tenant: TenantId | undefined): ApiKeyDescription[] {
    const { directory, credentials } = this.#node;
    if (tenant !== undefined) directory.get(tenant);
    return credentials.keysOf(tenant).map((record) => {
      const lastUsedAtUs = credentials.lastUsedAtUs(record.id);
      return { ...describeApiKey(record), ...(lastUsedAtUs === undefined ? {} : { lastUsedAtUs }) };
    });
  }

  /** Idempotent. */
  async revokeKey(
    tenant: TenantId | undefined,
    id: string,
    options: GovernanceOptions,
  ): Promise<ApiKeyDescription> {
    const { directory, credentials, clock } = this.#node;
    if (tenant !== undefined) directory.get(tenant);
    const record = credentials.key(id);
    if (record === undefined || record.tenant !== tenant) throw credentialNotFound();
    if (record.revokedAtUs !== undefined) return describeApiKey(record);
    const about = { action: "token.revoke" as const, options, detail: { key: id } };
    const audit =
      tenant === undefined || record.enrolment === true
        ? this.#event("token.revoke", options, {
            ...(tenant === undefined ? {} : { tenant }),
            detail: about.detail,
          })
        : await auditTenant(this.#node, tenant, governanceEvent(tenant, about));
    return describeApiKey(await credentials.revokeKey(record, clock.wallTimeUs(), audit));
  }

  async registerIssuer(
    tenant: TenantId,
    config: IssuerConfig,
    options: GovernanceOptions,
  ): Promise<RegisteredIssuer> {
    const { directory, credentials, clock, jwksPolicy } = this.#node;
    directory.get(tenant);
    const parsed: IssuerDescription = parseIssuer(config, jwksPolicy);
    credentials.requireRoomForIssuer(tenant, parsed.issuer);
    const detail = { issuer: parsed.issuer, maxRole: parsed.maxRole };
    const about = { action: "issuer.register" as const, options, detail };
    const event = await auditTenant(this.#node, tenant, governanceEvent(tenant, about));
    const issuer = { ...parsed, tenant, createdAtUs: clock.wallTimeUs(), createdBy: event.actor };
    await credentials.putIssuer(issuer, event);
    return issuer;
  }

  listIssuers(tenant: TenantId): RegisteredIssuer[] {
    this.#node.directory.get(tenant);
    return this.#node.credentials.issuersOf(tenant);
  }

  async removeIssuer(tenant: TenantId, issuer: string, options: GovernanceOptions): Promise<void> {
    this.#node.directory.get(tenant);
    if (this.#node.credentials.issuer(tenant, issuer) === undefined) throw credentialNotFound();
    const about = { action: "issuer.remove" as const, options, detail: { issuer } };
    const event = await auditTenant(this.#node, tenant, governanceEvent(tenant, about));
    await this.#node.credentials.removeIssuer(tenant, issuer, event);
  }

  apiKey(id: string): ApiKeyRecord | undefined {
    return this.#node.credentials.key(id);
  }

  issuer(tenant: TenantId, issuer: string): Issuer | undefined {
    return this.#node.credentials.issuer(tenant, issuer);
  }

  exists(tenant: TenantId): boolean {
    const { directory } = this.#node;
    if (!directory.has(tenant)) return false;
    const { state } = directory.entry(tenant);
    return state === "active" || state === "suspended";
  }

  noteUse(id: string): void {
    const nowUs = this.#node.clock.wallTimeUs();
    const written = this.#writtenUs.get(id) ?? this.#node.credentials.lastUsedAtUs(id) ?? 0n;
    this.#node.credentials.noteUse(id, nowUs);
    if (nowUs - written < WRITE_USE_EVERY_US) return;
    this.#writtenUs.set(id, nowUs);
    this.#used.add(id);
  }

  noteIncident(incident: Incident): void {
    this.#incidents.note(incident, this.#node.clock.monotonicMs());
  }

  /** Records what is left. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#running;
    await this.#record(this.#incidents.takeAll());
    if (this.#used.size > 0) await this.#writeUses().catch(ignoreFailure);
  }

  /** One at a time: a slow disk is not asked twice. */
  #tick(): void {
    this.#running ??= this.#work().finally(() => {
      this.#running = undefined;
    });
  }

  async #work(): Promise<void> {
    const nowMs = this.#node.clock.monotonicMs();
    await this.#record(this.#incidents.take(nowMs, TENANTS_A_TICK));
    if (this.#used.size === 0 || nowMs - this.#usesWrittenMs < WRITE_USES_EVERY_MS) return;
    this.#usesWrittenMs = nowMs;
    await this.#writeUses().catch(ignoreFailure);
  }

  async #writeUses(): Promise<void> {
    const ids = [...this.#used].slice(0, USES_A_WRITE);
    await this.#node.credentials.writeUses(ids);
    for (const id of ids) this.#used.delete(id);
  }

  /** What cannot be recorded now is counted again. */
  async #record(incidents: readonly CountedIncident[]): Promise<void> {
    for (const incident of incidents) {
      await this.#recordOne(incident).catch((error: unknown) => {
        ignoreFailure(error);
        this.#incidents.note(incident, this.#node.clock.monotonicMs(), incident.count);
      });
    }
  }

  async #recordOne(incident: CountedIncident): Promise<void> {
    const { tenant, action, about, actor, credential, remoteAddress, requestId, count } = incident;
    const code: ErrorCode = action === "auth.fail" ? "unauthenticated" : "not_authorized";
    const event: AuditEvent = {
      action,
      outcome: "refused",
      actor,
      correlationId: requestId === "" ? undefined : requestId.slice(0, 255),
      code,
      detail: { about, count, address: remoteAddress, ...(credential === undefined ? {} : { credential }) },
    };
    if (tenant === undefined || !this.exists(tenant)) return this.#node.directory.note({ ...event, tenant });
    const own = await this.#node.tenants
      .use(tenant, (engine) => recordAudit(engine, event))
      .then(() => true)
      .catch((error: unknown) => {
        ignoreFailure(error);
        return false;
      });
    if (!own) await this.#node.directory.note({ ...event, tenant });
  }

  #mint(
    request: KeyRequest,
    details: KeyDetails,
  ): { readonly minted: { readonly token: string }; readonly record: ApiKeyRecord } {
    const { name, expiresIn } = parseOptions(request);
    const { actor } = parseContext(request);
    const { id, token, hash } = mintApiKey(this.#node.randomness);
    const createdAtUs = this.#node.clock.wallTimeUs();
    const expiresAtUs =
      expiresIn === undefined ? undefined : createdAtUs + BigInt(parseLife(expiresIn)) * 1000n;
    const record = {
      id,
      ...details,
      name: parseName(name),
      hash,
      createdAtUs,
      createdBy: actor,
      ...(expiresAtUs === undefined ? {} : { expiresAtUs }),
    };
    return { minted: { token }, record };
  }

  #event(
    action: AuditAction,
    options: GovernanceOptions,
    about: { readonly tenant?: TenantId; readonly detail: AuditDetail },
  ): AuditEvent {
    const { tenant, detail } = about;
    const { tenant: _, ...event } = governanceEvent(SYSTEM_TENANT, { action, options, detail });
    return { ...event, ...(tenant === undefined ? {} : { tenant }) };
  }

  /** Nothing was ever in it, and nobody ever had a credential of it. @throws `not_authorized` */
  async #requireUntouched(tenant: TenantId): Promise<void> {
    const { directory, credentials, tenants } = this.#node;
    const empty =
      !credentials.hasCredentials(tenant) &&
      (!directory.entry(tenant).hasLog ||
        (await tenants.use(tenant, async (engine) => {
          const { bookkeeping } = await engine.settledReader();
          return bookkeeping.streams().every(({ id }) => id < FIRST_USER_STREAM);
        })));
    if (empty) return;
    throw kimberliteError(
      "not_authorized",
      "an enrolment is for a tenant that has no data and no credential",
      {
        detail: { tenant },
      },
    );
  }
}

function parseName(name: unknown = "unnamed"): string {
  if (typeof name === "string" && name.length >= 1 && name.length <= MAX_NAME && name.isWellFormed()) {
    return name;
  }
  throw kimberliteError("invalid_argument", `a key's name is 1 to ${MAX_NAME} characters`);
}

function enrolmentUsed(): Error {
  return kimberliteError("not_authorized", "the enrolment was used already");
}

function parseLife(expiresIn: Duration): number {
  return parseCount(expiresIn?.ms, { name: "expiresIn in ms", min: 1, max: 100 * 366 * 86_400_000 });
}

function credentialNotFound(): Error {
  return kimberliteError("credential_not_found", "there is no such credential of this tenant");
}

function ignoreFailure(error: unknown): void {
  if (!(error instanceof KimberliteError)) throw error;
}
