/**
 * Finds slots of equal length by a field of random bytes, in typed arrays: an entry costs eight bytes, where a Map of
 * strings costs a hundred. Entries are never taken out: who overwrites a slot's field is not found by it any more.
 */
import { assert } from "../errors.ts";

const FREE = 0xffff_ffff;

/** Where the fields are. */
export interface SlotField {
  /** Position of the field in a slot; its first four bytes are uniformly random. */
  readonly at: number;
  readonly bytes: number;
  readonly slotBytes: number;
}

export class SlotIndex {
  readonly #field: SlotField;
  #table: Uint32Array = new Uint32Array(64).fill(FREE);
  #count = 0;

  constructor(field: SlotField) {
    this.#field = field;
  }

  /** Enters a slot by the field that it has now. */
  add(slots: Buffer, slot: number): void {
    assert(slot < FREE, "a slot's number fits the index");
    if (this.#count * 2 >= this.#table.length) this.#grow(slots);
    this.#place(slots, slot);
    this.#count += 1;
  }

  /** Number of the slot whose field is that. */
  find(slots: Buffer, field: Uint8Array): number | undefined {
    const { at, bytes, slotBytes } = this.#field;
    const wanted = Buffer.from(field.buffer, field.byteOffset, field.byteLength);
    const mask = this.#table.length - 1;
    for (let place = wanted.readUInt32LE(0) & mask; ; place = (place + 1) & mask) {
      const slot = this.#table[place] as number;
      if (slot === FREE) return undefined;
      const start = slot * slotBytes + at;
      if (wanted.equals(slots.subarray(start, start + bytes))) return slot;
    }
  }

  #place(slots: Buffer, slot: number): void {
    const { at, slotBytes } = this.#field;
    const mask = this.#table.length - 1;
    let place = slots.readUInt32LE(slot * slotBytes + at) & mask;
    while (this.#table[place] !== FREE) place = (place + 1) & mask;
    this.#table[place] = slot;
  }

  #grow(slots: Buffer): void {
    const before = this.#table;
    this.#table = new Uint32Array(before.length * 2).fill(FREE);
    for (const slot of before) if (slot !== FREE) this.#place(slots, slot);
  }
}
