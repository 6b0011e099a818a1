/**
 * The keys of one open tenant, and their rotations.
 *
 * Invariants: a key version is durable in the store before anything is encrypted under it; versions are never used
 * twice; a rotation replaces the tenant's entry once, so a crash or a failing disk leaves the old keys or the new
 * ones in force, whole; rotations of a tenant run one after another and stop neither reads nor writes, because no
 * DEK changes under its version; nothing is wrapped under a KEK that the store does not hold. After `close` no key is
 * left in memory, every use is refused with `closed` (an erasure may close them under whoever uses them), and no rotation
 * that was under way begins to write.
 */
import type { KeyObject } from "node:crypto";
import { assert, kimberliteError } from "../errors.ts";
import { SYSTEM_TENANT } from "../tenant/tenant-id.ts";
import { firstKeys, type TenantKeysOptions } from "./first-keys.ts";
import {
  type KekUse,
  moveToKek,
  nextVersion,
  unwrapKek,
  wrapDek,
  wrapKek,
  wrapSubjectRoot,
} from "./hierarchy.ts";
import { reportKeys, type TenantKeyReport } from "./key-report.ts";
import { requireAbsent, requireStored } from "./key-store.ts";
import type { MasterKeyProvider } from "./master-key.ts";
import { OpenKeys, type SigningPair } from "./open-keys.ts";
import { Serial } from "./serial.ts";
import { encodeStoredKeys, type StoredKeys } from "./stored-keys.ts";
import { type CopiedSubjects, parseSubjectFile, type SubjectKeys } from "./subject-keys.ts";
import { namingTenant } from "./tenant-error.ts";
import { freshKey } from "./wrapping.ts";

/** The DEK version that new blocks are sealed under, with its log subkey. */
export interface CurrentKey {
  readonly version: number;
  readonly key: KeyObject;
}

/** The unwrapped keys of one open tenant. */
export class TenantKeys {
  readonly #options: TenantKeysOptions;
  readonly #keys: OpenKeys;
  readonly #rotations = new Serial();
  #master: MasterKeyProvider;
  #stored: StoredKeys;
  #current: CurrentKey;
  #subjects: SubjectKeys | undefined;
  #closed = false;

  private constructor(options: TenantKeysOptions, keys: OpenKeys, stored: StoredKeys) {
    this.#options = options;
    this.#master = options.master;
    this.#keys = keys;
    this.#stored = stored;
    this.#current = this.#newestKey();
  }

  /**
   * Makes the keys of a new tenant: a KEK and DEK version 1, and with `withSigningKey` (the system tenant alone) the
   * installation's signing key. They are durable when this resolves.
   *
   * @throws `tenant_exists` if the store has keys of that tenant, whose data would be lost with them;
   * `master_key_missing`, `master_key_invalid`, `master_key_wrong`, `disk_full`, `disk_failed`.
   */
  static async create(
    options: TenantKeysOptions & { readonly withSigningKey?: boolean },
  ): Promise<TenantKeys> {
    const { tenant, store, randomness, withSigningKey = false } = options;
    assert(!withSigningKey || tenant === SYSTEM_TENANT, "only the system tenant has a signing key");
    const kek = freshKey(randomness);
    try {
      const stored = await store.update(tenant, (present) => {
        requireAbsent(tenant, present);
        return firstKeys({ ...options, kek, withSigningKey });
      });
      return new TenantKeys(options, OpenKeys.unwrap(tenant, kek, stored), stored);
    } catch (error) {
      kek.fill(0);
      throw error;
    }
  }

  /**
   * Unwraps the keys of a tenant, or those that are given in the place of the store's. Costs one read of a small file and
   * one `unwrap` of the master key.
   *
   * @throws `keys_missing`, `keys_damaged`, `format_too_new`, `master_key_wrong`, `master_key_missing`,
   * `master_key_invalid`, `disk_failed`.
   */
  static async load(options: TenantKeysOptions, given?: StoredKeys): Promise<TenantKeys> {
    const { tenant, store, master } = options;
    return namingTenant(tenant, async () => {
      const stored = given ?? requireStored(tenant, store.read(tenant));
      const kek = await unwrapKek(tenant, stored.kek, master);
      return new TenantKeys(options, OpenKeys.unwrap(tenant, kek, stored), stored);
    });
  }

