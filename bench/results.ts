/** What was measured: figures, comparisons and verdicts, as they are printed and kept. */
import type { Stretch, Workload } from "./load.ts";

/** One workload at one scale, on every subject, with the medians of its rounds. */
export interface Comparison {
  readonly workload: Workload;
  readonly tenants: number;
  readonly callers: number;
  readonly subjects: Readonly<Record<string, Stretch & { readonly rounds: readonly number[] }>>;
}

/** One measured number that is not a comparison. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly note?: string;
}

/** A target, and whether it was met. */
export interface Verdict {
  readonly target: string;
  readonly measured: string;
  readonly met: boolean;
}

export interface Results {
  readonly comparisons: Comparison[];
  readonly figures: Figure[];
  readonly verdicts: Verdict[];
  /** What could not run, and why. */
  readonly skipped: { readonly name: string; readonly reason: string }[];
}
