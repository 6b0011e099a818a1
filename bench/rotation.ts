/** What rotating the DEK costs the callers that write meanwhile: every other round has rotations in it. */
import { interleave } from "./compare.ts";
import { datasetOf } from "./dataset.ts";
import { prepareKimberlite } from "./kimberlite.ts";
import { Driver, median, type Stretch } from "./load.ts";
import type { Results } from "./results.ts";
import { inScratch, type Setting } from "./setting.ts";

const CALLERS = 64;
/** Far more often than anyone rotates: what one costs would be lost in the noise otherwise. */
const OFTEN_MS = 100;
const SELDOM_MS = 1_000;
const MAX_COST_PERCENT = 5;

export async function measureRotation(setting: Setting, results: Results): Promise<void> {
  const dataset = datasetOf(1);
  await inScratch(async (folder) => {
    const { db, library, subject } = await prepareKimberlite({ build: setting.build, folder }, dataset);
    const driver = new Driver(subject, dataset);
    const seconds = Math.max(0.3, setting.seconds / setting.rounds);
    const load = { workload: "inserts", callers: CALLERS, dataset, seconds } as const;
    const rotationsMs: number[] = [];
    const rotate = async (): Promise<void> => {
      const startedMs = performance.now();
      await db.rotateDek(library.TenantId(1));
      rotationsMs.push(performance.now() - startedMs);
    };
    const rotating = (everyMs: number, stretchSeconds: number) => async (): Promise<Stretch> => {
      const timer = setInterval(() => void rotate().catch(() => undefined), everyMs);
      return driver.run({ ...load, seconds: stretchSeconds }).finally(() => clearInterval(timer));
    };
    // Long enough that one that comes seldom comes.
    const longer = Math.max(seconds, (2.5 * SELDOM_MS) / 1_000);
    const variants = [
      (): Promise<Stretch> => driver.run({ ...load, seconds: longer }),
      rotating(SELDOM_MS, longer),
      rotating(OFTEN_MS, seconds),
    ];
    const [quiet = [], seldom = [], often = []] = await interleave(variants, setting.rounds, (run) => run(), {
      warmUp: (run) => run(),
    });
    await subject.close();
    if (rotationsMs.length === 0) throw new Error("no rotation ended while it was measured");
    report(results, { quiet, seldom, often, rotationsMs });
  });
}

function report(
  results: Results,
  what: {
    readonly quiet: readonly Stretch[];
    readonly seldom: readonly Stretch[];
    readonly often: readonly Stretch[];
    readonly rotationsMs: readonly number[];
  },
): void {
  const { quiet, seldom, often, rotationsMs } = what;
  const shareOf = (busy: readonly Stretch[]): number =>
    100 * median(busy.map(({ perSecond }, index) => perSecond / (quiet[index] as Stretch).perSecond));
  const p99 = (rounds: readonly Stretch[]): number => median(rounds.map(({ p99Us }) => p99Us)) / 1_000;
  const note = `inserts of ${CALLERS} callers`;
  results.figures.push(
    { name: "inserts while the DEK rotates every 1 s", value: shareOf(seldom), unit: "% of without", note },
    { name: "inserts while the DEK rotates every 100 ms", value: shareOf(often), unit: "% of without", note },
    { name: "p99 of an insert, without rotations", value: p99(quiet), unit: "ms" },
    { name: "p99 of an insert, rotations every 100 ms", value: p99(often), unit: "ms" },
    {
      name: "one DEK rotation",
      value: median(rotationsMs),
      unit: "ms",
      note: "median, durable, under that load",
    },
  );
  const cost = 100 - shareOf(seldom);
  results.verdicts.push({
    target: `DEK rotation every second costs < ${MAX_COST_PERCENT} % of the inserts`,
    measured: `${cost.toFixed(1)} %`,
    met: cost < MAX_COST_PERCENT,
  });
}
