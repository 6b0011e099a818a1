/** `kimberlite verify`: which logs are whole, where a damaged one begins to be, and whether a checkpoint still holds. */
import { readFileSync } from "node:fs";
import { kimberliteError } from "../errors.ts";
import type { VerifyReport } from "../log/verify.ts";
import { SYSTEM_TENANT, type TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions } from "./arguments.ts";
import {
  findPlace,
  isKeyDamage,
  logBytes,
  openTenantCheckpoint,
  requireCheckpoint,
  type TrustedCheckpoint,
  tenantsOnDisk,
  type VerifiablePlace,
  verifyTenantFiles,
} from "./offline-verify.ts";
import { type Progress, startProgress } from "./progress.ts";
import { counted, formatBytes, renderTable, toJson } from "./render.ts";

interface VerifyOptions extends GlobalOptions {
  readonly tenant?: TenantId;
  readonly checkpoint?: string;
  readonly key?: string;
  readonly seals: boolean;
}

/** What was found of one tenant. */
interface Finding {
  readonly tenant: TenantId;
  readonly report?: VerifyReport;
  /** Why its log could not be verified under its keys. */
  readonly keyDamage?: string;
}

export async function verify(path: string | undefined, options: VerifyOptions): Promise<undefined> {
  const place = findPlace(path ?? options.dir, { seals: options.seals });
  const checkpoint = readCheckpoint(place, options);
  const tenants = chooseTenants(place, options.tenant, checkpoint);
  const findings = await verifyAll(place, tenants, checkpoint);
  print(findings, place, options);
  refuseDamage(findings);
  if (checkpoint === undefined) return;
  const report = findings.find((finding) => finding.tenant === checkpoint.tenant)?.report;
  if (report !== undefined) requireCheckpoint(checkpoint, report);
  if (options.json !== true) {
    console.log(
      `the checkpoint of tenant ${checkpoint.tenant} holds: its ${counted(checkpoint.size, "record")} are in the log, unchanged`,
    );
  }
}

function readCheckpoint(place: VerifiablePlace, options: VerifyOptions): TrustedCheckpoint | undefined {
  const { checkpoint, key } = options;
  if (checkpoint === undefined && key === undefined) return undefined;
  if (checkpoint === undefined || key === undefined) {
    throw kimberliteError(
      "invalid_argument",
      "--checkpoint and --key go together: the key says whom you trust",
    );
  }
  return openTenantCheckpoint(place, readBytes(checkpoint), key);
}

function readBytes(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code ?? "unknown";
    throw kimberliteError("invalid_argument", `${path} cannot be read (${errno})`, { cause });
  }
}

function chooseTenants(
  place: VerifiablePlace,
  wanted: TenantId | undefined,
  checkpoint: TrustedCheckpoint | undefined,
): TenantId[] {
  const present = tenantsOnDisk(place);
  if (wanted !== undefined && checkpoint !== undefined && checkpoint.tenant !== wanted) {
    throw kimberliteError("checkpoint_mismatch", `the checkpoint is of tenant ${checkpoint.tenant}`);
  }
  if (wanted !== undefined) {
    if (!present.includes(wanted))
      throw kimberliteError("tenant_not_found", `there is no tenant ${wanted} on the disk`);
    return [wanted];
  }
  // A log that is gone altogether is what a checkpoint shows best.
  if (checkpoint !== undefined && !present.includes(checkpoint.tenant))
    return [...present, checkpoint.tenant];
  return present;
}

async function verifyAll(
  place: VerifiablePlace,
  tenants: readonly TenantId[],
  checkpoint: TrustedCheckpoint | undefined,
): Promise<Finding[]> {
  const total = tenants.reduce((sum, tenant) => sum + logBytes(place, tenant), 0);
  const progress = startProgress("verify");
  const findings: Finding[] = [];
  let doneBytes = 0;
  try {
    for (const tenant of tenants) {
      const rootsAt = checkpoint?.tenant === tenant ? [checkpoint.size] : [];
      const finding = await verifyOne(place, tenant, { rootsAt, progress, doneBytes, total });
      findings.push(finding);
      doneBytes += finding.report?.bytes ?? 0;
    }
  } finally {
    progress.stop();
  }
  return findings;
}

async function verifyOne(
  place: VerifiablePlace,
  tenant: TenantId,
  task: {
    readonly rootsAt: bigint[];
    readonly progress: Progress;
    readonly doneBytes: number;
    readonly total: number;
  },
): Promise<Finding> {
  try {
    const report = await verifyTenantFiles(place, tenant, {
      rootsAt: task.rootsAt,
      onProgress: ({ bytes }) => task.progress.update(task.doneBytes + bytes, task.total),
    });
    return { tenant, report };
  } catch (error) {
    if (!isKeyDamage(error)) throw error;
    return { tenant, keyDamage: error.message };
  }
}

function print(findings: readonly Finding[], place: VerifiablePlace, options: VerifyOptions): void {
  if (options.json === true) return void console.log(toJson(findingsJson(findings, place)));
  const rows = findings.map((finding) => [
    tenantName(finding.tenant),
    finding.report?.size ?? null,
    finding.report?.blocks ?? null,
    formatBytes(finding.report?.bytes ?? 0),
    finding.report?.root.toString("base64") ?? "",
    verdict(finding),
  ]);
  console.log(renderTable(["tenant", "records", "blocks", "bytes", "Merkle root", "verdict"], rows));
  console.log(whatWasChecked(findings, place));
}

function findingsJson(findings: readonly Finding[], place: VerifiablePlace): unknown {
  const tenants = findings.map(({ tenant, report, keyDamage }) => {
    if (report === undefined) return { tenant, ok: false, reason: keyDamage };
    const { roots: _, root, ...known } = report;
    return { ...known, root: root.toString("base64") };
  });
  return { ok: findings.every(isWhole), installation: place.installation ?? null, tenants };
}

function tenantName(tenant: TenantId): string {
  return tenant === SYSTEM_TENANT ? "system" : tenant.toString();
}

function verdict({ report, keyDamage }: Finding): string {
  if (report === undefined) return `NOT VERIFIED: ${keyDamage}`;
  if (!report.ok) return `DAMAGED at offset ${report.firstBadOffset}: ${report.reason}`;
  return report.sealsOpened ? "whole, seals opened" : "whole";
}

function whatWasChecked(findings: readonly Finding[], place: VerifiablePlace): string {
  const base = `${counted(findings.length, "log")} checked: headers, hashes, chain, segments, Merkle tree`;
  return place.masterKey === undefined
    ? `${base}; without a key, seals stay closed`
    : `${base}, and every seal under its key`;
}

function isWhole({ report }: Finding): boolean {
  return report?.ok === true;
}

/** @throws the first damage: `log_damaged`, or `keys_damaged` if only keys are */
function refuseDamage(findings: readonly Finding[]): void {
  const bad = findings.filter((finding) => !isWhole(finding));
  const first = bad.find(({ report }) => report !== undefined) ?? bad[0];
  if (first === undefined) return;
  const others = bad.length > 1 ? ` (and ${counted(bad.length - 1, "other tenant")})` : "";
  const { tenant, report, keyDamage } = first;
  const detail = { tenant, offset: report?.firstBadOffset, damagedTenants: bad.length };
  if (report === undefined) {
    throw kimberliteError("keys_damaged", `tenant ${tenant} was not verified: ${keyDamage}${others}`, {
      detail,
    });
  }
  const message = `tenant ${tenant} is damaged at offset ${report.firstBadOffset}: ${report.reason}${others}`;
  throw kimberliteError("log_damaged", message, { detail });
}
