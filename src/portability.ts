/**
 * Tenants that leave and arrive: `exportTenant` and `importTenant`, with what they record and refuse.
 *
 * Kept: an export is in the tenant's own audit stream, and so in the export, before a byte of it is written; nothing of a
 * tenant is there until all of its import is.
 */
import { isAbsolute, resolve } from "node:path";
import { auditTenant, type GovernanceOptions, governanceEvent } from "./administration.ts";
import type { NewTenant } from "./directory/directory.ts";
import { kimberliteError } from "./errors.ts";
import { failpoint } from "./host/failpoint.ts";
import { parseVerifierKey } from "./log/signed-note.ts";
import type { NodeState } from "./node-state.ts";
import { readExportedRecords } from "./portability/export-reader.ts";
import { type ExportProgress, readSaved, writeExport } from "./portability/export-tenant.ts";
import {
  ExportDamage,
  type ExportManifest,
  readManifest,
  type VerifiedExport,
  type VerifyExportOptions,
  verifyExport as verifyFiles,
} from "./portability/export-verifier.ts";
import { readSubjectBundle, writeSubjectBundle } from "./portability/subject-bundle.ts";
import { refuseIfAborted, Turns } from "./portability/turns.ts";
import { parseCallback, parseOptions, parseSignal } from "./tenant/call-options.ts";
import type { Duration } from "./tenant/duration.ts";
import type { Region } from "./tenant/region.ts";
import {
  parseHoldName,
  parseRetentionMode,
  parseTenantConfig,
  type TenantEntry,
  type TenantQuota,
} from "./tenant/tenant-config.ts";
import { TenantId } from "./tenant/tenant-id.ts";
import { buildTenant, settleBuild, undoBuild } from "./tenant-building.ts";

export interface ExportOptions extends GovernanceOptions {
  /**
   * File for the keys of the tenant's subjects, apart from the export: whoever has both reads the history of the subjects
   * that were not erased, and can import it. An export without it has their rows as they are now, and their history sealed.
   */
  readonly subjectKeysTo?: string;
  readonly onProgress?: (progress: ExportProgress) => void;
  readonly signal?: AbortSignal;
}

/** What an export holds. */
export interface ExportReport {
  readonly tenant: TenantId;
  /** Records: offsets 0 … size−1. */
  readonly size: bigint;
  /** Merkle root over them. */
  readonly root: Buffer;
  readonly bytes: number;
}

/** @throws as `Kimberlite.exportTenant` */
export async function exportTenant(
  node: NodeState,
  id: TenantId,
  directory: string,
  options: ExportOptions | undefined,
): Promise<ExportReport> {
  const dir = parseDirectory(directory);
  const given = parseOptions(options);
  const onProgress = parseCallback(given.onProgress, "onProgress");
  const signal = parseSignal(given.signal);
  const keysTo = given.subjectKeysTo === undefined ? undefined : parseKeysPath(given.subjectKeysTo, dir);
  const entry = node.directory.get(id);
  refuseIfAborted(signal);
  node.disk.makeFolder(dir);
  // What is refused has not begun.
  readSaved({ disk: node.disk, dir, entry, installation: node.installation.id });
  const event = governanceEvent(id, { action: "tenant.export", options: given });
  await node.directory.note(await auditTenant(node, id, { ...event, outcome: "began" }));
  const manifest = await node.maintain(`export ${dir}`, () =>
    node.tenants.use(id, async (engine) => {
      const written = await writeExport({
        entry,
        presentEntry: () => node.directory.get(id),
        engine,
        dir,
        onProgress,
        installation: node.installation.id,
        signer: node.signer,
        disk: node.disk,
        requireGoingOn: () => {
          refuseIfAborted(signal);
          node.directory.get(id);
          engine.requireOpen();
        },
      });
      if (keysTo !== undefined) {
        const place = { disk: node.disk, path: keysTo, tenant: id.toString() };
        await engine.keys.copySubjects((copied) => writeSubjectBundle(place, copied));
      }
      return written;
    }),
  );
  const report = toReport(id, manifest);
  // What left, and to where in the log: an export that ended is told from one that was begun. In the system's stream alone,
  // for a record more in the tenant's log would make the export's checkpoint older than the log at once.
  const detail = { ...event.detail, size: Number(report.size) };
  await node.directory.note({ ...event, outcome: "done", tenant: id, detail });
  return report;
}

/** @throws `invalid_argument` for a file within the export */
function parseKeysPath(path: string, dir: string): string {
  const keysTo = parseDirectory(path);
  if (!`${keysTo}/`.startsWith(dir.endsWith("/") ? dir : `${dir}/`)) return keysTo;
  throw kimberliteError("invalid_argument", "the keys of subjects go to another place than the export");
}

/** What an import takes. */
export interface ImportOptions extends GovernanceOptions {
  /** C2SP verifier key of the installation that exported: whose word about the past is taken. */
  readonly key: string;
  /** The tenant that is expected; an export of another is refused. */
  readonly tenant?: TenantId;
  /** Id to have here; that of the export unless given. */
  readonly as?: TenantId;
  readonly quota?: TenantQuota;
  /** As in `TenantConfig`. */
  readonly masterKey?: string;
  /** File that `subjectKeysTo` of the export made; for a tenant with declared subjects. */
  readonly subjectKeys?: string;
  readonly onProgress?: (progress: ImportProgress) => void;
  readonly signal?: AbortSignal;
}

