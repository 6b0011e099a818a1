/**
 * Where the time of one path goes: `node bench/profile.ts PATH [--seconds N] [--build DIR] [--top N]`.
 *
 * Profiles the measured stretch alone, never its preparation, and prints the functions by their own time. Paths:
 * inserts, inserts-1000 (tenants, one caller each), points, ranges, updates, rebuild, verify.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { Session } from "node:inspector/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { datasetOf } from "./dataset.ts";
import { prepareKimberlite } from "./kimberlite.ts";
import { Driver, type Workload } from "./load.ts";
import { measureRebuild } from "./rebuild.ts";
import { measureVerify } from "./verify.ts";

interface CallFrame {
  readonly functionName: string;
  readonly url: string;
  readonly lineNumber: number;
}

interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: CallFrame;
    readonly children?: readonly number[];
  }[];
  readonly samples?: readonly number[];
  readonly timeDeltas?: readonly number[];
}

interface Setting {
  readonly build: string;
  readonly folder: string;
  readonly seconds: number;
}

type Measured = <T>(stretch: () => Promise<T>) => Promise<T>;

const LOADS: Readonly<Record<string, { workload: Workload; tenants: number; callers: number }>> = {
  inserts: { workload: "inserts", tenants: 1, callers: 64 },
  "inserts-1000": { workload: "inserts", tenants: 1_000, callers: 1_000 },
  points: { workload: "points", tenants: 1, callers: 1 },
  ranges: { workload: "ranges", tenants: 1, callers: 1 },
  updates: { workload: "updates", tenants: 1, callers: 64 },
};

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: "string" }, build: { type: "string" }, top: { type: "string" } },
});
const folder = mkdtempSync(join(tmpdir(), "kimberlite-profile-"));
try {
  const build = values.build ?? fileURLToPath(new URL("../dist", import.meta.url));
  await profilePath(positionals[0] ?? "inserts", { build, folder, seconds: Number(values.seconds ?? 4) });
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function profilePath(path: string, setting: Setting): Promise<void> {
  const session = new Session();
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.setSamplingInterval", { interval: 200 });
  let profile: Profile | undefined;
  const measured: Measured = async (stretch) => {
    await session.post("Profiler.start");
    const value = await stretch();
    profile = (await session.post("Profiler.stop")).profile as Profile;
    return value;
  };
  console.log(await runPath(path, setting, measured));
  if (profile !== undefined) print(profile, Number(values.top ?? 30));
}

async function runPath(path: string, setting: Setting, measured: Measured): Promise<string> {
  if (path === "rebuild") {
    const result = await measureRebuild({ ...setting, changes: 200_000, rowsEach: 1, measured });
    return `${Math.round(result.changesPerSecond)} row changes/s`;
  }
  if (path === "verify") {
    const result = await measureVerify({
      ...setting,
      megabytes: 256,
      recordsEach: 64,
      withKeys: true,
      measured,
    });
    return `${Math.round(result.megabytesPerSecond)} MB/s`;
  }
  const load = LOADS[path];
  if (load === undefined) throw new Error(`no path ${path}`);
  return runLoad(load, setting, measured);
}

async function runLoad(load: (typeof LOADS)[string], setting: Setting, measured: Measured): Promise<string> {
  const dataset = datasetOf(load.tenants);
  const { subject } = await prepareKimberlite(setting, dataset);
  const driver = new Driver(subject, dataset);
  await driver.run({ ...load, dataset, seconds: 1 });
  const cpu = process.cpuUsage();
  const { perSecond } = await measured(() => driver.run({ ...load, dataset, seconds: setting.seconds }));
  const spent = process.cpuUsage(cpu);
  await subject.close();
  const cpuUs = (spent.user + spent.system) / (perSecond * setting.seconds);
  return `${Math.round(perSecond)}/s, ${cpuUs.toFixed(1)} µs of CPU an operation (all threads, profiler included)`;
}

/** Own time by function, largest first. What a native function does is its own: it is told apart by who called it. */
function print(profile: Profile, top: number): void {
  const own = new Map<number, number>();
  for (const [index, id] of (profile.samples ?? []).entries()) {
    own.set(id, (own.get(id) ?? 0) + (profile.timeDeltas?.[index] ?? 0));
  }
  const callers = new Map<number, CallFrame>();
  for (const { callFrame, children = [] } of profile.nodes)
    for (const child of children) callers.set(child, callFrame);
  const byFunction = new Map<string, number>();
  let total = 0;
  for (const { id, callFrame } of profile.nodes) {
    const name = nameOf(callFrame, callers.get(id));
    byFunction.set(name, (byFunction.get(name) ?? 0) + (own.get(id) ?? 0));
    total += own.get(id) ?? 0;
  }
  const rows = [...byFunction].sort((a, b) => b[1] - a[1]).slice(0, top);
  for (const [name, us] of rows) console.log(`${((100 * us) / total).toFixed(1).padStart(5)} %  ${name}`);
}

function nameOf(frame: CallFrame, caller: CallFrame | undefined): string {
  const name = frame.functionName === "" ? "(anonymous)" : frame.functionName;
  if (frame.url !== "") return `${name} ${basename(frame.url)}:${frame.lineNumber + 1}`;
  return caller === undefined || caller.url === ""
    ? name
    : `${name} (native) in ${nameOf(caller, undefined)}`;
}
