/** The process that `scale.ts` looks at: BUILD FOLDER TENANTS TOUCHED; prints one JSON object. */
import { forEachTenant, openNode } from "./kimberlite.ts";

export interface ScaleReport {
  readonly openSeconds: number;
  readonly createSeconds: number;
  readonly openTenants: number;
  /** Bytes resident: after opening, after creating tenants, after using some of them. */
  readonly rssOpened: number;
  readonly rssCreated: number;
  readonly rssTouched: number;
}

const TABLE = "CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY, note TEXT NOT NULL)";

const [build = "", folder = "", tenants = "0", touched = "0"] = process.argv.slice(2);
let startedMs = performance.now();
const { db, library } = await openNode({ build, folder });
const openSeconds = secondsSince(startedMs);
const rssOpened = process.memoryUsage.rss();

startedMs = performance.now();
await forEachTenant(Number(tenants), (tenant) =>
  db.createTenant({ id: library.TenantId(tenant), name: `Tenant ${tenant}`, region: library.Region.UsEast }),
);
const createSeconds = secondsSince(startedMs);
const rssCreated = process.memoryUsage.rss();

await forEachTenant(Number(touched), async (tenant) => {
  const id = library.TenantId(tenant);
  await db.execute(id, TABLE);
  await db.insert(id, "visits", { note: "first visit" });
  await db.query(id, "SELECT count(*) AS visits FROM visits");
});
const report: ScaleReport = {
  openSeconds,
  createSeconds,
  openTenants: db.stats().openTenants,
  rssOpened,
  rssCreated,
  rssTouched: process.memoryUsage.rss(),
};
await db.close();
console.log(JSON.stringify(report));

function secondsSince(ms: number): number {
  return (performance.now() - ms) / 1_000;
}
