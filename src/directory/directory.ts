/**
 * The directory: which tenants there are, and what is known of each without opening it.
 *
 * It is a set of tables of the system tenant, written through the same pipeline, log and projection as any tenant's
 * data; the whole of it is held in memory (O(tenants)), so that nothing is routed by a query. Changes are in memory only
 * after they are durable, and the record of who made a change and why is in the same transaction as the change.
 */
import type { AuditEvent } from "../audit/audit-event.ts";
import { noteAudit } from "../audit/audit-stream.ts";
import { kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import type { WriteSession } from "../projection/writer.ts";
import type { RecordedTime } from "../retention/trusted-clock.ts";
import { Region } from "../tenant/region.ts";
import type { LegalHold } from "../tenant/tenant-config.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import {
  type DirectoryEntry,
  deleteHold,
  deleteRefused,
  type ErasureRow,
  insertEntry,
  insertErasure,
  insertHold,
  insertRefused,
  loadCatalogue,
  putCertificate,
  putTime,
  type RefusedErasure,
  readErasure,
  requireNoErasure,
  requireNoHold,
  updateEntry,
} from "./catalogue.ts";

/** What is left to say of a tenant that is known from its tombstone alone. */
const NOBODY = {
  name: "erased",
  region: Region.UsEast,
  retentionMs: 0,
  retentionMode: "governance",
  quota: {},
} as const;

const ACTOR = { actor: "system", unmetered: true };

/** What may be changed of an entry. */
export type EntryChange = Partial<
  Pick<DirectoryEntry, "quota" | "state" | "retentionMs" | "retentionMode" | "hasLog">
>;

/** A tenant that is new here: it may bring holds and a log with it. */
export type NewTenant = Omit<DirectoryEntry, "state" | "createdAtUs" | "legalHolds" | "hasLog"> &
  Partial<Pick<DirectoryEntry, "legalHolds" | "hasLog">>;

/** The master keys that a tenant is to hold; none for the node's. */
export interface HeldMasterKeys {
  readonly masterKey?: string | undefined;
  readonly formerMasterKey?: string | undefined;
}

export class Directory {
  readonly #system: () => Promise<TenantEngine>;
  readonly #clock: Clock;
  readonly #entries: Map<TenantId, DirectoryEntry> = new Map();
  readonly #refused: Map<TenantId, RefusedErasure[]> = new Map();
  /** Ids whose creation is under way. */
  readonly #creating: Set<TenantId> = new Set();
  /** Tenants that are refused while their erasure is decided. */
  readonly #blocked: Set<TenantId> = new Set();
  #sorted: TenantId[] | undefined;
  #recordedTime: RecordedTime | undefined;

  private constructor(system: () => Promise<TenantEngine>, clock: Clock) {
    this.#system = system;
    this.#clock = clock;
  }

  /**
   * Loads the catalogue from the system tenant, creating it in a new installation.
   *
   * @param system gives the system tenant's engine, as it is then: it may be opened anew between two changes.
   * @throws `catalog_damaged`
   */
  static async load(system: () => Promise<TenantEngine>, clock: Clock): Promise<Directory> {
    const directory = new Directory(system, clock);
    const { entries, refused, recordedTime } = await loadCatalogue(await system());
    for (const entry of entries) directory.#remember(entry);
    for (const one of refused) directory.#rememberRefused(one);
    directory.#recordedTime = recordedTime;
    return directory;
  }

  /** Tenants that are in the catalogue, erased ones included. */
  get size(): number {
    return this.#entries.size;
  }

  /** The time that an earlier run recorded last. */
  get recordedTime(): RecordedTime | undefined {
    return this.#recordedTime;
  }

  has(id: TenantId): boolean {
    return this.#entries.has(id);
  }

  /** @throws `tenant_not_found`, `tenant_erasing`, `tenant_erased` */
  get(id: TenantId): DirectoryEntry {
    const entry = this.entry(id);
    if (this.#blocked.has(id) || entry.state === "erasing" || entry.state === "erased") {
      const code = entry.state === "erased" ? "tenant_erased" : "tenant_erasing";
      throw kimberliteError(code, `tenant ${id} ${entry.state === "erased" ? "was" : "is being"} erased`, {
        detail: { tenant: id },
      });
    }
    return entry;
  }

