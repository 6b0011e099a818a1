/**
 * The keys of a tenant's subjects: one for each person whose rows are sealed apart, so that the person can be erased
 * alone.
 *
 *     keys/<tenant>.subjects:  a head, then slots of 128 bytes, in order of first appearance (`docs/FORMAT.md`)
 *
 * A slot holds a random name of the subject (the only thing of it that the log has in clear), a keyed hash of its value,
 * by which it is found, and its key, wrapped. Keyed hash and wrapping are under the tenant's subject root, which is in
 * the tenant's entry under its KEK: a rotation of keys above touches no slot.
 *
 * Kept: a key is durable before anything is encrypted under it; making one costs an append, whatever the number of
 * subjects; erasing one overwrites its slot in place, but for the name, which says that it was erased. Unwrapped keys are
 * kept for a bounded number of subjects.
 * Survives: a crash while appending (a slot that no record names yet means nothing) or overwriting (asked again, it is
 * overwritten again).
 */
import { createHmac, createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import { assert, kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import type { Randomness } from "../host/randomness.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { KEY_BYTES } from "./master-key.ts";
import { SlotIndex } from "./slot-index.ts";
import { freshKey, unwrapKey, WRAPPED_BYTES, wrapKey } from "./wrapping.ts";

/** Length of a subject's random name. */
const SUBJECT_BYTES = 16;

const MAGIC = "KSUB";
const FORMAT_VERSION = 1;
const SLOT_BYTES = 128;
/** Length of the file of a tenant without subjects. */
export const EMPTY_SUBJECTS_BYTES: number = SLOT_BYTES;
const CREATED_AT = 16;
const HASH_AT = 32;
const HASH_BYTES = 32;
const WRAPPED_AT = HASH_AT + HASH_BYTES;
/** Unwrapped keys that an open tenant keeps. */
const MAX_CACHED = 256;

/** What opening the keys of subjects needs. */
export interface SubjectKeysOptions {
  readonly tenant: TenantId;
  readonly path: string;
  readonly disk: Disk;
  readonly randomness: Randomness;
  /** The tenant's subject root; copied. */
  readonly root: Buffer;
  readonly nowUs: () => bigint;
}

/** A subject's name with its key. */
export interface SubjectKey {
  readonly subject: Buffer;
  readonly key: KeyObject;
}

/** Keys of subjects on their way to another tenant, or another installation: the root in clear, the slots wrapped under it. */
export interface CopiedSubjects {
  readonly root: Buffer;
  readonly slots: Buffer;
}

export class SubjectKeys {
  readonly #options: Omit<SubjectKeysOptions, "root">;
  readonly #hashKey: Buffer;
  /** A cipher made from a Buffer costs several times as much. */
  readonly #wrapKey: KeyObject;
  readonly #byName: SlotIndex = new SlotIndex({ at: 0, bytes: SUBJECT_BYTES, slotBytes: SLOT_BYTES });
  readonly #byHash: SlotIndex = new SlotIndex({ at: HASH_AT, bytes: HASH_BYTES, slotBytes: SLOT_BYTES });
  readonly #cache: Map<string, KeyObject> = new Map();
  /** Subjects that an erasure is under way for: nothing is written of them by anybody else. */
  readonly #closing: Set<string> = new Set();
  /** Subjects that the log says were erased, and of which the file knows nothing. */
  readonly #erasedElsewhere: Set<string> = new Set();
  #slots: Buffer;
  #count: number;
  #closed = false;
  /** Slots that are in the file for sure. */
  #durable: number;

  /** @throws `keys_missing` without the file, `keys_damaged`, `format_too_new`, `disk_failed` */
  constructor(options: SubjectKeysOptions) {
    const { root, ...rest } = options;
    this.#options = rest;
    this.#hashKey = derive(root, "subject-hash");
    const wrapKeyBytes = derive(root, "subject-wrap");
    this.#wrapKey = createSecretKey(wrapKeyBytes);
    wrapKeyBytes.fill(0);
    this.#slots = parseSubjectFile(options.tenant, options.disk.readFile(options.path));
    this.#count = this.#slots.length / SLOT_BYTES;
    this.#durable = this.#count;
    for (let slot = 0; slot < this.#count; slot += 1) this.#enter(slot);
  }

  /** Subjects that have a key, and names of those that had one. */
  get size(): number {
    return this.#count;
  }

  /** Name of the subject of that value; undefined if it has no key. */
  find(value: Uint8Array): Buffer | undefined {
    const slot = this.#byHash.find(this.#slots, this.#hash(value));
    return slot === undefined ? undefined : Buffer.from(this.#nameAt(slot));
  }

  /**
   * The key for what is written of a subject from now on; a new one if it has none. What is sealed under a new one is not
   * committed before `flush` resolves.
   *
   * @param erasing name of the subject whose erasure asks
   * @throws `overloaded` while the subject is being erased
   */
  keyFor(value: Uint8Array, erasing?: Uint8Array): SubjectKey {
    const hash = this.#hash(value);
    const slot = this.#byHash.find(this.#slots, hash) ?? this.#make(hash);
    const subject = Buffer.from(this.#nameAt(slot));
    if (this.#closing.has(textOf(subject)) && !(erasing !== undefined && subject.equals(erasing))) {
      throw kimberliteError("overloaded", "the subject is being erased; try again", {
        detail: { tenant: this.#options.tenant },
        retryAfterMs: 50,
      });
    }
    return { subject, key: this.#keyAt(slot) };
  }

  /** The key of a subject by its name; null if it was erased, undefined if there is no such subject. */
  keyOf(subject: Uint8Array): KeyObject | null | undefined {
    const name = textOf(subject);
    const cached = this.#cache.get(name);
    if (cached !== undefined) return cached;
    const slot = this.#byName.find(this.#slots, subject);
    if (slot === undefined) return this.#erasedElsewhere.has(name) ? null : undefined;
    return this.#isErased(slot) ? null : this.#keyAt(slot);
  }

  /** Takes note that the log says so of a subject that there is no slot of. */
  noteErased(subject: Uint8Array): void {
    this.#erasedElsewhere.add(textOf(subject));
  }

  /** Refuses what others write of a subject until `reopen`. */
  closeTo(subject: Uint8Array): void {
    this.#closing.add(textOf(subject));
  }

  reopen(subject: Uint8Array): void {
    this.#closing.delete(textOf(subject));
  }

  /** Makes the keys that were made since durable. @throws `disk_full`, `disk_failed` */
  async flush(): Promise<void> {
    const { disk, path } = this.#options;
    const until = this.#count;
    if (until === this.#durable) return;
    const file = disk.open(path, "update");
    try {
      const bytes = this.#slots.subarray(this.#durable * SLOT_BYTES, until * SLOT_BYTES);
      await file.writeDurably(bytes, (1 + this.#durable) * SLOT_BYTES);
    } finally {
      file.close();
    }
    this.#durable = until;
  }

  /**
   * Overwrites a subject's key and what it is found by, here and in the file; durable when it resolves.
   *
   * @returns false if nothing of it was left any more. @throws `disk_failed`
   */
  async destroy(subject: Uint8Array): Promise<boolean> {
    const { disk, path } = this.#options;
    const slot = this.#byName.find(this.#slots, subject);
    this.#cache.delete(textOf(subject));
    if (slot === undefined) {
      this.noteErased(subject);
      return false;
    }
    if (this.#isErased(slot)) return false;
    const from = slot * SLOT_BYTES + SUBJECT_BYTES;
    const zeros = Buffer.alloc(SLOT_BYTES - SUBJECT_BYTES);
    const file = disk.open(path, "update");
    try {
      await file.writeDurably(zeros, SLOT_BYTES + from);
    } finally {
      file.close();
    }
    zeros.copy(this.#slots, from);
    return true;
  }

  /** The slots as they are, for another tenant that is given the same root. */
  copySlots(): Buffer {
    return Buffer.from(this.#slots.subarray(0, this.#durable * SLOT_BYTES));
  }

  /** Zeroes what is in clear. */
  close(): void {
    this.#closed = true;
    this.#hashKey.fill(0);
    this.#cache.clear();
  }

  #enter(slot: number): void {
    this.#byName.add(this.#slots, slot);
    if (!this.#isErased(slot)) this.#byHash.add(this.#slots, slot);
  }

  #make(hash: Buffer): number {
    const { randomness, nowUs } = this.#options;
    const slot = this.#count;
    this.#slots = roomFor(this.#slots, (slot + 1) * SLOT_BYTES);
    const bytes = this.#slots.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES);
    const subject = randomness.bytes(SUBJECT_BYTES);
    const key = freshKey(randomness);
    subject.copy(bytes, 0);
    bytes.writeBigUInt64LE(nowUs(), CREATED_AT);
    hash.copy(bytes, HASH_AT);
    const binding = bindingOf(bytes);
    wrapKey({ key, wrappingKey: this.#wrapKey, binding, randomness }).copy(bytes, WRAPPED_AT);
    this.#keep(subject.toString("latin1"), key);
    this.#count += 1;
    this.#enter(slot);
    return slot;
  }

  #keyAt(slot: number): KeyObject {
    const name = textOf(this.#nameAt(slot));
    const cached = this.#cache.get(name);
    if (cached !== undefined) return cached;
    const bytes = this.#slots.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES);
    const wrapped = bytes.subarray(WRAPPED_AT, WRAPPED_AT + WRAPPED_BYTES);
    this.#refuseIfClosed();
    const raw = unwrapKey({ wrapped, wrappingKey: this.#wrapKey, binding: bindingOf(bytes) });
    if (raw === undefined) throw this.#damaged("a subject's key does not open");
    return this.#keep(name, raw);
  }

  /** Zeroes what it is given. */
  #keep(name: string, raw: Buffer): KeyObject {
    const key = createSecretKey(raw);
    raw.fill(0);
    if (this.#cache.size >= MAX_CACHED) {
      const [oldest] = this.#cache.keys();
      this.#cache.delete(oldest as string);
    }
    this.#cache.set(name, key);
    return key;
  }

  #nameAt(slot: number): Buffer {
    return this.#slots.subarray(slot * SLOT_BYTES, slot * SLOT_BYTES + SUBJECT_BYTES);
  }

  #isErased(slot: number): boolean {
    const from = slot * SLOT_BYTES + HASH_AT;
    return this.#slots.subarray(from, from + HASH_BYTES + WRAPPED_BYTES).every((byte) => byte === 0);
  }

  #hash(value: Uint8Array): Buffer {
    this.#refuseIfClosed();
    return createHmac("sha256", this.#hashKey).update(value).digest();
  }

  #refuseIfClosed(): void {
    if (!this.#closed) return;
    const { tenant } = this.#options;
    throw kimberliteError("closed", "the tenant's keys were closed", { detail: { tenant } });
  }

  #damaged(why: string): Error {
    return kimberliteError("keys_damaged", why, { detail: { tenant: this.#options.tenant } });
  }
}

/** Makes the file, with slots that another tenant's root opens or with none. @throws `disk_full`, `disk_failed` */
export async function createSubjectFile(
  place: { readonly disk: Disk; readonly path: string; readonly tenant: TenantId },
  slots: Uint8Array = Buffer.alloc(0),
): Promise<void> {
  const head = Buffer.alloc(SLOT_BYTES);
  head.write(MAGIC, 0, "latin1");
  head.writeUInt32LE(FORMAT_VERSION, 4);
  head.writeBigUInt64LE(place.tenant, 8);
  await place.disk.replaceFile(place.path, Buffer.concat([head, slots]));
}

/**
 * Whole slots; what a crash left of one at the end is left out, for no record names it.
 *
 * @throws `keys_missing` without a file, `keys_damaged`, `format_too_new`
 */
export function parseSubjectFile(tenant: TenantId, bytes: Buffer | undefined): Buffer {
  const detail = { tenant };
  if (bytes === undefined) {
    throw kimberliteError("keys_missing", "the keys of the tenant's subjects are not in the key store", {
      detail,
    });
  }
  const known = bytes.length >= SLOT_BYTES && bytes.toString("latin1", 0, 4) === MAGIC;
  if (known && bytes.readUInt32LE(4) > FORMAT_VERSION) {
    throw kimberliteError("format_too_new", "the keys of the tenant's subjects are in a later format", {
      detail,
    });
  }
  if (!known || bytes.readUInt32LE(4) !== FORMAT_VERSION || bytes.readBigUInt64LE(8) !== tenant) {
    throw kimberliteError("keys_damaged", "the keys of the tenant's subjects are damaged or another's", {
      detail,
    });
  }
  const whole = bytes.length - (bytes.length % SLOT_BYTES);
  return bytes.subarray(SLOT_BYTES, whole);
}

/** Names in slots, hex. */
export function subjectsIn(slots: Buffer): Set<string> {
  const names = new Set<string>();
  for (let at = 0; at < slots.length; at += SLOT_BYTES)
    names.add(slots.toString("hex", at, at + SUBJECT_BYTES));
  return names;
}

/** Slots that say of subjects that they were erased. */
export function erasedSlots(names: readonly string[]): Buffer {
  const slots = Buffer.alloc(names.length * SLOT_BYTES);
  for (const [index, name] of names.entries()) slots.write(name, index * SLOT_BYTES, "hex");
  return slots;
}

/** Name, time and hash: a wrapped key that was moved to another slot does not open. */
function bindingOf(slot: Buffer): Buffer {
  return Buffer.concat([Buffer.from("kimberlite/v1/subject"), slot.subarray(0, WRAPPED_AT)]);
}

function roomFor(slots: Buffer, bytes: number): Buffer {
  if (slots.length >= bytes) return slots;
  const roomier = Buffer.alloc(Math.max(bytes, 2 * slots.length, 64 * SLOT_BYTES));
  slots.copy(roomier);
  return roomier;
}

function derive(root: Buffer, purpose: string): Buffer {
  assert(root.length === KEY_BYTES, "a subject root is 32 bytes");
  return Buffer.from(hkdfSync("sha256", root, Buffer.alloc(0), `kimberlite/v1/${purpose}`, KEY_BYTES));
}

function textOf(subject: Uint8Array): string {
  return Buffer.from(subject.buffer, subject.byteOffset, subject.byteLength).toString("latin1");
}
