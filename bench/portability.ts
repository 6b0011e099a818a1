/** How fast a tenant leaves: its export, and the verification of the export without database or key. */
import { join } from "node:path";
import { patient } from "./dataset.ts";
import { loadBuilt, openNode } from "./kimberlite.ts";
import type { Results } from "./results.ts";
import { inScratch, type Setting } from "./setting.ts";

const MEGABYTE = 1_000_000;
const ROWS_A_TRANSACTION = 100;
const AT_ONCE = 16;
const EXPORT_TARGET_MB = 50;
const VERIFY_TARGET_MB = 100;

type VerifierModule = typeof import("../src/portability/export-verifier.ts");

export async function measurePortability(setting: Setting, results: Results): Promise<void> {
  const megabytes = setting.quick ? 30 : 200;
  await inScratch(async (folder) => {
    const { db, library } = await openNode({ build: setting.build, folder });
    const { verifyExport } = await loadBuilt<VerifierModule>(setting.build, "portability/export-verifier.js");
    const tenant = library.TenantId(1);
    await db.createTenant({ id: tenant, name: "Leaves" });
    await db.execute(
      tenant,
      "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT, dob TEXT, note TEXT)",
    );
    await fill(db, tenant, megabytes);
    const { logBytes } = await db.describeTenant(tenant);
    const directory = join(folder, "export");
    const exported = await timed(() => db.exportTenant(tenant, directory));
    const verified = await timed(async () => verifyExport(directory, { key: db.verifierKey() }));
    await db.close();
    const rates = [logBytes / MEGABYTE / exported.seconds, logBytes / MEGABYTE / verified.seconds];
    report(results, { rates, logBytes, exportBytes: exported.value.bytes });
  });
}

async function fill(
  db: Awaited<ReturnType<typeof openNode>>["db"],
  tenant: ReturnType<typeof import("../src/index.ts")["TenantId"]>,
  megabytes: number,
): Promise<void> {
  let next = 1;
  const worker = async (): Promise<void> => {
    for (;;) {
      const first = next;
      next += ROWS_A_TRANSACTION;
      const rows = Array.from({ length: ROWS_A_TRANSACTION }, (_, index) => ({
        id: first + index,
        ...patient(first + index),
      }));
      await db.insert(tenant, "patients", rows);
      // A look at the size is a call like another: seldom.
      if (first % (ROWS_A_TRANSACTION * 20) !== 1) continue;
      const { logBytes } = await db.describeTenant(tenant);
      if (logBytes >= megabytes * MEGABYTE) return;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

async function timed<T>(work: () => Promise<T>): Promise<{ readonly value: T; readonly seconds: number }> {
  const startedMs = performance.now();
  const value = await work();
  return { value, seconds: (performance.now() - startedMs) / 1_000 };
}

function report(
  results: Results,
  what: { readonly rates: readonly number[]; readonly logBytes: number; readonly exportBytes: number },
): void {
  const [exportRate = 0, verifyRate = 0] = what.rates;
  const log = `${Math.round(what.logBytes / MEGABYTE)} MB of log`;
  const note = `${log}, transactions of ${ROWS_A_TRANSACTION} rows; ${Math.round(what.exportBytes / MEGABYTE)} MB written: JSON Lines, CSV and Parquet`;
  results.figures.push(
    { name: "export of a tenant", value: exportRate, unit: "MB of log/s", note },
    {
      name: "verification of the export",
      value: verifyRate,
      unit: "MB of log/s",
      note: "without database or key",
    },
  );
  results.verdicts.push(
    {
      target: `export ≥ ${EXPORT_TARGET_MB} MB of log/s`,
      measured: `${Math.round(exportRate)} MB/s`,
      met: exportRate >= EXPORT_TARGET_MB,
    },
    {
      target: `offline verification of an export ≥ ${VERIFY_TARGET_MB} MB of log/s`,
      measured: `${Math.round(verifyRate)} MB/s`,
      met: verifyRate >= VERIFY_TARGET_MB,
    },
  );
}
