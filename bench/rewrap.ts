/** How long moving every tenant's KEK under another master key takes, while the node serves. */
import { join } from "node:path";
import { forEachTenant, openNode } from "./kimberlite.ts";
import type { Results } from "./results.ts";
import { inScratch, type Setting } from "./setting.ts";

const TARGET_TENANTS = 10_000;
const MAX_SECONDS = 30;

export async function measureRewrap(setting: Setting, results: Results): Promise<void> {
  const tenants = setting.quick ? 1_000 : TARGET_TENANTS;
  await inScratch(async (folder) => {
    const { db, library } = await openNode({ build: setting.build, folder });
    await forEachTenant(tenants, (tenant) =>
      db.createTenant({ id: library.TenantId(tenant), name: `Tenant ${tenant}` }),
    );
    const next = join(folder, "next.key");
    library.createMasterKeyFile(next);
    const startedMs = performance.now();
    await db.rotateMasterKey(library.masterKeyFile(next));
    const seconds = (performance.now() - startedMs) / 1_000;
    await db.close();
    results.figures.push({
      name: `rotation of the master key, ${tenants} tenants`,
      value: seconds,
      unit: "s",
      note: "key files; every replaced key overwritten and synced",
    });
    if (tenants !== TARGET_TENANTS) return;
    results.verdicts.push({
      target: "KEKs of 10,000 tenants under another master key < 30 s",
      measured: `${seconds.toFixed(1)} s`,
      met: seconds < MAX_SECONDS,
    });
  });
}
