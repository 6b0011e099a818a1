/**
 * `kimberlite demo`: the healthcare example, on real files in a scratch directory, with what is promised shown and
 * checked. Anything that is not as it must be ends the demo with an error.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { filesHolding, flippedBit, rowDigest } from "./demo-checks.ts";
import { DemoScene, HOSPITAL_A, HOSPITAL_B, PATIENT_A } from "./demo-scene.ts";
import type { DemoServeOptions } from "./demo-serve.ts";
import { initialise, installationPaths, openInstallation } from "./installation.ts";
import { findPlace, openTenantCheckpoint, requireCheckpoint, verifyTenantFiles } from "./offline-verify.ts";
import { counted, dim, formatBytes } from "./render.ts";

interface DemoOptions extends DemoServeOptions {
  readonly serve?: boolean;
}

export async function demo(options: DemoOptions): Promise<undefined> {
  if (options.serve === true) return (await import("./demo-serve.ts")).demoServe(options);
  const scratch = mkdtempSync(join(tmpdir(), "kimberlite-demo-"));
  const remove = (): void => rmSync(scratch, { recursive: true, force: true });
  if (options.keep !== true) process.once("exit", remove);
  const interrupted = (): never => process.exit(130);
  process.once("SIGINT", interrupted);
  await play(join(scratch, "kimberlite"));
  process.off("SIGINT", interrupted);
  if (options.keep === true) console.log(`\nkept: ${join(scratch, "kimberlite")} (use it with --dir)`);
  else
    console.log(
      dim("\nThe scratch directory is removed; --keep keeps it. Next: README.md, or kimberlite --help"),
    );
}

async function play(dir: string): Promise<void> {
  const paths = installationPaths(dir);
  await initialise(paths);
  const db = await openInstallation(paths);
  const scene = new DemoScene(db);
  try {
    await showPatients(scene);
    await showIsolation(scene, dir);
    await showDisk(scene, dir);
    await showKeys(scene);
    await showTimeTravel(scene);
    await showQuota(scene);
    await showRebuild(scene);
    await showProof(scene, dir);
  } finally {
    await db.close();
  }
}

async function showPatients(scene: DemoScene): Promise<void> {
  scene.title("Two hospitals, patient 123 in both");
  await scene.createHospitals();
  await scene.query(HOSPITAL_A, "SELECT * FROM patients WHERE id = 123");
  await scene.query(HOSPITAL_B, "SELECT * FROM patients WHERE id = 123");
}

async function showIsolation(scene: DemoScene, dir: string): Promise<void> {
  scene.title("Hospital B cannot reach Hospital A, whatever its SQL says");
  const file = join(dir, "data", "tenants", "1", "projection", "1.db");
  await scene.refused(
    "unsupported_sql",
    HOSPITAL_B,
    `ATTACH '${file}' AS a`,
    "ATTACH '…/tenants/1/projection/1.db' AS a",
  );
  await scene.refused("invalid_sql", HOSPITAL_B, "SELECT * FROM tenant_1.patients");
  await scene.refused("unsupported_sql", HOSPITAL_B, "PRAGMA key");
}

async function showDisk(scene: DemoScene, dir: string): Promise<void> {
  scene.title("What lies on the disk");
  const { installation } = scene.db.stats();
  const control = filesHolding(dir, installation);
  const found = filesHolding(dir, PATIENT_A);
  scene.require(control.holding.length > 0, "the scan finds what is there");
  scene.require(found.holding.length === 0, `no file holds "${PATIENT_A}"`);
  scene.line(
    `${counted(found.files, "file")}, ${formatBytes(found.bytes)}: log, SQL database, WAL, journal, keys`,
  );
  scene.line(
    `files with "${PATIENT_A}": ${found.holding.length}    files with the public installation id: ${control.holding.length}`,
  );
}

async function showKeys(scene: DemoScene): Promise<void> {
  scene.title("Keys: a hierarchy per tenant");
  await scene.db.rotateDek(HOSPITAL_A);
  const reports = [await scene.db.keys(HOSPITAL_A), await scene.db.keys(HOSPITAL_B)];
  scene.line(`master key ${reports[0]?.masterKeyId ?? ""}  (a file here, outside the data)`);
  for (const [index, report] of reports.entries()) {
    const last = index === reports.length - 1;
    scene.line(`${last ? "└─" : "├─"} KEK ${report.kek.version} of tenant ${report.tenant}`);
    for (const dek of report.deks) {
      const isLast = dek === report.deks.at(-1);
      const use = isLast ? "seals new blocks" : "opens older blocks, after a rotation";
      scene.line(`${last ? "  " : "│ "} ${isLast ? "└─" : "├─"} DEK ${dek.version}  ${use}`);
    }
  }
}

async function showTimeTravel(scene: DemoScene): Promise<void> {
  scene.title("Time travel: every state that there ever was");
  const { offset } = await scene.execute(
    HOSPITAL_A,
    "UPDATE patients SET name = 'Alice Jones' WHERE id = 123",
  );
  const before = (offset ?? 0n) - 1n;
  const now = await scene.query(HOSPITAL_A, "SELECT name FROM patients WHERE id = 123");
  const then = await scene.query(HOSPITAL_A, "SELECT name FROM patients WHERE id = 123", before);
  scene.require(now[0]?.name === "Alice Jones" && then[0]?.name === PATIENT_A, "both states are answered");
}

async function showQuota(scene: DemoScene): Promise<void> {
  scene.title("Quotas: Hospital B is at its limit, Hospital A does not notice");
  const { logBytes } = await scene.db.describeTenant(HOSPITAL_B);
  await scene.db.setQuota(HOSPITAL_B, { maxLogBytes: logBytes + 200 });
  await scene.refused(
    "quota_exceeded",
    HOSPITAL_B,
    "INSERT INTO patients VALUES (124, 'Carol White', '1971-01-02')",
  );
  await scene.execute(HOSPITAL_A, "INSERT INTO patients VALUES (124, 'Dan Brown', '1962-11-30')");
  const rows = await scene.db.query(HOSPITAL_B, "SELECT count(*) AS patients FROM patients");
  scene.require(rows[0]?.patients === 1, "a tenant at its quota still reads");
}

async function showRebuild(scene: DemoScene): Promise<void> {
  scene.title("The SQL database is a view: deleted, and built anew from the log");
  const live = await rowDigest(scene.db, HOSPITAL_A, "patients");
  const startedMs = performance.now();
  await scene.db.rebuildProjection(HOSPITAL_A);
  const ms = performance.now() - startedMs;
  const rebuilt = await rowDigest(scene.db, HOSPITAL_A, "patients");
  scene.require(live.digest === rebuilt.digest, "the rebuilt rows are those that were live");
  scene.line(`live     ${counted(live.rows, "row")}, SHA-256 ${live.digest.slice(0, 32)}…`);
  scene.line(
    `rebuilt  ${counted(rebuilt.rows, "row")}, SHA-256 ${rebuilt.digest.slice(0, 32)}…  (${ms.toFixed(0)} ms)`,
  );
}

async function showProof(scene: DemoScene, dir: string): Promise<void> {
  scene.title("Proof: a signed checkpoint, verified from the files without any key");
  const note = await scene.db.checkpoint(HOSPITAL_A);
  for (const line of note.trimEnd().split("\n")) scene.line(line);
  const place = findPlace(dir, { seals: false });
  const checkpoint = openTenantCheckpoint(place, Buffer.from(note), scene.db.verifierKey());
  const report = await verifyTenantFiles(place, HOSPITAL_A, { rootsAt: [checkpoint.size] });
  scene.require(report.ok, "the log is whole");
  requireCheckpoint(checkpoint, report);
  scene.good(`signature valid; ${counted(report.size, "record")} in the log, with that root`);
  const damaged = await flippedBit(place, HOSPITAL_A);
  scene.require(!damaged.ok, "a changed bit is found");
  scene.good(`one bit changed in a copy: found at offset ${damaged.firstBadOffset} (${damaged.reason})`);
}
