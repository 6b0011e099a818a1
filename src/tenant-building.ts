/**
 * Tenants that arrive with a log: built beside, under keys of their own, before the catalogue knows of them.
 *
 * Kept: until the catalogue has the tenant there is a mark that says that what is there is nothing yet; the next start
 * removes it. Survives: a crash or a full disk at any time.
 */
import { join } from "node:path";
import type { AuditEvent } from "./audit/audit-event.ts";
import { recordAudit } from "./audit/audit-stream.ts";
import { KimberliteError, kimberliteError } from "./errors.ts";
import { failpoint } from "./host/failpoint.ts";
import type { CopiedSubjects } from "./keys/subject-keys.ts";
import type { TenantKeys } from "./keys/tenant-keys.ts";
import { LogBuilder } from "./log/log-builder.ts";
import type { LogRecord } from "./log/record.ts";
import { logFolder } from "./log/segment.ts";
import type { NodeState } from "./node-state.ts";
import type { ExportedRecord } from "./portability/export-reader.ts";
import { importRecords } from "./portability/import-log.ts";
import { SubjectsSeen } from "./portability/subjects-seen.ts";
import type { Turns } from "./portability/turns.ts";
import { TenantId } from "./tenant/tenant-id.ts";

/** What a tenant's log is built from. */
export interface BuildTask {
  readonly id: TenantId;
  /** The records from the first on, with their salts. */
  readonly records: () => Iterable<ExportedRecord>;
  /** URI of the tenant's own master key. */
  readonly own: string | undefined;
  /** Keys of the subjects whose rows are in the records. */
  readonly subjects?: CopiedSubjects | undefined;
  readonly turns: Turns;
  readonly onRecords: (done: bigint) => void;
  /** Throws if that is not the Merkle root that must come out. */
  readonly check: (root: Buffer) => void;
}

/** Removes what interrupted builds left, at the start of a node: what is in the catalogue is whole, the rest is nothing. */
export async function clearBuilds(node: NodeState): Promise<void> {
  const folder = join(node.root, "imports");
  node.disk.removeFolder(join(node.root, "staging"));
  for (const name of node.disk.list(folder)) {
    const id = TenantId(name.replace(/\.(new|old)$/, ""));
    if (!node.directory.has(id)) await removeImported(node, id);
    forgetBuild(node, id);
    node.disk.removeFile(join(folder, name));
  }
}

/** Makes keys and log of a tenant that is about to exist. If it throws, nothing of them is left. */
export async function buildTenant(node: NodeState, task: BuildTask): Promise<void> {
  const { id, own } = task;
  const { disk, root } = node;
  disk.makeFolder(join(root, "imports"));
  disk.syncFolder(root);
  await clearBuild(node, id);
  if (disk.has(join(root, "tenants", id.toString()))) {
    throw kimberliteError("tenant_exists", "data of a tenant of that id is on the disk", {
      detail: { tenant: id },
    });
  }
  await disk.replaceFile(importMark(node, id), Buffer.from("{}\n"));
  try {
    await node.createKeys(id, own);
    failpoint("import-after-keys");
    await node.withKeys(id, (keys) => buildLog(node, keys, task), own === undefined ? [] : [own]);
    failpoint("import-after-log");
  } catch (error) {
    await undoBuild(node, id);
    throw error;
  }
}

/** Takes away what was built of a tenant that the catalogue does not have. */
export async function undoBuild(node: NodeState, id: TenantId): Promise<void> {
  await removeImported(node, id);
  forgetBuild(node, id);
}

/** As `undoBuild`, of a build that failed earlier and could not be taken away then. For a tenant that is being made. */
export async function clearBuild(node: NodeState, id: TenantId): Promise<void> {
  if (node.disk.has(importMark(node, id))) await undoBuild(node, id);
}

async function buildLog(node: NodeState, keys: TenantKeys, task: BuildTask): Promise<void> {
  const folder = logFolder(node.root, task.id);
  const builder = new LogBuilder({ ...node.logOptions(task.id), folder });
  try {
    const { key, version: dekVersion } = keys.current;
    const seen = new SubjectsSeen();
    const onRecord = (record: LogRecord): void => seen.note(record);
    await importRecords(task.records(), { ...task, builder, key, dekVersion, onRecord });
    if (seen.any) await keys.makeSubjectRoot(seen.resolve(task.subjects));
    task.check(builder.root());
  } finally {
    builder.close();
  }
  for (const path of [join(folder, ".."), join(folder, "..", "..")]) node.disk.syncFolder(path);
}

async function removeImported(node: NodeState, id: TenantId): Promise<void> {
  await node.keyStore.destroy(id);
  node.masters.forget(id);
  node.disk.removeFolder(join(node.root, "tenants", id.toString()));
}

function importMark({ root }: NodeState, id: TenantId): string {
  return join(root, "imports", id.toString());
}

function forgetBuild(node: NodeState, id: TenantId): void {
  node.disk.removeFile(importMark(node, id));
}

/**
 * The catalogue has the tenant: its own audit stream says so as well. Where that cannot be written now, the system's,
 * which has the event in the transaction that made the tenant, has to do.
 */
export async function settleBuild(node: NodeState, id: TenantId, event: AuditEvent): Promise<void> {
  forgetBuild(node, id);
  const { tenant: _, ...own } = event;
  try {
    await node.tenants.use(id, (engine) => recordAudit(engine, own));
  } catch (error) {
    if (!(error instanceof KimberliteError)) throw error;
  }
}