  /** The key that new blocks are sealed under; changes with `rotateDek`. Costs nothing. */
  get current(): CurrentKey {
    this.#refuseIfClosed();
    return this.#current;
  }

  /** The log subkey of a DEK version. @throws `keys_missing` if there is no such version. */
  logKey(version: number): KeyObject {
    this.#refuseIfClosed();
    return this.#keys.logKey(version) ?? this.#noSuchVersion(version);
  }

  /**
   * The projection's subkey under the DEK version that is recorded for it, or under `version` (to re-encrypt the
   * projection before `setProjectionDek` records it). The Buffer is lent: it is zeroed by `close`.
   *
   * @throws `keys_missing` if there is no such version.
   */
  projectionKey(version?: number): { readonly version: number; readonly key: Buffer } {
    this.#refuseIfClosed();
    const wanted = version ?? this.#stored.projectionDek;
    return { version: wanted, key: this.#keys.projectionKey(wanted) ?? this.#noSuchVersion(wanted) };
  }

  /**
   * Records, durably, that the projection is encrypted under `version`.
   *
   * @throws `keys_missing` if there is no such version; `disk_full`, `disk_failed`.
   */
  async setProjectionDek(version: number): Promise<void> {
    this.#refuseIfClosed();
    if (!this.#keys.hasDek(version)) this.#noSuchVersion(version);
    await this.#rotations.run(() => this.#commit((present) => ({ ...present, projectionDek: version })));
  }

  /**
   * Destroys the DEK versions below `version`, in the store and here: what is encrypted under them cannot be read again.
   * The caller sees to it that nothing is that is wanted.
   *
   * @returns the versions. @throws `disk_full`, `disk_failed`: asked again it is finished
   */
  async destroyDeksBefore(version: number): Promise<number[]> {
    this.#refuseIfClosed();
    let destroyed: number[] = [];
    await this.#rotations.run(() =>
      this.#commit((present) => {
        assert(present.projectionDek >= version, "the projection is not under a DEK that is destroyed");
        destroyed = present.deks.filter((dek) => dek.version < version).map((dek) => dek.version);
        return { ...present, deks: present.deks.filter((dek) => dek.version >= version) };
      }),
    );
    for (const one of destroyed) this.#keys.dropDek(one);
    return destroyed;
  }

  /** True for a tenant that has declared subjects. Costs nothing. */
  get hasSubjects(): boolean {
    return this.#keys.subjectRoot !== undefined;
  }

  /**
   * The keys of the tenant's subjects, read when they are first wanted.
   *
   * @throws `keys_missing` for a tenant without declared subjects or whose file is gone; `keys_damaged`, `disk_failed`
   */
  get subjects(): SubjectKeys {
    this.#refuseIfClosed();
    this.#subjects ??= this.#openSubjects();
    return this.#subjects;
  }

  /**
   * Makes the root of the keys of subjects, where there is none, or takes over another tenant's with the slots under it.
   *
   * @throws `disk_full`, `disk_failed`: asked again it is finished
   */
  async makeSubjectRoot(copied?: Partial<CopiedSubjects>): Promise<void> {
    this.#refuseIfClosed();
    await this.#rotations.run(async () => {
      if (this.hasSubjects) return;
      const { tenant, store, randomness, clock } = this.#options;
      const root = freshKey(randomness);
      copied?.root?.copy(root);
      // Its file first: an entry that names a root has one.
      await store.createSubjects(tenant, copied?.slots);
      await this.#commit((present) => ({
        ...present,
        subjectRoot: wrapSubjectRoot(this.#use(this.#keys.kek), root, clock.wallTimeUs()),
      }));
      this.#keys.setSubjectRoot(root);
    });
  }

  /**
   * Lends what another tenant needs to read the rows of this one's subjects, if it has any, for as long as the work lasts;
   * with `file` the keys of subjects that it holds.
   *
   * @throws `keys_missing`, `keys_damaged`
   */
  async copySubjects<T>(work: (copied: CopiedSubjects | undefined) => Promise<T>, file?: Buffer): Promise<T> {
    if (!this.hasSubjects) return work(undefined);
    const slots =
      file === undefined ? this.subjects.copySlots() : parseSubjectFile(this.#options.tenant, file);
    const root = Buffer.from(this.#keys.subjectRoot ?? this.#noSubjects());
    try {
      return await work({ root, slots });
    } finally {
      root.fill(0);
    }
  }

  #openSubjects(): SubjectKeys {
    const { tenant, store, randomness, clock } = this.#options;
    const root = this.#keys.subjectRoot ?? this.#noSubjects();
    return store.openSubjects({ tenant, root, randomness, nowUs: () => clock.wallTimeUs() });
  }

  #noSubjects(): never {
    const { tenant } = this.#options;
    throw kimberliteError("keys_missing", "the tenant has no keys of subjects", { detail: { tenant } });
  }

  /** The installation's Ed25519 private key. @throws `keys_missing` for a tenant that has none. */
  signingKey(): KeyObject {
    return this.#signingPair().privateKey;
  }

  /** The public half of `signingKey`, which anyone may know. @throws `keys_missing` likewise. */
  get verifierPublicKey(): KeyObject {
    return this.#signingPair().publicKey;
  }

  /**
   * Makes a new DEK version and has new blocks sealed under it; older versions go on opening older blocks.
   *
   * @returns the new version, durable before `current` gives it out.
   * @throws `disk_full`, `disk_failed`: `current` is what it was. `closed` if the keys were closed meanwhile.
   */
  async rotateDek(): Promise<number> {
    this.#refuseIfClosed();
    return this.#rotations.run(() => this.#addDek());
  }

  /**
   * Makes a new KEK and wraps every DEK version, and the signing key, under it: one replacement of the entry. The
   * DEKs themselves stay. When it resolves, what the former KEK wrapped is overwritten.
   *
   * @throws what the master key throws; `disk_full`, `disk_failed`: the former KEK or the new one is in force, in the
   * store and here alike. `closed` if the keys were closed meanwhile.
   */
  async rotateKek(): Promise<void> {
    this.#refuseIfClosed();
    await this.#rotations.run(() => this.#replaceKek());
  }

  /**
   * Wraps the KEK under another master key, which this tenant uses from then on. The former one is no longer needed
   * for this tenant.
   *
   * @throws as `rotateKek` does.
   */
  async rewrapUnder(newMaster: MasterKeyProvider): Promise<void> {
    this.#refuseIfClosed();
    await this.#rotations.run(async () => {
      await this.#commit(async (present) => {
        const kek = await wrapKek(this.#options.tenant, { ...present.kek, key: this.#keys.kek }, newMaster);
        return { ...present, kek };
      });
      this.#master = newMaster;
    });
  }

  /** Versions, ages and the master key's id; never key bytes, wrapped or not. */
  describe(): TenantKeyReport {
    this.#refuseIfClosed();
    const { tenant, clock } = this.#options;
    return reportKeys(tenant, this.#stored, clock.wallTimeUs());
  }

  /**
   * Zeroes every key in memory, at once. Any use afterwards fails with `closed`; closing twice is fine. So does a rotation
   * under way, unless its write had begun, which then ends as it would have.
   */
  close(): void {
    this.#closed = true;
    this.#subjects?.close();
    this.#keys.zero();
  }

  async #addDek(): Promise<number> {
    const { randomness, clock } = this.#options;
    const key = freshKey(randomness);
    let version = 0;
    try {
      await this.#commit((present) => {
        version = nextVersion(present.deks.at(-1)?.version ?? 0);
        const dek = wrapDek(this.#use(this.#keys.kek), { key, version, createdAtUs: clock.wallTimeUs() });
        return { ...present, deks: [...present.deks, dek] };
      });
    } catch (error) {
      key.fill(0);
      throw error;
    }
    this.#keys.addDek(version, key);
    this.#current = this.#newestKey();
    return version;
  }

  async #replaceKek(): Promise<void> {
    const { tenant, randomness, clock } = this.#options;
    const key = freshKey(randomness);
    const version = nextVersion(this.#stored.kek.version);
    try {
      await this.#commit(async (present) => {
        const master = await this.#holderOf(present);
        const kek = await wrapKek(tenant, { key, version, createdAtUs: clock.wallTimeUs() }, master);
        // Closing zeroed the KEK while the master key was asked; zeros must not be taken for it.
        this.#refuseIfClosed();
        return moveToKek(present, this.#keys.kek, this.#use(key), kek);
      });
    } finally {
      if (!this.#closed && this.#stored.kek.version === version) this.#keys.replaceKek(key);
      else key.fill(0);
    }
  }

  /** A rotation of the master key may have moved the entry while it was being opened. */
  async #holderOf({ kek }: StoredKeys): Promise<MasterKeyProvider> {
    const { masterOf } = this.#options;
    if (kek.masterKeyId !== this.#master.keyId && masterOf !== undefined)
      this.#master = await masterOf(kek.masterKeyId);
    return this.#master;
  }

  /** Runs one change of the entry; afterwards `#stored` is what it made if the store has that, also on failure. */
  async #commit(change: (present: StoredKeys) => StoredKeys | Promise<StoredKeys>): Promise<void> {
    const { tenant, store } = this.#options;
    let made: StoredKeys | undefined;
    try {
      this.#stored = await store.update(tenant, async (present) => {
        this.#refuseIfClosed();
        made = await change(this.#requireOurKek(present));
        this.#refuseIfClosed();
        return made;
      });
    } catch (error) {
      if (made !== undefined && this.#storeHas(made)) this.#stored = made;
      throw error;
    }
    this.#refuseIfClosed();
  }

  #requireOurKek(present: StoredKeys | undefined): StoredKeys {
    const { tenant } = this.#options;
    const stored = requireStored(tenant, present);
    if (stored.kek.version === this.#stored.kek.version) return stored;
    throw kimberliteError("keys_damaged", "the key store holds another KEK than the open tenant; reopen it", {
      detail: { tenant, kekVersion: this.#stored.kek.version, storedKekVersion: stored.kek.version },
    });
  }

  #storeHas(made: StoredKeys): boolean {
    const { tenant, store } = this.#options;
    try {
      const stored = store.read(tenant);
      return stored !== undefined && encodeStoredKeys(tenant, stored).equals(encodeStoredKeys(tenant, made));
    } catch {
      // A store that cannot be read says nothing; the next change finds out whose KEK it has.
      return false;
    }
  }

  #newestKey(): CurrentKey {
    const version = this.#stored.deks.findLast((dek) => this.#keys.hasDek(dek.version))?.version ?? 0;
    const key = this.#keys.logKey(version);
    assert(key !== undefined, "an open tenant has a DEK");
    return { version, key };
  }

  #signingPair(): SigningPair {
    this.#refuseIfClosed();
    const pair = this.#keys.signing;
    if (pair !== undefined) return pair;
    const { tenant } = this.#options;
    throw kimberliteError("keys_missing", "the tenant has no signing key", { detail: { tenant } });
  }

  #use(kek: Buffer): KekUse {
    return { tenant: this.#options.tenant, kek, randomness: this.#options.randomness };
  }

  #noSuchVersion(dekVersion: number): never {
    const { tenant } = this.#options;
    throw kimberliteError("keys_missing", "the tenant has no such DEK version", {
      detail: { tenant, dekVersion },
    });
  }

  #refuseIfClosed(): void {
    if (!this.#closed) return;
    const { tenant } = this.#options;
    throw kimberliteError("closed", "the tenant's keys were closed", { detail: { tenant } });
  }
}
