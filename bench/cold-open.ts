/** How long a tenant that is closed takes to answer its first query: keys, log's end, projection, statement, row. */
import { openNode, prepareKimberlite } from "./kimberlite.ts";
import { quantile } from "./load.ts";
import type { Results } from "./results.ts";
import { inScratch, type Setting } from "./setting.ts";

const MAX_P99_MS = 10;
const ROWS_EACH = 500;

export async function measureColdOpen(setting: Setting, results: Results): Promise<void> {
  const tenants = setting.quick ? 100 : 500;
  await inScratch(async (folder) => {
    const options = { build: setting.build, folder };
    await (await prepareKimberlite(options, { tenants, rowsEach: ROWS_EACH })).db.close();
    const { db, library } = await openNode({ ...options, open: { maxOpenTenants: tenants + 16 } });
    const times: number[] = [];
    for (let tenant = 1; tenant <= tenants; tenant += 1) {
      const startedMs = performance.now();
      const rows = await db.query(library.TenantId(tenant), "SELECT name FROM patients WHERE id = ?", [
        tenant % ROWS_EACH,
      ]);
      times.push(performance.now() - startedMs);
      if (rows.length > 1) throw new Error("a key names one row");
    }
    await db.close();
    report(
      results,
      times.toSorted((a, b) => a - b),
    );
  });
}

function report(results: Results, times: readonly number[]): void {
  const note = `${times.length} tenants after a clean restart; the system's file cache is warm`;
  const [p50, p99] = [quantile(times, 0.5), quantile(times, 0.99)];
  results.figures.push(
    { name: "cold open with first query, p50", value: p50, unit: "ms", note },
    { name: "cold open with first query, p99", value: p99, unit: "ms", note },
  );
  results.verdicts.push({
    target: "cold open p99 < 10 ms",
    measured: `${p99.toFixed(2)} ms`,
    met: p99 < MAX_P99_MS,
  });
}
