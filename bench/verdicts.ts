/** The targets of the comparisons, and whether they are met: ratios of the subjects in one run. */
import { median, type Workload } from "./load.ts";
import type { Comparison, Results } from "./results.ts";

interface Target {
  readonly workload: Workload;
  readonly tenants: number;
  readonly callers: number;
  readonly against: string;
  readonly least: number;
}

const TARGETS: readonly Target[] = [
  { workload: "inserts", tenants: 1, callers: 64, against: "PostgreSQL", least: 5 },
  { workload: "inserts", tenants: 1_000, callers: 1_000, against: "PostgreSQL", least: 3 },
  { workload: "points", tenants: 1, callers: 64, against: "PostgreSQL", least: 10 },
  { workload: "points", tenants: 1, callers: 64, against: "SQLite", least: 0.7 },
];

/** Judges what was compared; a target whose comparison did not run is left out, for the run says why. */
export function judge(results: Results): Results["verdicts"] {
  return TARGETS.flatMap((target) => {
    const found = results.comparisons.find(
      ({ workload, tenants, callers }) =>
        workload === target.workload && tenants === target.tenants && callers === target.callers,
    );
    const ratio = found === undefined ? undefined : ratioOf(found, target.against);
    if (ratio === undefined) return [];
    const scale = `${target.tenants === 1 ? "1 tenant" : `${target.tenants} tenants`} × ${target.callers} callers`;
    return [
      {
        target: `${target.workload}, ${scale}: ≥ ${target.least} × ${target.against}`,
        measured: `${ratio.toFixed(2)} ×`,
        met: ratio >= target.least,
      },
    ];
  });
}

/**
 * Kimberlite's rate over the other's: the median of the rounds' ratios, for what disturbs a round disturbs both in it.
 */
export function ratioOf(comparison: Comparison, against: string): number | undefined {
  const [ours, theirs] = [comparison.subjects["Kimberlite"], comparison.subjects[against]];
  if (ours === undefined || theirs === undefined) return undefined;
  return median(ours.rounds.map((rate, round) => rate / (theirs.rounds[round] ?? Number.NaN)));
}
