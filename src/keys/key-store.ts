/**
 * Where wrapped keys live: one small file a tenant, replaced whole and destroyed by overwriting.
 *
 * Invariants: an entry is replaced atomically, so a crash at any instant leaves the old entry or the new one in
 * force; the bytes of replaced and destroyed entries are overwritten, so they are gone where the file system writes in
 * place; all changes of one tenant run one after another, so a destroyed entry never comes back through a rotation
 * that began before, and no rotation loses the version that another made.
 * Out of reach: blocks that a copy-on-write file system or an SSD keeps. What is in them is wrapped.
 * Faults survived: a crash while writing (the unfinished file and the replaced one are destroyed at the next open), a
 * disk that refuses.
 * Nothing in this folder is ever copied into a backup of data, an export or a log line.
 */
import { dirname, join } from "node:path";
import { kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import { SYSTEM_TENANT, TenantId } from "../tenant/tenant-id.ts";
import { Serial } from "./serial.ts";
import { encodeStoredKeys, parseStoredKeys, type StoredKeys } from "./stored-keys.ts";
import {
  createSubjectFile,
  EMPTY_SUBJECTS_BYTES,
  SubjectKeys,
  type SubjectKeysOptions,
} from "./subject-keys.ts";
import { nameTenant, namingTenant } from "./tenant-error.ts";

const ENTRY_PATTERN = /^(0|[1-9][0-9]{0,18})\.keys$/;
const LEFTOVER_PATTERN = /^([0-9]+\.(?:keys|subjects))\.(new|old)$/;

/** The wrapped keys of all tenants in one folder. */
export class KeyStore {
  readonly #folder: string;
  readonly #disk: Disk;
  readonly #changes = new Map<TenantId, Serial>();

  private constructor(folder: string, disk: Disk) {
    this.#folder = folder;
    this.#disk = disk;
  }

  /**
   * Opens the store, making its folder if there is none, and destroys what a crash left unfinished. One process at a
   * time may have a folder open; the lock of the data directory sees to that.
   *
   * @throws `disk_failed`, `disk_full`.
   */
  static async open(folder: string, disk: Disk): Promise<KeyStore> {
    disk.makeFolder(folder);
    disk.syncFolder(dirname(folder));
    for (const name of disk.list(folder)) {
      const entry = LEFTOVER_PATTERN.exec(name)?.[1];
      if (entry !== undefined) await disk.clearReplaced(join(folder, entry));
    }
    return new KeyStore(folder, disk);
  }

  /**
   * The tenant's entry, or `undefined` if there is none.
   *
   * @throws `keys_damaged` for an entry that fails its checksum or is another tenant's, `format_too_new`,
   * `disk_failed`.
   */
  read(tenant: TenantId): StoredKeys | undefined {
    try {
      const bytes = this.#disk.readFile(this.#path(tenant));
      return bytes === undefined ? undefined : parseStoredKeys(tenant, bytes);
    } catch (error) {
      throw nameTenant(tenant, error);
    }
  }

  /**
   * Puts `stored` in the place of whatever the tenant has; durable when it resolves, and the former bytes are
   * overwritten. A change that depends on the present entry goes through `update`.
   *
   * @throws `disk_failed`, `disk_full`: the former entry or the new one is in force, whole; `read` says which.
   */
  write(tenant: TenantId, stored: StoredKeys): Promise<void> {
    return this.#serially(tenant, () => this.#replace(tenant, stored));
  }

  /**
   * Puts what `change` makes of the present entry in its place, with nothing in between: other changes of this
   * tenant, and its destruction, wait. If `change` throws, nothing is written.
   *
   * @returns the entry that is now in force.
   * @throws what `read`, `change` and `write` throw.
   */
  update(
    tenant: TenantId,
    change: (present: StoredKeys | undefined) => StoredKeys | Promise<StoredKeys>,
  ): Promise<StoredKeys> {
    return this.#serially(tenant, async () => {
      const stored = await change(this.read(tenant));
      await this.#replace(tenant, stored);
      return stored;
    });
  }

  /**
   * Overwrites and removes the tenant's entry, once changes under way have ended; absent is fine. After a failure it
   * may be called again, and is then complete when it resolves.
   *
   * @throws `disk_failed`.
   */
  destroy(tenant: TenantId): Promise<void> {
    return this.#serially(tenant, async () => {
      for (const path of [this.#path(tenant), this.#subjectsPath(tenant)]) {
        await this.#disk.clearReplaced(path);
        await this.#disk.destroyFile(path);
      }
    });
  }

  /** Makes the file of the keys of a tenant's subjects, in the place of an empty one. @throws `keys_damaged` */
  createSubjects(tenant: TenantId, slots?: Uint8Array): Promise<void> {
    const place = { disk: this.#disk, path: this.#subjectsPath(tenant), tenant };
    return this.#serially(tenant, () => {
      if ((this.#disk.readFile(place.path)?.length ?? 0) > EMPTY_SUBJECTS_BYTES) {
        const why = "keys of subjects are there that the tenant's entry does not know of";
        throw kimberliteError("keys_damaged", why, { detail: { tenant } });
      }
      return createSubjectFile(place, slots);
    });
  }

  /** @throws `keys_missing`, `keys_damaged`, `format_too_new`, `disk_failed` */
  openSubjects(options: Omit<SubjectKeysOptions, "disk" | "path">): SubjectKeys {
    return new SubjectKeys({ ...options, disk: this.#disk, path: this.#subjectsPath(options.tenant) });
  }

  /** Every tenant that has an entry, damaged or not, ascending; the system tenant's is among them. */
  tenants(): TenantId[] {
    const ids = this.#disk.list(this.#folder).flatMap((name) => {
      const digits = ENTRY_PATTERN.exec(name)?.[1];
      return digits === undefined || BigInt(digits) >= 2n ** 63n ? [] : [parseTenant(digits)];
    });
    return ids.sort((a, b) => (a < b ? -1 : 1));
  }

  async #replace(tenant: TenantId, stored: StoredKeys): Promise<void> {
    await this.#disk.replaceFile(this.#path(tenant), encodeStoredKeys(tenant, stored));
  }

  #serially<T>(tenant: TenantId, work: () => Promise<T>): Promise<T> {
    const changes = this.#changes.get(tenant) ?? new Serial();
    this.#changes.set(tenant, changes);
    return changes
      .run(() => namingTenant(tenant, work))
      .finally(() => {
        if (changes.idle) this.#changes.delete(tenant);
      });
  }

  #subjectsPath(tenant: TenantId): string {
    return join(this.#folder, `${tenant}.subjects`);
  }

  #path(tenant: TenantId): string {
    return join(this.#folder, `${tenant}.keys`);
  }
}

/** The entry that a change needs. @throws `keys_missing` if there is none. */
export function requireStored(tenant: TenantId, stored: StoredKeys | undefined): StoredKeys {
  if (stored !== undefined) return stored;
  throw kimberliteError("keys_missing", "the tenant has no keys in the key store", { detail: { tenant } });
}

/** The absence that a new tenant needs. @throws `tenant_exists` if there is an entry. */
export function requireAbsent(tenant: TenantId, stored: StoredKeys | undefined): void {
  if (stored === undefined) return;
  throw kimberliteError("tenant_exists", "the key store has keys of this tenant", { detail: { tenant } });
}

function parseTenant(digits: string): TenantId {
  return digits === "0" ? SYSTEM_TENANT : TenantId(digits);
}
