/** Ten thousand tenants: how long creating them takes, what they keep resident, and how long a restart takes. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Results } from "./results.ts";
import type { ScaleReport } from "./scale-child.ts";
import { inScratch, type Setting } from "./setting.ts";

const TARGET_TENANTS = 10_000;
const MAX_SECONDS = 60;
const MAX_RESIDENT_BYTES = 1.5 * 2 ** 30;
const MIB = 2 ** 20;

export async function measureScale(setting: Setting, results: Results): Promise<void> {
  const tenants = setting.quick ? 1_000 : TARGET_TENANTS;
  const touched = setting.quick ? 100 : 1_000;
  await inScratch(async (folder) => {
    const made = await runChild([setting.build, folder, String(tenants), String(touched)]);
    const again = await runChild([setting.build, folder, "0", String(touched)]);
    report(results, { tenants, made, again });
  });
}

function report(
  results: Results,
  what: { readonly tenants: number; readonly made: ScaleReport; readonly again: ScaleReport },
): void {
  const { tenants, made, again } = what;
  const resident = Math.max(made.rssTouched, again.rssTouched);
  results.figures.push(
    {
      name: `create ${tenants} tenants`,
      value: made.createSeconds,
      unit: "s",
      note: "keys and catalogue durable; 32 at a time",
    },
    { name: "resident after creating them", value: made.rssCreated / MIB, unit: "MiB" },
    {
      name: `resident with ${made.openTenants} of them open`,
      value: made.rssTouched / MIB,
      unit: "MiB",
      note: "as many as the default keeps open",
    },
    {
      name: `restart with ${tenants} tenants`,
      value: again.openSeconds * 1_000,
      unit: "ms",
      note: "open() to ready",
    },
    { name: "resident after the restart", value: again.rssOpened / MIB, unit: "MiB" },
    {
      name: `resident, ${again.openTenants} open, after the restart`,
      value: again.rssTouched / MIB,
      unit: "MiB",
    },
  );
  if (tenants !== TARGET_TENANTS) return;
  results.verdicts.push(
    {
      target: "10,000 tenants created < 60 s",
      measured: `${made.createSeconds.toFixed(1)} s`,
      met: made.createSeconds < MAX_SECONDS,
    },
    {
      target: "10,000 tenants resident < 1.5 GiB",
      measured: `${Math.round(resident / MIB)} MiB`,
      met: resident < MAX_RESIDENT_BYTES,
    },
  );
}

/** In a process of its own, so that what is resident is this and nothing else. */
function runChild(args: readonly string[]): Promise<ScaleReport> {
  const script = fileURLToPath(new URL("scale-child.ts", import.meta.url));
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, ...args], { stdio: ["ignore", "pipe", "inherit"] });
    const kill = (): void => void child.kill("SIGKILL");
    process.once("exit", kill);
    const chunks: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.on("error", reject);
    child.on("close", (code) => {
      process.off("exit", kill);
      if (code === 0) resolve(JSON.parse(Buffer.concat(chunks).toString("utf8")) as ScaleReport);
      else reject(new Error(`the child process ended with ${code}`));
    });
  });
}
