/**
 * The subjects side by side: the same load on each in turn, in rounds whose order is reversed every time, so that what
 * the machine does meanwhile falls on all alike. A figure is the median of its rounds.
 */
import { datasetOf } from "./dataset.ts";
import { prepareKimberlite } from "./kimberlite.ts";
import { Driver, type LoadOptions, median, type Stretch, WORKLOADS, type Workload } from "./load.ts";
import type { PostgresServer } from "./postgres.ts";
import type { Comparison, Results } from "./results.ts";
import { inScratch, type Setting } from "./setting.ts";
import { prepareSqlite } from "./sqlite.ts";
import type { Subject } from "./subject.ts";

const PAUSE_MS = 30;

interface Scale {
  readonly tenants: number;
  readonly callers: readonly number[];
}

function scalesOf(setting: Setting): readonly Scale[] {
  if (setting.quick) {
    return [
      { tenants: 1, callers: [1, 64] },
      { tenants: 1_000, callers: [1_000] },
    ];
  }
  return [
    { tenants: 1, callers: [1, 16, 64] },
    { tenants: 100, callers: [1, 16, 64] },
    { tenants: 1_000, callers: [1, 16, 64, 1_000] },
  ];
}

export async function compareAll(
  setting: Setting,
  results: Results,
  postgres: PostgresServer | undefined,
  say: (text: string) => void,
): Promise<void> {
  const workloads = WORKLOADS.filter(setting.chosen);
  if (workloads.length === 0) return;
  for (const scale of scalesOf(setting)) {
    say(`preparing ${scale.tenants} tenants`);
    await inScratch(async (folder) => {
      const drivers = await prepareDrivers(setting, folder, { scale, postgres });
      try {
        for (const what of cellsOf(scale, workloads)) {
          say(`${what.workload}: ${what.tenants} tenants, ${what.callers} callers`);
          await attempt(results, what, async () =>
            results.comparisons.push(await compare(setting, drivers, what)),
          );
        }
      } finally {
        for (const { subject } of drivers) await subject.close();
      }
    });
  }
}

interface Cell {
  readonly workload: Workload;
  readonly tenants: number;
  readonly callers: number;
}

function cellsOf({ tenants, callers }: Scale, workloads: readonly Workload[]): Cell[] {
  return workloads.flatMap((workload) => callers.map((count) => ({ workload, tenants, callers: count })));
}

/** A comparison that fails is named with the reason, and the next one is made. */
async function attempt(results: Results, cell: Cell, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const name = `${cell.workload}, ${cell.tenants} tenants × ${cell.callers} callers`;
    results.skipped.push({ name, reason: `failed: ${(error as Error).stack}` });
  }
}

async function prepareDrivers(
  setting: Setting,
  folder: string,
  what: { readonly scale: Scale; readonly postgres: PostgresServer | undefined },
): Promise<Driver[]> {
  const dataset = datasetOf(what.scale.tenants);
  const subjects: Subject[] = [(await prepareKimberlite({ build: setting.build, folder }, dataset)).subject];
  subjects.push(prepareSqlite(folder, dataset));
  if (what.postgres !== undefined) subjects.push(await what.postgres.prepare(dataset));
  return subjects.map((subject) => new Driver(subject, dataset));
}

async function compare(setting: Setting, drivers: readonly Driver[], what: Cell): Promise<Comparison> {
  const { workload, tenants, callers } = what;
  const options: LoadOptions = {
    workload,
    callers,
    dataset: datasetOf(tenants),
    seconds: setting.seconds / setting.rounds,
  };
  const rounds = await interleave(drivers, setting.rounds, (driver) => driver.run(options), {
    warmUp: (driver) => driver.run({ ...options, seconds: Math.min(0.2, options.seconds) }),
  });
  const subjects = Object.fromEntries(
    drivers.map((driver, index) => [driver.subject.name, summary(rounds[index] ?? [])]),
  );
  return { ...what, subjects };
}

/**
 * Runs every item once a round, in reversed order every other round.
 *
 * @returns for each item what its rounds gave.
 */
export async function interleave<S, T>(
  items: readonly S[],
  rounds: number,
  run: (item: S) => Promise<T>,
  options: { readonly warmUp?: (item: S) => Promise<unknown> } = {},
): Promise<T[][]> {
  const results: T[][] = items.map(() => []);
  if (options.warmUp !== undefined) for (const item of items) await options.warmUp(item);
  for (let round = 0; round < rounds; round += 1) {
    const order = [...items.keys()];
    if (round % 2 === 1) order.reverse();
    for (const index of order) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      results[index]?.push(await run(items[index] as S));
    }
  }
  return results;
}

function summary(rounds: readonly Stretch[]): Stretch & { readonly rounds: readonly number[] } {
  return {
    perSecond: median(rounds.map((round) => round.perSecond)),
    p50Us: median(rounds.map((round) => round.p50Us)),
    p99Us: median(rounds.map((round) => round.p99Us)),
    rounds: rounds.map((round) => Math.round(round.perSecond)),
  };
}