  /** As `get`, of an erased tenant too. @throws `tenant_not_found` */
  entry(id: TenantId): DirectoryEntry {
    const entry = this.#entries.get(id);
    if (entry === undefined) {
      throw kimberliteError("tenant_not_found", `tenant ${id} does not exist`, { detail: { tenant: id } });
    }
    return entry;
  }

  /** Entries in order of id, after `after`, at most `limit`. */
  list(page: { readonly after?: TenantId | undefined; readonly limit: number }): DirectoryEntry[] {
    this.#sorted ??= [...this.#entries.keys()].sort((a, b) => (a < b ? -1 : 1));
    const start = page.after === undefined ? 0 : firstAbove(this.#sorted, page.after);
    return this.#sorted.slice(start, start + page.limit).map((id) => this.#entries.get(id) as DirectoryEntry);
  }

  /** Refuses the tenant everywhere, in this process, until `unblock`. */
  block(id: TenantId): void {
    this.#blocked.add(id);
  }

  unblock(id: TenantId): void {
    this.#blocked.delete(id);
  }

  /** Tenants that were erased. */
  erased(): TenantId[] {
    return [...this.#entries.values()].filter((entry) => entry.state === "erased").map(({ id }) => id);
  }

  /** Tenants whose erasure has begun and not ended. */
  erasing(): TenantId[] {
    return [...this.#entries.values()].filter((entry) => entry.state === "erasing").map(({ id }) => id);
  }

  /**
   * Adds a tenant. `prepare` makes what must be durable before the tenant exists (its keys).
   *
   * @throws `tenant_exists`, `tenant_erased`; whatever `prepare` throws
   */
  async create(config: NewTenant, prepare: () => Promise<void>, audit: AuditEvent): Promise<DirectoryEntry> {
    const { id } = config;
    if (this.#entries.get(id)?.state.startsWith("eras") === true) this.get(id);
    if (this.#entries.has(id) || this.#creating.has(id)) {
      throw kimberliteError("tenant_exists", `tenant ${id} exists already`, { detail: { tenant: id } });
    }
    this.#creating.add(id);
    try {
      const createdAtUs = this.#clock.wallTimeUs();
      const entry: DirectoryEntry = {
        legalHolds: [],
        hasLog: false,
        ...config,
        state: "active",
        createdAtUs,
      };
      await prepare();
      await this.#write((session) => {
        insertEntry(session, entry);
        for (const hold of entry.legalHolds) insertHold(session, id, hold);
      }, audit);
      this.#remember(entry);
      return entry;
    } finally {
      this.#creating.delete(id);
    }
  }

  /** Changes fields of a tenant's entry. @throws `tenant_not_found`, `tenant_erased` */
  async change(id: TenantId, change: EntryChange, audit?: AuditEvent): Promise<DirectoryEntry> {
    const changed = { ...this.entry(id), ...change };
    await this.#write((session) => updateEntry(session, changed, Object.keys(change)), audit);
    return this.#remember({ ...this.entry(id), ...change });
  }

  /** Replaces both: what is left out is gone. */
  async changeMasterKeys(id: TenantId, held: HeldMasterKeys, audit?: AuditEvent): Promise<DirectoryEntry> {
    const { masterKey: _, formerMasterKey: __, ...rest } = this.entry(id);
    const given = Object.fromEntries(Object.entries(held).filter(([, uri]) => uri !== undefined));
    const changed: DirectoryEntry = { ...rest, ...given };
    await this.#write((session) => updateEntry(session, changed, ["masterKey"]), audit);
    return this.#remember(changed);
  }

  /** Records an event in the system's audit stream alone. */
  async note(audit: AuditEvent): Promise<void> {
    await this.#write(() => undefined, audit);
  }

  async noteFirstWrite(id: TenantId): Promise<void> {
    if (!this.entry(id).hasLog) await this.change(id, { hasLog: true });
  }

  async placeHold(id: TenantId, hold: LegalHold, audit: AuditEvent): Promise<DirectoryEntry> {
    this.get(id);
    await this.#write((session) => {
      requireNoErasure(session, id);
      insertHold(session, id, hold);
    }, audit);
    const entry = this.entry(id);
    return this.#remember({ ...entry, legalHolds: [...entry.legalHolds, hold] });
  }

