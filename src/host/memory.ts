/**
 * Overwriting what the heap of JavaScript still holds of objects that nobody refers to any more.
 *
 * A row that was read is in the heap until it is collected, and its bytes until something else takes their place.
 */
import { totalmem } from "node:os";
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * With this in the environment of a process glibc's allocator overwrites what is freed, at once, in every thread. Without
 * it small pieces are kept as they are, and what later takes their place may cover them in part only.
 */
export const OVERWRITING_ALLOCATOR = {
  name: "GLIBC_TUNABLES",
  value: "glibc.malloc.perturb=255:glibc.malloc.tcache_count=0",
} as const;

/** True if the process was started so. */
export function overwritesFreedMemory(): boolean {
  const set = (process.env[OVERWRITING_ALLOCATOR.name] ?? "").split(":");
  return OVERWRITING_ALLOCATOR.value.split(":").every((tunable) => set.includes(tunable));
}

/** Bytes that the process may have at most: its container's, or the machine's. */
export function machineMemory(): number {
  const constrained = process.constrainedMemory();
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

type Collect = (options: {
  readonly type: "major" | "minor";
  readonly execution: "sync";
  readonly flavor: "regular" | "last-resort";
}) => void;

let collect: Collect | undefined;

/** The last collection that was asked for, and the one of it that has not begun yet. */
let last: Promise<void> = Promise.resolve();
let waiting: Promise<void> | undefined;

/**
 * Collects everything that is unreachable, and has what was free overwritten. Blocks for five times as long as a whole
 * collection takes, with turns of others in between: each tens of milliseconds, and more with a large heap. Who asks while
 * one is under way shares the next.
 */
export function collectGarbage(): Promise<void> {
  waiting ??= last
    .catch(() => undefined)
    .then(() => {
      waiting = undefined;
      return collectNow();
    });
  last = waiting;
  return waiting;
}

async function collectNow(): Promise<void> {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as Collect;
  }
  setFlagsFromString("--clear-free-memory");
  try {
    const before = getHeapStatistics().total_heap_size;
    // What finalizers let go in one round is collected in the next.
    for (let round = 0; round < 3; round += 1) await collectOnce(collect);
    await fillGaps(before, collect);
    for (let round = 0; round < 2; round += 1) await collectOnce(collect);
  } finally {
    setFlagsFromString("--no-clear-free-memory");
  }
}

async function collectOnce(now: Collect): Promise<void> {
  now({ type: "major", execution: "sync", flavor: "last-resort" });
  // Sweeping goes on beside.
  await new Promise<void>((resolve) => setTimeout(resolve, SWEEP_MS));
}

const SWEEP_MS = 20;
/** More than both halves of the young generation, where scavenges leave copies behind: 16 MiB each unless told otherwise. */
const LARGE_MARGIN_BYTES = 48 * 1024 * 1024;
const SMALL_MARGIN_BYTES = 16 * 1024 * 1024;
/** Filled in one turn of the event loop. */
const TURN_BYTES = 4 * 1024 * 1024;
/** Elements of 8 bytes, of what takes half a page of the heap. */
const LARGE_ITEMS = 4_000;
/** Down to what fits the smallest gap. */
const SMALL_ITEMS = [500, 60, 8, 1];
const PIECE_HEAD_BYTES = 48;

/**
 * V8 keeps pages that it emptied for when the heap grows, as they are, and gaps between objects: so the heap has to grow
 * once by as much as it shrank, and by pieces of every size, which are kept until they are in the old generation. Others have
 * their turn in between.
 */
async function fillGaps(bytesBefore: number, now: Collect): Promise<void> {
  const shrunk = Math.max(0, bytesBefore - getHeapStatistics().total_heap_size);
  const pieces: number[][] = [];
  const fill = async (items: number, bytes: number): Promise<void> => {
    const size = 8 * items + PIECE_HEAD_BYTES;
    for (let filled = 0; filled < bytes; ) {
      const until = Math.min(bytes, filled + TURN_BYTES);
      for (; filled < until; filled += size) pieces.push(new Array<number>(items).fill(0));
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    now({ type: "minor", execution: "sync", flavor: "regular" });
    now({ type: "minor", execution: "sync", flavor: "regular" });
  };
  await fill(LARGE_ITEMS, shrunk + LARGE_MARGIN_BYTES);
  for (const items of SMALL_ITEMS) await fill(items, SMALL_MARGIN_BYTES);
  pieces.length = 0;
}
