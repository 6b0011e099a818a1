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

/** As long as the table's rows are elsewhere, and as long as a letter. */
const NOTE_REPEATS = { "rows of 150 bytes": 1, "rows of 2 KB": 18 } as const;

export async function measurePortability(setting: Setting, results: Results): Promise<void> {
  const megabytes = setting.quick ? 30 : 200;
  for (const [rows, repeats] of Object.entries(NOTE_REPEATS)) {
    const measured = await inScratch((folder) => measure({ ...setting, folder, megabytes, repeats }));
    report(results, rows, measured);
  }
}

interface Task {
  readonly build: string;
  readonly folder: string;
  readonly megabytes: number;
  readonly repeats: number;
}

interface Measured {
  readonly logMegabytes: number;
  readonly fileMegabytes: number;
  readonly exportSeconds: number;
  readonly verifySeconds: number;
}

async function measure(task: Task): Promise<Measured> {
  const { db, library } = await openNode(task);
  const { verifyExport } = await loadBuilt<VerifierModule>(task.build, "portability/export-verifier.js");
  const tenant = library.TenantId(1);
  await db.createTenant({ id: tenant, name: "Leaves" });
  await db.execute(tenant, "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT, dob TEXT, note TEXT)");
  await fill(db, tenant, task);
  const { logBytes } = await db.describeTenant(tenant);
  const directory = join(task.folder, "export");
  const exported = await timed(() => db.exportTenant(tenant, directory));
  const verified = await timed(async () => verifyExport(directory, { key: db.verifierKey() }));
  await db.close();
  return {
    logMegabytes: logBytes / MEGABYTE,
    fileMegabytes: exported.value.bytes / MEGABYTE,
    exportSeconds: exported.seconds,
    verifySeconds: verified.seconds,
  };
}

async function fill(
  db: Awaited<ReturnType<typeof openNode>>["db"],
  tenant: ReturnType<typeof import("../src/index.ts")["TenantId"]>,
  { megabytes, repeats }: Task,
): Promise<void> {
  let next = 1;
  const worker = async (): Promise<void> => {
    for (;;) {
      const first = next;
      next += ROWS_A_TRANSACTION;
      const rows = Array.from({ length: ROWS_A_TRANSACTION }, (_, index) => {
        const row = patient(first + index);
        return { id: first + index, ...row, note: row.note.repeat(repeats) };
      });
      await db.insert(tenant, "patients", rows);
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

function report(results: Results, rows: string, measured: Measured): void {
  const { logMegabytes, fileMegabytes, exportSeconds, verifySeconds } = measured;
  const sizes = `${Math.round(logMegabytes)} MB of log, ${Math.round(fileMegabytes)} MB of files`;
  const rates = [
    ["export", exportSeconds, `${sizes}: JSON Lines, CSV and Parquet`, EXPORT_TARGET_MB],
    ["verification of an export", verifySeconds, "without database or key", VERIFY_TARGET_MB],
  ] as const;
  for (const [what, seconds, note, target] of rates) {
    const name = `${what}, ${rows}`;
    const [files, log] = [fileMegabytes / seconds, logMegabytes / seconds];
    results.figures.push(
      { name, value: files, unit: "MB of files/s", note },
      { name, value: log, unit: "MB of log/s" },
    );
    results.verdicts.push({
      target: `${what} ≥ ${target} MB of log/s (${rows})`,
      measured: `${Math.round(log)} MB of log/s, ${Math.round(files)} of files`,
      met: log >= target,
    });
  }
}