  async releaseHold(id: TenantId, name: string, audit: AuditEvent): Promise<DirectoryEntry> {
    await this.#write((session) => deleteHold(session, id, name), audit);
    const entry = this.entry(id);
    return this.#remember({ ...entry, legalHolds: entry.legalHolds.filter((hold) => hold.name !== name) });
  }

  async noteRefused(refused: RefusedErasure, audit: AuditEvent): Promise<void> {
    await this.#write((session) => insertRefused(session, refused), audit);
    this.#rememberRefused(refused);
  }

  /** Erasures of a tenant that were asked for and refused. */
  refusedErasures(id: TenantId): readonly RefusedErasure[] {
    return this.#refused.get(id) ?? [];
  }

  /** From here on there is no way back: the tenant is refused everywhere, and a restart goes on with the erasure. */
  async beginErasure(row: ErasureRow, audit: AuditEvent): Promise<void> {
    const entry = { ...this.entry(row.tenant), state: "erasing" as const };
    await this.#write((session) => {
      requireNoHold(session, row.tenant);
      insertErasure(session, row);
      deleteRefused(session, row.tenant);
      updateEntry(session, entry, ["state"]);
    }, audit);
    this.#refused.delete(row.tenant);
    this.#remember({ ...this.entry(row.tenant), state: "erasing" });
  }

  async finishErasure(
    id: TenantId,
    end: { readonly certificate: string; readonly hasLog: boolean },
    audit: AuditEvent,
  ): Promise<void> {
    const entry = { ...this.entry(id), state: "erased" as const, hasLog: end.hasLog };
    await this.#write((session) => {
      putCertificate(session, id, end.certificate);
      updateEntry(session, entry, ["state", "hasLog"]);
    }, audit);
    this.#remember(entry);
  }

  /** A tenant whose erasure is known from elsewhere: it is erased here too, whatever was known of it. */
  async adoptErased(id: TenantId, certificate: string): Promise<void> {
    const present = this.#entries.get(id);
    if (present?.state === "erased") return;
    const createdAtUs = this.#clock.wallTimeUs();
    const entry: DirectoryEntry = {
      ...(present ?? { ...NOBODY, id, createdAtUs }),
      legalHolds: [],
      state: "erased",
      hasLog: false,
    };
    const row = {
      tenant: id,
      beganAtUs: createdAtUs,
      actor: "system",
      reason: "restored",
      facts: "{}",
      certificate: undefined,
    };
    await this.#write((session) => {
      if (present === undefined) insertEntry(session, entry);
      for (const hold of present?.legalHolds ?? []) deleteHold(session, id, hold.name);
      insertErasure(session, row);
      putCertificate(session, id, certificate);
      updateEntry(session, entry, ["state", "hasLog"]);
    }, undefined);
    this.#remember(entry);
  }

  async erasure(id: TenantId): Promise<ErasureRow | undefined> {
    return readErasure(await this.#system(), id);
  }

  async recordTime(time: RecordedTime, audit?: AuditEvent): Promise<void> {
    await this.#write((session) => putTime(session, time), audit);
    this.#recordedTime = time;
  }

  async #write(work: (session: WriteSession) => void, audit: AuditEvent | undefined): Promise<void> {
    const { pipeline } = await this.#system();
    await pipeline.submit(ACTOR, (session) => {
      work(session);
      if (audit !== undefined) noteAudit(session, audit);
    });
  }

  #remember(entry: DirectoryEntry): DirectoryEntry {
    if (!this.#entries.has(entry.id)) this.#sorted = undefined;
    this.#entries.set(entry.id, Object.freeze(entry));
    return entry;
  }

  #rememberRefused(refused: RefusedErasure): void {
    this.#refused.set(refused.tenant, [...this.refusedErasures(refused.tenant), refused]);
  }
}

/** Index of the first id above `id` in an ascending list. */
function firstAbove(ids: readonly TenantId[], id: TenantId): number {
  let low = 0;
  let high = ids.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ids[middle] as TenantId) <= id) low = middle + 1;
    else high = middle;
  }
  return low;
}
