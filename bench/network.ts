/**
 * Over the network: `kimberlite serve` in a process of its own, driven through the unmodified `@libsql/client` by HTTP
 * and by WebSocket, beside PostgreSQL with row-level security through `pg`. Both over TCP on the loopback interface, both
 * with as many connections as callers, at most 64.
 */
import { interleave } from "./compare.ts";
import { type Dataset, datasetOf } from "./dataset.ts";
import { forEachTenant } from "./kimberlite.ts";
import { Driver, median, type Stretch, type Workload } from "./load.ts";
import { PostgresServer } from "./postgres.ts";
import type { Results } from "./results.ts";
import { type ServedNode, serveDataset, serveFixed } from "./served.ts";
import { inScratch, type Setting } from "./setting.ts";

const WORKLOADS: readonly Workload[] = ["points", "inserts"];
const CONNECTIONS = [1, 16, 64] as const;
const TARGET_FROM_CONNECTIONS = 16;
const ADMISSIONS = 5_000;
const ADMISSION_TARGET_PERCENT = 10;

export async function measureNetwork(setting: Setting, results: Results): Promise<void> {
  const postgres = setting.postgres ? await PostgresServer.start({ tcp: true }) : undefined;
  try {
    for (const tenants of setting.quick ? [1] : [1, 1_000]) {
      await inScratch((folder) => measureScale({ setting, results, folder, postgres }, datasetOf(tenants)));
    }
  } finally {
    await postgres?.stop();
  }
}

interface Place {
  readonly setting: Setting;
  readonly results: Results;
  readonly folder: string;
  readonly postgres: PostgresServer | undefined;
}

async function measureScale(place: Place, dataset: Dataset): Promise<void> {
  const { setting, folder, postgres } = place;
  const node = await serveDataset({ build: setting.build, folder }, dataset);
  try {
    const subjects = [node.subject("http"), node.subject("ws")];
    if (postgres !== undefined) subjects.push(await postgres.prepare(dataset));
    const drivers = subjects.map((subject) => new Driver(subject, dataset));
    // Opening a tenant is measured elsewhere ("cold open"); a connection for each of them is what users keep.
    for (const subject of subjects) await forEachTenant(dataset.tenants, async (at) => subject.point(at, 1));
    for (const workload of WORKLOADS) {
      for (const callers of CONNECTIONS) await compareCell(place, { dataset, drivers, workload, callers });
    }
    if (dataset.tenants === 1) {
      await measureCeiling(place, drivers, dataset);
      await measureAdmission(place, node, drivers[0] as Driver);
    }
    for (const subject of subjects) await subject.close();
  } finally {
    await node.stop();
  }
}

interface Cell {
  readonly dataset: Dataset;
  readonly drivers: readonly Driver[];
  readonly workload: Workload;
  readonly callers: number;
}

async function compareCell({ setting, results }: Place, cell: Cell): Promise<void> {
  const { dataset, drivers, workload, callers } = cell;
  const options = { workload, callers, dataset, seconds: setting.seconds / setting.rounds };
  const rounds = await interleave(drivers, setting.rounds, (driver) => driver.run(options), {
    warmUp: (driver) => driver.run({ ...options, seconds: Math.min(0.3, options.seconds) }),
  });
  const scale = `${dataset.tenants} ${dataset.tenants === 1 ? "tenant" : "tenants"} × ${callers} connections`;
  const theirs = rounds[2];
  for (const [index, driver] of drivers.entries()) {
    const ours = rounds[index] as Stretch[];
    const ratio =
      theirs === undefined || index === 2
        ? undefined
        : median(ours.map((round, at) => round.perSecond / (theirs[at]?.perSecond ?? Number.NaN)));
    const p99 = `p99 ${Math.round(median(ours.map((round) => round.p99Us))).toLocaleString("en-US")} µs`;
    results.figures.push({
      name: `network ${workload}, ${scale}, ${driver.subject.name}`,
      value: median(ours.map((round) => round.perSecond)),
      unit: "/s",
      note: ratio === undefined ? p99 : `${ratio.toFixed(2)} × PostgreSQL; ${p99}`,
    });
    if (ratio === undefined || callers < TARGET_FROM_CONNECTIONS) continue;
    results.verdicts.push({
      target: `network ${workload}, ${scale}, ${driver.subject.name}: ≥ 1 × PostgreSQL`,
      measured: `${ratio.toFixed(2)} ×`,
      met: ratio >= 1,
    });
  }
}

/** What the client alone could ask, and how much of that the node answers. */
async function measureCeiling(
  { setting, results }: Place,
  drivers: readonly Driver[],
  dataset: Dataset,
): Promise<void> {
  const fixed = await serveFixed();
  const callers = 16;
  const options = {
    workload: "points",
    callers,
    dataset,
    seconds: setting.seconds / setting.rounds,
  } as const;
  try {
    for (const [index, protocol] of (["http", "ws"] as const).entries()) {
      const ceiling = new Driver(fixed.subject(protocol), dataset);
      const pair = [ceiling, drivers[index] as Driver];
      const [most, ours] = (await interleave(pair, setting.rounds, (driver) => driver.run(options), {
        warmUp: (driver) => driver.run(options),
      })) as [Stretch[], Stretch[]];
      const share = median(ours.map((round, at) => round.perSecond / (most[at] as Stretch).perSecond));
      results.figures.push({
        name: `network points, ${callers} connections, most that the client asks, ${ceiling.subject.name}`,
        value: median(most.map((round) => round.perSecond)),
        unit: "/s",
        note: `of a server that answers from memory; the node has ${share.toFixed(2)} of it`,
      });
      await ceiling.subject.close();
    }
  } finally {
    await fixed.stop();
  }
}

/** What knowing who asks costs, of the CPU time that the server gives a request. */
async function measureAdmission(
  { setting, results }: Place,
  node: ServedNode,
  driver: Driver,
): Promise<void> {
  const before = node.cpuUs();
  const seconds = Math.max(1, setting.seconds);
  const dataset = datasetOf(1);
  const { perSecond } = await driver.run({ workload: "points", callers: 16, dataset, seconds });
  const requestUs = (node.cpuUs() - before) / (perSecond * seconds);
  const { authenticationUs, quotaUs } = await node.admission(ADMISSIONS);
  const percent = (100 * (authenticationUs + quotaUs)) / requestUs;
  results.figures.push(
    {
      name: "network points, CPU of the server",
      value: requestUs,
      unit: "µs a request",
      note: "HTTP, 16 connections",
    },
    { name: "authentication of an API key, and its recheck", value: authenticationUs, unit: "µs" },
    { name: "admission of a read by all four quotas", value: quotaUs, unit: "µs" },
  );
  results.verdicts.push({
    target: `authentication and quotas < ${ADMISSION_TARGET_PERCENT} % of a request (reads and writes leave no audit record)`,
    measured: `${percent.toFixed(1)} %`,
    met: percent < ADMISSION_TARGET_PERCENT,
  });
}
