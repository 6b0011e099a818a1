/** What rotating the DEK costs the callers that write meanwhile: every other round has rotations in it. */
import { interleave } from "./compare.ts";
import { datasetOf } from "./dataset.ts";
import { prepareKimberlite } from "./kimberlite.ts";
import { Driver, median, type Stretch } from "./load.ts";
import type { Results } from "./results.ts";
import { inScratch, type Setting } from "./setting.ts";

const EVERY_MS = 100;
const CALLERS = 64;

export async function measureRotation(setting: Setting, results: Results): Promise<void> {
  const dataset = datasetOf(1);
  await inScratch(async (folder) => {
    const { db, library, subject } = await prepareKimberlite({ build: setting.build, folder }, dataset);
    const driver = new Driver(subject, dataset);
    const seconds = Math.max(0.3, setting.seconds / setting.rounds);
    const load = { workload: "inserts", callers: CALLERS, dataset, seconds } as const;
    const rotationsMs: number[] = [];
    const rotating = async (): Promise<Stretch> => {
      const timer = setInterval(() => void rotate().catch(() => undefined), EVERY_MS);
      const rotate = async (): Promise<void> => {
        const startedMs = performance.now();
        await db.rotateDek(library.TenantId(1));
        rotationsMs.push(performance.now() - startedMs);
      };
      return driver.run(load).finally(() => clearInterval(timer));
    };
    const variants = [(): Promise<Stretch> => driver.run(load), rotating];
    const [quiet = [], busy = []] = await interleave(variants, setting.rounds, (run) => run(), {
      warmUp: (run) => run(),
    });
    const { keys } = { keys: await db.keys(library.TenantId(1)) };
    await subject.close();
    if (rotationsMs.length === 0) throw new Error("no rotation ended while it was measured");
    report(results, { quiet, busy, rotationsMs, versions: keys.deks.length });
  });
}

function report(
  results: Results,
  what: {
    readonly quiet: readonly Stretch[];
    readonly busy: readonly Stretch[];
    readonly rotationsMs: readonly number[];
    readonly versions: number;
  },
): void {
  const { quiet, busy, rotationsMs, versions } = what;
  const share = median(busy.map(({ perSecond }, index) => perSecond / (quiet[index] as Stretch).perSecond));
  const note = `inserts of ${CALLERS} callers, a rotation every ${EVERY_MS} ms, ${versions} versions at the end`;
  results.figures.push(
    { name: "inserts while the DEK rotates", value: 100 * share, unit: "% of without", note },
    {
      name: "p99 of an insert, without rotations",
      value: median(quiet.map((round) => round.p99Us)) / 1_000,
      unit: "ms",
    },
    {
      name: "p99 of an insert, with rotations",
      value: median(busy.map((round) => round.p99Us)) / 1_000,
      unit: "ms",
    },
    {
      name: "one DEK rotation",
      value: median(rotationsMs),
      unit: "ms",
      note: "median, durable, under that load",
    },
  );
}
