/** How long an erasure takes: until nothing of the tenant can be read, and until its files are gone too. */
import { randomBytes } from "node:crypto";
import { loadBuilt, openNode } from "./kimberlite.ts";
import type { Results } from "./results.ts";
import { inScratch, type Setting } from "./setting.ts";

const EVENT_BYTES = 1024 * 1024;
const MAX_SECONDS = 1;
const TARGET_MIB = 1024;

type FailpointModule = typeof import("../src/host/failpoint.ts");

export async function measureErasure(setting: Setting, results: Results): Promise<void> {
  const mebibytes = setting.quick ? 64 : TARGET_MIB;
  await inScratch(async (folder) => {
    const { db, library } = await openNode({ build: setting.build, folder });
    const { onFailpoint } = await loadBuilt<FailpointModule>(setting.build, "host/failpoint.js");
    const tenant = library.TenantId(1);
    await db.createTenant({ id: tenant, name: "Goes" });
    const stream = await db.createStream(tenant, "scans");
    for (let event = 0; event < mebibytes; event += 1)
      await db.append(tenant, stream, [randomBytes(EVENT_BYTES / 2).toString("hex")]);
    let destroyedMs = Number.NaN;
    onFailpoint((name) => {
      if (name === "erase-after-keys") destroyedMs = performance.now();
    });
    const { logBytes } = await db.describeTenant(tenant);
    const startedMs = performance.now();
    await db.eraseTenant(tenant, { reason: "measured" });
    const endedMs = performance.now();
    onFailpoint(undefined);
    await db.close();
    report(results, {
      mebibytes: logBytes / 2 ** 20,
      unreadableMs: destroyedMs - startedMs,
      goneMs: endedMs - startedMs,
      full: !setting.quick,
    });
  });
}

function report(
  results: Results,
  what: {
    readonly mebibytes: number;
    readonly unreadableMs: number;
    readonly goneMs: number;
    readonly full: boolean;
  },
): void {
  const note = `${Math.round(what.mebibytes)} MiB of log`;
  results.figures.push(
    { name: "erasure, until the keys are destroyed", value: what.unreadableMs, unit: "ms", note },
    { name: "erasure, with files and memory", value: what.goneMs, unit: "ms", note },
  );
  if (!what.full) return;
  results.verdicts.push({
    target: "erasure of 1 GiB: nothing can be read after < 1 s",
    measured: `${Math.round(what.unreadableMs)} ms`,
    met: what.unreadableMs < MAX_SECONDS * 1_000,
  });
}
