/**
 * Noisy neighbours: the p99 of one tenant's point reads over the network, alone and while another tenant asks for the
 * worst that it can write, as often as its quota lets it. Stretches of both take turns.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Driver, median, type Stretch } from "./load.ts";
import type { NoiseOrder } from "./noisy-child.ts";
import type { Results } from "./results.ts";
import { serveDataset } from "./served.ts";
import { inScratch, type Setting } from "./setting.ts";

const DATASET = { tenants: 2, rowsEach: 20_000 };
const QUIET = 1;
const NOISY = 2;
const QUOTA = { maxOpsPerSec: 200, maxConcurrentOps: 64 };
const CALLERS = 4;
const TARGET_RATIO = 2;

export async function measureNoise(setting: Setting, results: Results): Promise<void> {
  await inScratch(async (folder) => {
    const node = await serveDataset({ build: setting.build, folder }, DATASET, new Map([[NOISY, QUOTA]]));
    const noise = fork(fileURLToPath(new URL("noisy-child.ts", import.meta.url)));
    const order = async (next: NoiseOrder): Promise<void> => {
      noise.send(next);
      await once(noise, "message");
    };
    try {
      const driver = new Driver(node.subject("http"), DATASET);
      const seconds = Math.max(0.5, setting.seconds);
      const run = (): Promise<Stretch> =>
        driver.run({ workload: "points", dataset: DATASET, callers: CALLERS, seconds, tenant: QUIET });
      await run();
      const [alone, beside]: [Stretch[], Stretch[]] = [[], []];
      for (let round = 0; round < setting.rounds; round += 1) {
        alone.push(await run());
        await order({ url: node.url, token: node.token(NOISY) });
        beside.push(await run());
        await order("quiet");
      }
      report(results, alone, beside);
      await driver.subject.close();
    } finally {
      noise.kill("SIGKILL");
      await node.stop();
    }
  });
}

function report(results: Results, alone: readonly Stretch[], beside: readonly Stretch[]): void {
  const p99 = (rounds: readonly Stretch[]): number => median(rounds.map(({ p99Us }) => p99Us));
  const rate = (rounds: readonly Stretch[]): number => median(rounds.map(({ perSecond }) => perSecond));
  const ratio = median(beside.map(({ p99Us }, round) => p99Us / (alone[round]?.p99Us ?? Number.NaN)));
  for (const [name, rounds] of [
    ["alone", alone],
    ["beside a noisy neighbour", beside],
  ] as const) {
    results.figures.push({
      name: `p99 of point reads ${name}`,
      value: p99(rounds),
      unit: "µs",
      note: `HTTP, ${CALLERS} callers, ${Math.round(rate(rounds)).toLocaleString("en-US")} reads/s`,
    });
  }
  results.verdicts.push({
    target: `p99 of point reads beside a noisy neighbour < ${TARGET_RATIO} × alone`,
    measured: `${ratio.toFixed(2)} ×`,
    met: ratio < TARGET_RATIO,
  });
}