/** How far an import is: first the export is verified, then its records are sealed, then the tables are built. */
export interface ImportProgress {
  readonly phase: "verify" | "seal";
  readonly done: number;
  readonly total: number;
}

/**
 * Checks an export offline: every signature, file, line and hash, without server or key of the tenant.
 *
 * @throws `export_invalid` with `detail.file` and `detail.line` of the first wrong place; `aborted`, `invalid_argument`
 */
export async function verifyExport(
  directory: string,
  options: VerifyExportOptions = {},
): Promise<VerifiedExport> {
  const dir = parseDirectory(directory);
  const { key, ...given } = parseOptions(options);
  const onProgress = parseCallback(given.onProgress, "onProgress");
  const signal = parseSignal(given.signal);
  refuseIfAborted(signal);
  return named(() =>
    verifyFiles(dir, {
      ...(key === undefined ? {} : { key: parseKey(key) }),
      onProgress: (done, total) => {
        refuseIfAborted(signal);
        onProgress?.(done, total);
      },
    }),
  );
}

/** @throws as `Kimberlite.importTenant` */
export async function importTenant(
  node: NodeState,
  directory: string,
  options: ImportOptions,
): Promise<TenantEntry> {
  const dir = parseDirectory(directory);
  const given = parseOptions(options);
  const key = parseKey(given.key);
  const onProgress = parseCallback(given.onProgress, "onProgress");
  const signal = parseSignal(given.signal);
  const manifest = await named(async () => readManifest(dir, key));
  const source = TenantId(manifest.tenant);
  if (given.tenant !== undefined && TenantId(given.tenant) !== source) {
    throw kimberliteError("export_invalid", `the export is of tenant ${source}`, {
      detail: { tenant: source },
    });
  }
  const id = given.as === undefined ? source : TenantId(given.as);
  const { subjectKeys } = given;
  const subjects =
    subjectKeys === undefined
      ? undefined
      : readSubjectBundle(node.disk, parseDirectory(subjectKeys), manifest.tenant);
  const config = configOf(manifest, id, given);
  const about = {
    action: "tenant.import" as const,
    options: given,
    detail: { from: manifest.installation, source, size: manifest.size, root: manifest.root },
  };
  const event = governanceEvent(id, about);
  await verifyExport(dir, {
    key,
    ...(signal === undefined ? {} : { signal }),
    onProgress: (done, total) => onProgress?.({ phase: "verify", done, total }),
  });
  const turns = new Turns(() => refuseIfAborted(signal));
  const total = Number(manifest.size);
  const onRecords = (done: bigint): void => onProgress?.({ phase: "seal", done: Number(done), total });
  const entry = await node.directory.create(id, {
    audit: event,
    prepare: async () => {
      await node.directory.note({ ...event, outcome: "began" });
      await buildTenant(node, {
        id,
        records: () => readExportedRecords(node.disk, dir, manifest),
        own: config.masterKey,
        subjects,
        turns,
        onRecords,
        check: (builtRoot) => {
          if (builtRoot.toString("base64") === manifest.root) return;
          throw kimberliteError("export_invalid", "the export was changed while it was imported");
        },
      });
      return config;
    },
    undo: () => undoBuild(node, id),
  });
  failpoint("import-after-entry");
  await settleBuild(node, id, event);
  return entry;
}

/** What bound the data there binds them here. */
function configOf(manifest: ExportManifest, id: TenantId, options: Partial<ImportOptions>): NewTenant {
  const { governance, name } = manifest;
  const { quota, masterKey } = options;
  const parsed = parseTenantConfig({
    id,
    name,
    region: governance.region as Region,
    retention: { ms: governance.retentionMs } as Duration,
    retentionMode: parseRetentionMode(governance.retentionMode),
    ...(quota === undefined ? {} : { quota }),
    ...(masterKey === undefined ? {} : { masterKey }),
  });
  const legalHolds = governance.legalHolds.map((hold) => ({
    ...hold,
    name: parseHoldName(hold.name),
    placedAtUs: BigInt(hold.placedAtUs),
  }));
  return { ...parsed, legalHolds, hasLog: manifest.size !== "0" };
}

/** Damage of an export as an error of ours. */
async function named<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof ExportDamage)) throw error;
    const { file, line } = error;
    throw kimberliteError("export_invalid", error.message, {
      detail: { file, ...(line === undefined ? {} : { line }) },
    });
  }
}

function parseKey(key: unknown): string {
  if (typeof key !== "string") {
    throw kimberliteError("invalid_argument", "key is the verifier key of the installation that exported");
  }
  parseVerifierKey(key);
  return key;
}

function toReport(tenant: TenantId, manifest: ExportManifest): ExportReport {
  const files = [...manifest.events, ...manifest.tables, ...manifest.files];
  return {
    tenant,
    size: BigInt(manifest.size),
    root: Buffer.from(manifest.root, "base64"),
    bytes: files.reduce((sum, file) => sum + file.bytes, 0),
  };
}

/** @throws `invalid_argument` */
function parseDirectory(directory: unknown): string {
  if (typeof directory !== "string" || directory === "" || directory.includes("\0")) {
    throw kimberliteError("invalid_argument", "a directory is a path");
  }
  return isAbsolute(directory) ? directory : resolve(directory);
}
