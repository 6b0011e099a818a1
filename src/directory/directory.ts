/**
 * The directory: which tenants there are, and what is known of each without opening it.
 *
 * It is a set of tables of the system tenant, written through the same pipeline, log and projection as any tenant's
 * data; the whole of it is held in memory (O(tenants)), so that nothing is routed by a query. Changes are in memory only
 * after they are durable, and the record of who made a change and why is in the same transaction as the change.
 *
 * Kept: changes of one tenant's entry, with the decisions that they rest on, run one after the other (`changing`), so
 * that none is lost to another, and what was decided is still true when it is written.
 */
import type { AuditEvent } from "../audit/audit-event.ts";
import { noteAudit } from "../audit/audit-stream.ts";
import { KimberliteError, kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import { Serial } from "../keys/serial.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import type { WriteSession } from "../projection/writer.ts";
import type { RecordedTime } from "../retention/trusted-clock.ts";
import { deleteGrantsOf } from "../sharing/grant-rows.ts";
import { Region } from "../tenant/region.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import {
  type DirectoryEntry,
  deleteHold,
  type ErasureRow,
  insertEntry,
  insertErasure,
  insertHold,
  insertRefused,
  loadCatalogue,
  putCertificate,
  putErasureFacts,
  putTime,
  type RefusedErasure,
  readErasure,
  requireNoErasure,
  updateEntry,
} from "./catalogue.ts";
import { deleteCredentials } from "./credential-store.ts";
import { EntryChanges } from "./entry-changes.ts";

/** What is left to say of a tenant that is known from its tombstone alone. */
const NOBODY = {
  name: "erased",
  region: Region.UsEast,
  retentionMs: 0,
  retentionMode: "governance",
  quota: {},
} as const;

const ACTOR = { actor: "system", unmetered: true };

/** A tenant that is new here: it may bring holds and a log with it. */
export type NewTenant = Omit<DirectoryEntry, "state" | "createdAtUs" | "legalHolds" | "hasLog"> &
  Partial<Pick<DirectoryEntry, "legalHolds" | "hasLog">>;

export class Directory {
  readonly #system: () => Promise<TenantEngine>;
  readonly #clock: Clock;
  readonly #entries: Map<TenantId, DirectoryEntry> = new Map();
  readonly #refused: Map<TenantId, RefusedErasure[]> = new Map();
  /** Ids whose creation is under way. */
  readonly #creating: Set<TenantId> = new Set();
  readonly #changes: Map<TenantId, Serial> = new Map();
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
    const entry = this.requireNotErasing(id);
    if (this.#blocked.has(id)) throw refusedForErasure(id, "tenant_erasing");
    return entry;
  }

  /** As `get`, also while an erasure is only decided on. @throws `tenant_not_found`, `tenant_erasing`, `tenant_erased` */
  requireNotErasing(id: TenantId): DirectoryEntry {
    const entry = this.entry(id);
    if (entry.state === "erased") throw refusedForErasure(id, "tenant_erased");
    if (entry.state === "erasing") throw refusedForErasure(id, "tenant_erasing");
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
   * Adds a tenant. `prepare` makes what must be durable before the tenant exists (its keys), and says how it comes to be;
   * `undo` takes that away again if the catalogue cannot have it. With `source`, the tenant whose data it is made of,
   * nothing is added once that one's erasure has begun.
   *
   * @throws `tenant_exists`, `tenant_erased`, `tenant_erasing`; whatever `prepare` throws
   */
  async create(
    id: TenantId,
    making: {
      readonly prepare: () => Promise<NewTenant>;
      readonly undo: () => Promise<void>;
      readonly audit: AuditEvent;
      readonly source?: TenantId;
    },
  ): Promise<DirectoryEntry> {
    const { prepare, undo, audit, source } = making;
    if (this.#entries.has(id)) this.requireNotErasing(id);
    if (this.#entries.has(id) || this.#creating.has(id)) {
      throw kimberliteError("tenant_exists", `tenant ${id} exists already`, { detail: { tenant: id } });
    }
    this.#creating.add(id);
    try {
      const createdAtUs = this.#clock.wallTimeUs();
      const config = await prepare();
      const entry: DirectoryEntry = {
        legalHolds: [],
        hasLog: false,
        ...config,
        state: "active",
        createdAtUs,
      };
      try {
        await this.#write((session) => {
          if (source !== undefined) requireNoErasure(session, source);
          insertEntry(session, entry);
          for (const hold of entry.legalHolds) insertHold(session, id, hold);
        }, audit);
      } catch (error) {
        // What cannot be taken away now is nothing all the same: making it again, or the next start, takes it away.
        await undo().catch(ignoreRefusal);
        throw error;
      }
      return this.#remember(entry);
    } finally {
      this.#creating.delete(id);
    }
  }

  /**
   * Runs what decides on a tenant's entry and changes it, while no other change of it is under way. Not to be nested for
   * one tenant.
   */
  changing<T>(id: TenantId, work: (changes: EntryChanges) => Promise<T>): Promise<T> {
    const queue = this.#changes.get(id) ?? new Serial();
    this.#changes.set(id, queue);
    const changes = new EntryChanges({
      id,
      entry: () => this.entry(id),
      served: () => this.get(id),
      write: (write, audit) => this.#write(write, audit),
      remember: (entry) => this.#remember(entry),
    });
    return queue
      .run(() => work(changes))
      .finally(() => {
        if (queue.idle) this.#changes.delete(id);
      });
  }

  /** Records an event in the system's audit stream alone. */
  async note(audit: AuditEvent): Promise<void> {
    await this.#write(() => undefined, audit);
  }

  /** Beside every other change, for those may wait for a write of the tenant's own. */
  async noteFirstWrite(id: TenantId): Promise<void> {
    if (this.entry(id).hasLog) return;
    const changed = { ...this.entry(id), hasLog: true };
    await this.#write((session) => updateEntry(session, changed, ["hasLog"]), undefined);
    this.#remember({ ...this.entry(id), hasLog: true });
  }

  async noteRefused(refused: RefusedErasure, audit: AuditEvent): Promise<void> {
    await this.#write((session) => insertRefused(session, refused), audit);
    this.#rememberRefused(refused);
  }

  /** Erasures of a tenant that were asked for and refused. */
  refusedErasures(id: TenantId): readonly RefusedErasure[] {
    return this.#refused.get(id) ?? [];
  }

  /** Of an erasure that has begun. */
  async putErasureFacts(id: TenantId, facts: string): Promise<void> {
    await this.#write((session) => putErasureFacts(session, id, facts), undefined);
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
      deleteGrantsOf(session, id);
    }, audit);
    this.#refused.delete(id);
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
      deleteCredentials(session, id);
      for (const hold of present?.legalHolds ?? []) deleteHold(session, id, hold.name);
      insertErasure(session, row);
      putCertificate(session, id, certificate);
      updateEntry(session, entry, ["state", "hasLog"]);
      deleteGrantsOf(session, id);
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

function ignoreRefusal(error: unknown): void {
  if (!(error instanceof KimberliteError)) throw error;
}

function refusedForErasure(id: TenantId, code: "tenant_erasing" | "tenant_erased"): Error {
  const message = `tenant ${id} ${code === "tenant_erased" ? "was" : "is being"} erased`;
  return kimberliteError(code, message, { detail: { tenant: id } });
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
