/**
 * The key store into a place of its own: entries are wrapped, and what wraps them is not here.
 *
 * Kept: apart from the data; only what is in force: a former entry, and that of an erased tenant, is removed.
 */
import type { Disk } from "../host/disk.ts";
import { encodeJson, invalid, parseJson, sha256 } from "./backup-format.ts";
import type { BackupTarget } from "./target.ts";

const INDEX = "keys.json";

/** Name of each tenant's entry, by its id. */
type KeyIndex = Record<string, string>;

/** @returns entries that were written */
export async function backUpKeys(
  place: { readonly disk: Disk; readonly pathOf: (tenant: string) => string },
  tenants: readonly string[],
  target: BackupTarget,
): Promise<number> {
  const before = await readIndex(target);
  const after: KeyIndex = {};
  let written = 0;
  for (const tenant of tenants) {
    const bytes = place.disk.readFile(place.pathOf(tenant));
    if (bytes === undefined) continue;
    const name = `keys/${tenant}-${sha256(bytes).slice(0, 32)}.keys`;
    after[tenant] = name;
    if (before[tenant] === name) continue;
    await target.put(name, bytes);
    written += 1;
  }
  let changed = written > 0;
  do {
    const present = new Set(Object.values(after));
    const stale = (await target.list("keys/")).filter((name) => !present.has(name));
    if (changed || stale.length > 0) await target.put(INDEX, encodeJson(after));
    for (const name of stale) await target.remove(name);
    changed = false;
    // Asked after the last write: what was destroyed meanwhile is not left there.
    for (const tenant of Object.keys(after)) {
      if (place.disk.readFile(place.pathOf(tenant)) !== undefined) continue;
      delete after[tenant];
      changed = true;
    }
  } while (changed);
  return written;
}

/** Puts the entries of tenants into a key store's folder. @throws `backup_invalid`, `storage_failed` */
export async function restoreKeys(
  from: BackupTarget,
  wanted: (tenant: string) => boolean,
  into: { readonly disk: Disk; readonly pathOf: (tenant: string) => string },
): Promise<void> {
  for (const [tenant, name] of Object.entries(await readIndex(from))) {
    if (!wanted(tenant)) continue;
    const bytes = await from.get(name);
    if (bytes === undefined || !name.includes(sha256(bytes).slice(0, 32)))
      throw invalid(`${name} is not what was backed up`);
    await into.disk.replaceFile(into.pathOf(tenant), bytes);
  }
}

/** Tenants whose entries are there, unchanged. @throws `backup_invalid`, `storage_failed` */
export async function readKeyEntries(from: BackupTarget): Promise<ReadonlySet<string>> {
  const entries = Object.entries(await readIndex(from));
  for (const [, name] of entries) {
    const bytes = await from.get(name);
    if (bytes === undefined || !name.includes(sha256(bytes).slice(0, 32)))
      throw invalid(`${name} is not what was backed up`);
  }
  return new Set(entries.map(([tenant]) => tenant));
}

/** One tenant's entry; undefined if there is none. */
export async function readKeyEntry(from: BackupTarget, tenant: string): Promise<Buffer | undefined> {
  const name = (await readIndex(from))[tenant];
  return name === undefined ? undefined : from.get(name);
}

async function readIndex(from: BackupTarget): Promise<KeyIndex> {
  const bytes = await from.get(INDEX);
  if (bytes === undefined) return {};
  const parsed = parseJson(bytes) as KeyIndex;
  const sane = Object.entries(parsed).every(
    ([tenant, name]) =>
      /^[0-9]+$/.test(tenant) && typeof name === "string" && name.startsWith(`keys/${tenant}-`),
  );
  if (!sane) throw invalid("the index of keys is not one");
  return parsed;
}
