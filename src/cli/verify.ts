/** `kimberlite verify`: which logs are whole, where a damaged one begins to be, and whether a checkpoint still holds. */
import { readFileSync, statSync } from "node:fs";
import { looksLikeCertificate, verifyErasureCertificate } from "../erasure/certificate.ts";
import { kimberliteError } from "../errors.ts";
import { parseVerifierKey } from "../log/signed-note.ts";
import type { VerifyReport } from "../log/verify.ts";
import { SYSTEM_TENANT, type TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions, ServerAddress } from "./arguments.ts";
import { type Catalogue, type CataloguedTenant, readCatalogue } from "./offline-catalogue.ts";
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
import { looksLikeExport, verifyExported } from "./portability.ts";
import { type Progress, startProgress } from "./progress.ts";
import { counted, escapeLine, formatBytes, renderTable, toJson } from "./render.ts";
import { requireWhole, showVerified } from "./verified.ts";

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
  /** What the catalogue says of it, if it was or is being erased. */
  readonly erased?: CataloguedTenant;
}

export async function verify(path: string | undefined, options: VerifyOptions): Promise<undefined> {
  if (options.server !== undefined) return verifyServed(path, options.server, options);
  const certificate = path === undefined ? undefined : certificateAt(path);
  if (certificate !== undefined) return verifyCertificate(certificate, options);
  if (path !== undefined && looksLikeExport(path)) {
    if (options.checkpoint !== undefined)
      throw kimberliteError("invalid_argument", "an export has its own checkpoint; leave --checkpoint out");
    return verifyExported(path, options);
  }
  const place = findPlace(path ?? options.dir, { seals: options.seals });
  const checkpoint = readCheckpoint(place, options);
  const catalogue = await readCatalogue(place);
  const tenants = chooseTenants({ place, wanted: options.tenant, checkpoint, catalogue });
  const findings = withCatalogue(await verifyAll(place, tenants, checkpoint), catalogue);
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

/** The server's own word: it holds the keys, and opens the seals. */
async function verifyServed(
  path: string | undefined,
  server: ServerAddress,
  { tenant, checkpoint, key, seals, json = false }: VerifyOptions,
): Promise<undefined> {
  if (path !== undefined || key !== undefined || !seals) {
    throw kimberliteError(
      "unsupported",
      "a path, --key and --no-seals are for verifying here, without --url",
    );
  }
  if (tenant === undefined) throw kimberliteError("invalid_argument", "over a server verify takes --tenant");
  const note = checkpoint === undefined ? undefined : readBytes(checkpoint).toString("utf8");
  const { verifyOverServer } = await import("./server-place.ts");
  const report = await verifyOverServer(server, tenant, note);
  console.log(showVerified(report, json));
  requireWhole(report);
}

/** The text of a file that says it is a certificate. */
function certificateAt(path: string): string | undefined {
  if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return undefined;
  const note = readBytes(path).toString("utf8");
  return looksLikeCertificate(note) ? note : undefined;
}

function verifyCertificate(note: string, options: VerifyOptions): undefined {
  if (options.key === undefined) {
    throw kimberliteError(
      "invalid_argument",
      "--key says whose signature you trust, as `key verifier` prints it",
    );
  }
  const certificate = verifyErasureCertificate(note, parseVerifierKey(options.key));
  if (options.tenant !== undefined && certificate.tenant !== options.tenant.toString())
    throw kimberliteError("certificate_invalid", `the certificate is of tenant ${certificate.tenant}`);
  if (options.json === true) return void console.log(toJson({ ok: true, ...certificate }));
  const { tenant, endedAt, actor, reason } = certificate;
  console.log(
    `the certificate holds: tenant ${tenant} was erased at ${endedAt} by ${escapeLine(actor)}: ${escapeLine(reason)}`,
  );
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

function chooseTenants(from: {
  readonly place: VerifiablePlace;
  readonly wanted: TenantId | undefined;
  readonly checkpoint: TrustedCheckpoint | undefined;
  readonly catalogue: Catalogue | undefined;
}): TenantId[] {
  const { place, wanted, checkpoint, catalogue } = from;
  const known = catalogue === undefined ? [] : [...catalogue.keys()];
  const present = [...new Set([...tenantsOnDisk(place), ...known])].sort((a, b) => (a < b ? -1 : 1));
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

/**
 * With what its own files cannot show of a tenant: that its log is missing, which is damage if the catalogue knows of one,
 * and that it was erased.
 */
function withCatalogue(findings: readonly Finding[], catalogue: Catalogue | undefined): Finding[] {
  return findings.map((finding) => {
    const known = catalogue?.get(finding.tenant);
    if (known?.state === "erased" || known?.state === "erasing") return { ...finding, erased: known };
    if (finding.report?.segments !== 0 || !finding.report.ok || known?.hasLog !== true) return finding;
    return {
      ...finding,
      report: { ...finding.report, ok: false, firstBadOffset: 0n, reason: "the log is missing" },
    };
  });
}

function print(findings: readonly Finding[], place: VerifiablePlace, options: VerifyOptions): void {
  if (options.json === true) return void console.log(toJson(findingsJson(findings, place)));
  const rows = findings.map((finding) => [
    tenantName(finding.tenant),
    finding.report?.size ?? null,
    formatBytes(finding.report?.bytes ?? 0),
    finding.report?.root.toString("base64") ?? "",
    verdict(finding),
  ]);
  console.log(renderTable(["tenant", "records", "bytes", "Merkle root", "verdict"], rows));
  for (const finding of findings) {
    if (finding.erased !== undefined) console.log(escapeLine(erasureOf(finding.tenant, finding.erased)));
    if (!isWhole(finding)) console.log(escapeLine(reasonOf(finding)));
  }
  console.log(whatWasChecked(findings, place));
}

function findingsJson(findings: readonly Finding[], place: VerifiablePlace): unknown {
  const tenants = findings.map(({ tenant, report, keyDamage, erased }) => {
    const erasure = erased === undefined ? {} : { erasure: erasureJson(erased) };
    if (report === undefined) return { tenant, ok: false, reason: keyDamage, ...erasure };
    const { roots: _, root, ...known } = report;
    return { ...known, root: root.toString("base64"), ...erasure };
  });
  return { ok: findings.every(isWhole), installation: place.installation ?? null, tenants };
}

function erasureJson({ state, certificate }: CataloguedTenant): unknown {
  if (certificate === undefined) return { state };
  const { endedAt, actor, reason, ciphertextKept, log } = certificate;
  return {
    state,
    endedAt,
    actor,
    reason,
    ciphertextKept,
    records: log?.size ?? null,
    root: log?.root ?? null,
  };
}

/** What the catalogue's certificate says, in a line; that the installation signed it is for `verify CERTIFICATE --key`. */
function erasureOf(tenant: TenantId, { state, certificate }: CataloguedTenant): string {
  if (state === "erasing") return `tenant ${tenant} is being erased: the next start of the node ends it`;
  if (certificate === undefined) return `tenant ${tenant} was erased; the catalogue has no certificate of it`;
  const { endedAt, actor, reason, log } = certificate;
  const had =
    log === null ? "" : `; its log had ${counted(BigInt(log.size), "record")}, Merkle root ${log.root}`;
  return `tenant ${tenant} was erased at ${endedAt} by ${actor}: ${reason}${had}`;
}

function tenantName(tenant: TenantId): string {
  return tenant === SYSTEM_TENANT ? "system" : tenant.toString();
}

function verdict({ report, erased }: Finding): string {
  if (report === undefined) return "NOT VERIFIED";
  if (!report.ok) return `DAMAGED at offset ${report.firstBadOffset}`;
  if (erased !== undefined) {
    if (report.segments === 0) return erased.state === "erased" ? "erased" : "being erased";
    return erased.certificate?.ciphertextKept === true
      ? `${erased.state}; its sealed log is whole`
      : `${erased.state}; a log is there`;
  }
  if (report.segments === 0) return "no log yet";
  const whole = report.sealsOpened ? "whole, seals opened" : "whole";
  return report.trimmed === 0n ? whole : `${whole}; first ${report.trimmed} trimmed`;
}

function reasonOf({ tenant, report, keyDamage }: Finding): string {
  if (report === undefined) return `tenant ${tenant} was not verified: ${keyDamage}`;
  return `tenant ${tenant} is damaged at offset ${report.firstBadOffset}: ${report.reason}`;
}

function whatWasChecked(findings: readonly Finding[], place: VerifiablePlace): string {
  const base = `${counted(findings.length, "log")} checked: headers, hashes, chain, segments, Merkle tree`;
  return place.masterKeys === undefined
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
  const { tenant, report } = first;
  const detail = { tenant, offset: report?.firstBadOffset, damagedTenants: bad.length };
  throw kimberliteError(
    report === undefined ? "keys_damaged" : "log_damaged",
    `${reasonOf(first)}${others}`,
    { detail },
  );
}
