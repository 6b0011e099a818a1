/** Random bytes as an input; production pools reads of the system's generator, for a call costs microseconds. */
import { randomFillSync } from "node:crypto";
import { assert } from "../errors.ts";

/** A source of unpredictable bytes. */
export interface Randomness {
  /** `size` fresh random bytes, never given out twice. */
  bytes(size: number): Buffer;
}

const POOL_BYTES = 16_384;

/** Cryptographic randomness of the system, drawn in pools. */
export function systemRandomness(): Randomness {
  let pool = Buffer.alloc(0);
  let used = 0;
  return {
    bytes(size: number): Buffer {
      assert(Number.isInteger(size) && size > 0, "a positive number of random bytes");
      if (size > POOL_BYTES / 4) return randomFillSync(Buffer.allocUnsafeSlow(size));
      if (used + size > pool.length) {
        pool = randomFillSync(Buffer.allocUnsafeSlow(POOL_BYTES));
        used = 0;
      }
      const bytes = pool.subarray(used, used + size);
      used += size;
      return bytes;
    },
  };
}
