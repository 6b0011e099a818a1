/** Chance that can be repeated: what a test draws follows from its seed. */

/** Draws from one seed, in order. */
export interface Seeded {
  /** An integer from 0 to `below` − 1. */
  below(below: number): number;
  /** True once in `times`, on average. */
  oneIn(times: number): boolean;
}

/** Mulberry32: fast, small, and good enough to choose by; not for secrets. */
export function seeded(seed: number): Seeded {
  let state = seed >>> 0;
  const below = (limit: number): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
  return { below, oneIn: (times) => below(times) === 0 };
}
