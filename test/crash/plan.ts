/** Where a process is to die, and how the process itself sees to it. */

import type { Disk } from "../../src/host/disk.ts";
import { systemDisk } from "../../src/host/disk.ts";
import { type Failpoint, onFailpoint } from "../../src/host/failpoint.ts";
import {
  type DiskCall,
  type DiskOperation,
  faultyDisk,
  type Interruption,
} from "../../src/testing/faulty-disk.ts";

/** An instant at which the process ends itself. */
export interface KillPlan {
  readonly name: string;
  /** Counted from the start of the process, or from the first operation on. */
  readonly phase: "open" | "run";
  /** Dies at the `nth` match. */
  readonly nth: number;
  readonly failpoint?: Failpoint;
  readonly operation?: DiskOperation;
  /** Ending of the path. */
  readonly path?: string;
  readonly when?: "before" | "after";
  /** Writes this share of the bytes first. */
  readonly share?: number;
  /** Only writes at this position. */
  readonly position?: number;
}

export interface ArmedPlan {
  readonly disk: Disk;
  /** The phase "run" begins. */
  start(): void;
}

/** A disk on which the plan comes true, through SIGKILL. */
export function arm(plan: KillPlan | undefined, die: () => void = killSelf): ArmedPlan {
  let armed = plan?.phase === "open";
  let seen = 0;
  const due = (): boolean => {
    if (!armed) return false;
    seen += 1;
    return seen === plan?.nth;
  };
  if (plan?.failpoint !== undefined) {
    onFailpoint((name) => {
      if (name === plan.failpoint && due()) die();
    });
  }
  const judge = (call: DiskCall): Interruption | undefined => {
    if (plan === undefined || !matches(plan, call) || !due()) return undefined;
    const { when = "before", share } = plan;
    const writtenBytes = share === undefined ? undefined : Math.floor((call.bytes ?? 0) * share);
    return { when, act: die, ...(writtenBytes === undefined ? {} : { writtenBytes }) };
  };
  return {
    disk: faultyDisk(systemDisk, judge),
    start: () => {
      armed = true;
    },
  };
}

function matches(plan: KillPlan, call: DiskCall): boolean {
  if (plan.operation !== call.operation || !call.path.endsWith(plan.path ?? "")) return false;
  return plan.position === undefined || plan.position === call.position;
}

function killSelf(): void {
  process.kill(process.pid, "SIGKILL");
}

/** Plans for every instant that has a name; `nth` is drawn by the test. */
export const NAMED_PLANS: readonly (Omit<KillPlan, "nth"> & { readonly most: number })[] = [
  { name: "journal: before the write", phase: "run", operation: "write", path: ".jnl", most: 60 },
  {
    name: "journal: in the middle of the write",
    phase: "run",
    operation: "write",
    path: ".jnl",
    share: 0.5,
    most: 60,
  },
  {
    name: "journal: after the write, before the answer",
    phase: "run",
    operation: "write",
    path: ".jnl",
    when: "after",
    most: 60,
  },
  {
    name: "journal: in its first sector",
    phase: "run",
    operation: "write",
    path: ".jnl",
    position: 0,
    share: 0.3,
    most: 4,
  },
  {
    name: "journal: as a file is begun anew",
    phase: "run",
    operation: "write",
    path: ".jnl",
    position: 0,
    when: "after",
    most: 8,
  },
  { name: "journal: turn, before a segment's sync", phase: "run", operation: "sync", path: ".seg", most: 12 },
  {
    name: "journal: turn, after a segment's sync",
    phase: "run",
    operation: "sync",
    path: ".seg",
    when: "after",
    most: 12,
  },
  { name: "segment: before the write", phase: "run", operation: "write", path: ".seg", most: 60 },
  {
    name: "segment: in the middle of the write",
    phase: "run",
    operation: "write",
    path: ".seg",
    share: 0.5,
    most: 60,
  },
  {
    name: "segment: after the write, before the projection's commit",
    phase: "run",
    operation: "write",
    path: ".seg",
    when: "after",
    most: 60,
  },
  {
    name: "segment: before a new one's header",
    phase: "run",
    operation: "write",
    path: ".seg",
    position: 0,
    most: 6,
  },
  {
    name: "segment: in the middle of a new one's header",
    phase: "run",
    operation: "write",
    path: ".seg",
    position: 0,
    share: 0.01,
    most: 6,
  },
  { name: "commit: before the answer", phase: "run", failpoint: "commit-before-answer", most: 60 },
  {
    name: "keys: before the former entry has a second name",
    phase: "run",
    failpoint: "replace-before-link",
    most: 1,
  },
  { name: "keys: between write and rename", phase: "run", failpoint: "replace-before-rename", most: 1 },
  { name: "keys: between rename and overwriting", phase: "run", failpoint: "replace-after-rename", most: 1 },
  { name: "keys: after overwriting", phase: "run", failpoint: "replace-after-overwrite", most: 1 },
  { name: "recovery: before a replayed write", phase: "open", operation: "write", path: ".seg", most: 20 },
  {
    name: "recovery: in the middle of a replayed write",
    phase: "open",
    operation: "write",
    path: ".seg",
    share: 0.5,
    most: 20,
  },
  { name: "recovery: before a segment's sync", phase: "open", operation: "sync", path: ".seg", most: 5 },
  {
    name: "recovery: before the journal is begun anew",
    phase: "open",
    operation: "write",
    path: ".jnl",
    most: 1,
  },
  {
    name: "recovery: after the journal is begun anew",
    phase: "open",
    operation: "write",
    path: ".jnl",
    when: "after",
    most: 1,
  },
  { name: "catch-up: before its commit", phase: "open", failpoint: "catch-up-before-commit", most: 4 },
  { name: "catch-up: after a commit on its way", phase: "open", failpoint: "catch-up-after-commit", most: 2 },
];
