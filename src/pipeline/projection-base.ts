/**
 * Where a tenant's projection lies, and the base of a trimmed tenant's: its projection as it was where its records begin,
 * for the records before are gone. Every projection of such a tenant is a copy of it, brought to where it is wanted.
 *
 * Kept: a base is there whole or not at all, and is never written to.
 */
import { join } from "node:path";
import type { Disk } from "../host/disk.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import { Bookkeeping } from "../projection/bookkeeping.ts";
import { DEFAULT_LIMITS, openConnection } from "../projection/connection.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

const COPY_BYTES = 4 * 1024 * 1024;
const BASE_NAME = /^base-(0|[1-9][0-9]{0,18})-([1-9][0-9]{0,9})\.db$/;

export interface ProjectionBase {
  readonly path: string;
  readonly name: string;
  /** Records that are applied to it: the first that is not is the first that there is. */
  readonly size: bigint;
  /** DEK version that it is encrypted under. */
  readonly version: number;
}

export function projectionFolder(root: string, tenant: TenantId): string {
  return join(root, "tenants", tenant.toString(), "projection");
}

function baseName(size: bigint, version: number): string {
  return `base-${size}-${version}.db`;
}

/** Name of a base that will be in force when the log that belongs to it is. */
export function nextBaseName(size: bigint, version: number): string {
  return `${baseName(size, version)}.next`;
}

export function parseBaseName(name: string): Pick<ProjectionBase, "size" | "version"> | undefined {
  const [, size, version] = BASE_NAME.exec(name) ?? [];
  return size === undefined || version === undefined
    ? undefined
    : { size: BigInt(size), version: Number(version) };
}

/** The base under that DEK version, or any; the latest if there are several. */
export function findBase(
  place: { readonly disk: Disk; readonly root: string; readonly tenant: TenantId },
  version?: number,
): ProjectionBase | undefined {
  const folder = projectionFolder(place.root, place.tenant);
  let found: ProjectionBase | undefined;
  for (const name of place.disk.list(folder)) {
    const parsed = parseBaseName(name);
    if (parsed === undefined || (version !== undefined && parsed.version !== version)) continue;
    if (found === undefined || parsed.size > found.size)
      found = { ...parsed, name, path: join(folder, name) };
  }
  return found;
}

/** Records before the first that there is, as the base itself says it: nobody without the tenant's key could have written that. */
export function trimmedRecords(
  place: { readonly disk: Disk; readonly root: string; readonly tenant: TenantId },
  keys: TenantKeys,
): bigint {
  const base = findBase(place);
  if (base === undefined) return 0n;
  const { key } = keys.projectionKey(base.version);
  const { db } = openConnection({ path: base.path, key, role: "read", limits: DEFAULT_LIMITS });
  try {
    return new Bookkeeping(db).readMeta().nextOffset;
  } finally {
    db.close();
  }
}

/** Puts a base in force that was built under its next name. Done already is fine. */
export function adoptBase(disk: Disk, folder: string, base: Pick<ProjectionBase, "size" | "version">): void {
  const next = join(folder, nextBaseName(base.size, base.version));
  if (!disk.has(next)) return;
  disk.move(next, join(folder, baseName(base.size, base.version)));
  disk.syncFolder(folder);
}

/** Copies a file; the copy is durable, and there whole or not at all. @throws `disk_full`, `disk_failed` */
export async function copyFile(disk: Disk, from: string, to: string): Promise<void> {
  const unfinished = `${to}.new`;
  const source = disk.open(from, "read");
  try {
    const target = disk.open(unfinished, "create");
    try {
      target.truncate(0);
      for (let at = 0; ; ) {
        const bytes = source.read(at, COPY_BYTES);
        if (bytes.length === 0) break;
        target.write(bytes, at);
        at += bytes.length;
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
      await target.sync();
    } finally {
      target.close();
    }
  } finally {
    source.close();
  }
  disk.move(unfinished, to);
}

/** Makes a file that somebody else wrote durable. @throws `disk_full`, `disk_failed` */
export async function syncFile(disk: Disk, path: string): Promise<void> {
  const file = disk.open(path, "update");
  try {
    await file.sync();
  } finally {
    file.close();
  }
}
