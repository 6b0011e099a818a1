/**
 * Overwriting what freed memory still holds.
 *
 * A key or a row that is no longer referred to is still in the process's memory until something else takes its place: in
 * the heap of JavaScript until it is collected, in that of C until it is given out again.
 */

/** @returns whether it was done: it needs what this platform may not have. */
export async function releaseFreedMemory(): Promise<boolean> {
  return false;
}
