/**
 * What multi-tenancy costs one tenant: the same tenant alone in a database, among a thousand open ones, and among them
 * under a quota on everything. Rounds are compared in pairs, for one per cent is less than what a machine drifts.
 */

import { interleave } from "./compare.ts";
import type { Dataset } from "./dataset.ts";
import { prepareKimberlite } from "./kimberlite.ts";
import { Driver, type LoadOptions, median, type Workload } from "./load.ts";
import type { Results } from "./results.ts";
import { inScratch, type Setting } from "./setting.ts";

const ROWS_EACH = 500;
const QUOTA = {
  maxLogBytes: 2 ** 50,
  maxProjectionBytes: 2 ** 50,
  maxOpsPerSec: 10_000_000,
  maxConcurrentOps: 10_000,
};

interface Variant {
  readonly name: "alone" | "among" | "quota";
  readonly dataset: Dataset;
  readonly driver: Driver;
  readonly tenant: number;
  readonly before: () => Promise<unknown>;
}

export async function measureTenancy(setting: Setting, results: Results): Promise<void> {
  const tenants = setting.quick ? 100 : 1_000;
  await inScratch(async (aloneFolder) =>
    inScratch(async (amongFolder) => {
      const variants = await prepareVariants(setting, { aloneFolder, amongFolder, tenants });
      for (const { workload, callers } of [
        { workload: "points", callers: 1 },
        { workload: "inserts", callers: 64 },
      ] as const) {
        await compareVariants(setting, results, { workload, callers, tenants, variants });
      }
      for (const { driver } of variants.slice(0, 2)) await driver.subject.close();
    }),
  );
}

async function prepareVariants(
  setting: Setting,
  where: { readonly aloneFolder: string; readonly amongFolder: string; readonly tenants: number },
): Promise<Variant[]> {
  const { build } = setting;
  const one = { tenants: 1, rowsEach: ROWS_EACH };
  const many = { tenants: where.tenants, rowsEach: ROWS_EACH };
  const alone = await prepareKimberlite({ build, folder: where.aloneFolder }, one);
  const among = await prepareKimberlite({ build, folder: where.amongFolder }, many);
  const amongDriver = new Driver(among.subject, many);
  const tenant = where.tenants >> 1;
  const id = among.library.TenantId(tenant);
  return [
    {
      name: "alone",
      dataset: one,
      driver: new Driver(alone.subject, one),
      tenant: 1,
      before: async () => undefined,
    },
    { name: "among", dataset: many, driver: amongDriver, tenant, before: () => among.db.setQuota(id, {}) },
    { name: "quota", dataset: many, driver: amongDriver, tenant, before: () => among.db.setQuota(id, QUOTA) },
  ];
}

interface Measured {
  readonly perSecond: number;
  /** CPU time of all threads an operation. */
  readonly cpuUs: number;
}

async function compareVariants(
  setting: Setting,
  results: Results,
  what: {
    readonly workload: Workload;
    readonly callers: number;
    readonly tenants: number;
    readonly variants: readonly Variant[];
  },
): Promise<void> {
  const { workload, callers, variants, tenants } = what;
  const rounds = setting.quick ? 5 : 21;
  const seconds = (setting.seconds * 3) / rounds;
  const run = (variant: Variant): Promise<Measured> => measure(variant, { workload, callers, seconds });
  const [alone = [], among = [], quota = []] = await interleave(variants, rounds, run, { warmUp: run });
  const note = `median of ${rounds} paired rounds, ${callers} ${callers === 1 ? "caller" : "callers"} of one tenant`;
  const { figures } = results;
  figures.push({
    name: `${workload}, tenant alone`,
    value: median(alone.map((round) => round.perSecond)),
    unit: "/s",
    note,
  });
  for (const [name, measured] of [
    [`among ${tenants} open tenants`, among],
    [`among ${tenants}, with a quota`, quota],
  ] as const) {
    const { rate, cpu } = shares(measured, alone);
    figures.push({ name: `${workload}, ${name}: rate`, value: rate, unit: "% of alone", note });
    figures.push({ name: `${workload}, ${name}: CPU an operation`, value: cpu, unit: "% of alone", note });
  }
  judge(results, workload, [shares(among, alone), shares(quota, alone)]);
}

async function measure(
  { dataset, driver, tenant, before }: Variant,
  load: Pick<LoadOptions, "workload" | "callers" | "seconds">,
): Promise<Measured> {
  await before();
  const started = process.cpuUsage();
  const { perSecond } = await driver.run({ ...load, dataset, tenant });
  const spent = process.cpuUsage(started);
  return { perSecond, cpuUs: (spent.user + spent.system) / (perSecond * load.seconds) };
}

interface Shares {
  readonly rate: number;
  readonly cpu: number;
}

function shares(measured: readonly Measured[], alone: readonly Measured[]): Shares {
  const of = (field: keyof Measured): number =>
    100 * median(measured.map((round, index) => round[field] / (alone[index] as Measured)[field]));
  return { rate: of("perSecond"), cpu: of("cpuUs") };
}

/** By CPU time: what tenancy adds is work, and CPU time tells one per cent of it from a neighbour on the machine. */
function judge(results: Results, workload: Workload, [among, quota]: readonly [Shares, Shares]): void {
  const allowed = workload === "points" ? 1 : 5;
  const of = ({ rate, cpu }: Shares): string => `${cpu.toFixed(1)} % (rate ${rate.toFixed(1)} %)`;
  results.verdicts.push({
    target: `multi-tenancy adds ≤ ${allowed} % to ${workload === "points" ? "reads of a warm tenant" : "durable writes"}`,
    measured: `CPU ${of(among)} of alone; with a quota ${of(quota)}`,
    met: Math.max(among.cpu, quota.cpu) <= 100 + allowed,
  });
}
