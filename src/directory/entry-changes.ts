/**
 * The changes of one tenant's entry, while no other change of it is under way (`Directory.changing`).
 *
 * Kept: what is in memory changes after it is durable, by the fields that were written; a tenant whose erasure has begun
 * is changed by nothing else.
 */
import type { AuditEvent } from "../audit/audit-event.ts";
import type { WriteSession } from "../projection/writer.ts";
import type { LegalHold } from "../tenant/tenant-config.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import {
  type DirectoryEntry,
  deleteHold,
  deleteRefused,
  type ErasureRow,
  insertErasure,
  insertHold,
  requireNoErasure,
  requireNoHold,
  updateEntry,
} from "./catalogue.ts";
import { deleteCredentials } from "./credential-store.ts";

/** What may be changed of an entry. */
export type EntryChange = Partial<Pick<DirectoryEntry, "quota" | "state" | "retentionMs" | "retentionMode">>;

/** The master keys that a tenant is to hold; none for the node's. */
export interface HeldMasterKeys {
  readonly masterKey?: string | undefined;
  readonly formerMasterKey?: string | undefined;
}

/** What the directory lends. */
interface Parts {
  readonly id: TenantId;
  readonly entry: () => DirectoryEntry;
  /** As `entry`, and throws if the tenant is being erased. */
  readonly served: () => DirectoryEntry;
  readonly write: (work: (session: WriteSession) => void, audit: AuditEvent | undefined) => Promise<void>;
  readonly remember: (entry: DirectoryEntry) => DirectoryEntry;
}

export class EntryChanges {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** As it is now. @throws `tenant_not_found`, `tenant_erasing`, `tenant_erased` */
  get entry(): DirectoryEntry {
    return this.#parts.served();
  }

  /** Changes fields. @throws as `entry` */
  async change(change: EntryChange, audit: AuditEvent): Promise<DirectoryEntry> {
    const changed = { ...this.entry, ...change };
    await this.#write((session) => updateEntry(session, changed, Object.keys(change)), audit);
    return this.#remember(change);
  }

  /** Replaces both: what is left out is gone. @throws as `entry` */
  async changeMasterKeys(held: HeldMasterKeys, audit?: AuditEvent): Promise<DirectoryEntry> {
    const given = Object.fromEntries(Object.entries(held).filter(([, uri]) => uri !== undefined));
    const changed: DirectoryEntry = { ...withoutMasterKeys(this.entry), ...given };
    await this.#write((session) => updateEntry(session, changed, ["masterKey"]), audit);
    const { entry, remember } = this.#parts;
    return remember({ ...withoutMasterKeys(entry()), ...given });
  }

  /** @throws as `entry` */
  async placeHold(hold: LegalHold, audit: AuditEvent): Promise<DirectoryEntry> {
    const { id } = this.entry;
    await this.#write((session) => insertHold(session, id, hold), audit);
    const legalHolds = [...this.#parts.entry().legalHolds, hold];
    // In the order in which a restart reads them.
    return this.#remember({ legalHolds: legalHolds.sort((a, b) => (a.name < b.name ? -1 : 1)) });
  }

  /** @throws as `entry` */
  async releaseHold(name: string, audit: AuditEvent): Promise<DirectoryEntry> {
    const { id } = this.entry;
    await this.#write((session) => deleteHold(session, id, name), audit);
    const { legalHolds } = this.#parts.entry();
    return this.#remember({ legalHolds: legalHolds.filter((hold) => hold.name !== name) });
  }

  /** From here on there is no way back: the tenant is refused everywhere, and a restart goes on with the erasure. */
  async beginErasure(row: ErasureRow, audit: AuditEvent): Promise<DirectoryEntry> {
    const { id, entry, write } = this.#parts;
    const erasing = { ...entry(), state: "erasing" as const };
    await write((session) => {
      requireNoHold(session, id);
      deleteCredentials(session, id);
      insertErasure(session, row);
      deleteRefused(session, id);
      updateEntry(session, erasing, ["state"]);
    }, audit);
    return this.#remember({ state: "erasing" });
  }

  /** An erasure that has begun is asked for inside the transaction too. */
  async #write(work: (session: WriteSession) => void, audit: AuditEvent | undefined): Promise<void> {
    const { id, write } = this.#parts;
    await write((session) => {
      requireNoErasure(session, id);
      work(session);
    }, audit);
  }

  #remember(change: Partial<DirectoryEntry>): DirectoryEntry {
    const { entry, remember } = this.#parts;
    return remember({ ...entry(), ...change });
  }
}

function withoutMasterKeys(entry: DirectoryEntry): DirectoryEntry {
  const { masterKey: _, formerMasterKey: __, ...rest } = entry;
  return rest;
}
