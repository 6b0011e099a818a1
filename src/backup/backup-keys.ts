/**
 * The key store into a place of its own: entries are wrapped, and what wraps them is not here.
 *
 * Kept: apart from the data; only what is in force: a former entry, and that of an erased tenant, is removed.
 */
import type { Disk } from "../host/disk.ts";
import { encodeJson, invalid, parseJson, sha256 } from "./backup-format.ts";
import type { BackupTarget } from "./target.ts";

const INDEX = "keys.json";

/** Name of each tenant's entry, by its id, and of the keys of its subjects, by `<id>.subjects`. */
type KeyIndex = Record<string, string>;

const SUBJECTS = ".subjects";

/** @returns entries that were written */
export async function backUpKeys(
  place: { readonly disk: Disk; readonly pathOf: (file: string) => string },
  tenants: readonly string[],
  target: BackupTarget,
): Promise<number> {
  const before = await readIndex(target);
  const after: KeyIndex = {};
  let written = 0;
  for (const entry of tenants.flatMap((tenant) => [tenant, tenant + SUBJECTS])) {
    const bytes = place.disk.readFile(place.pathOf(fileOf(entry)));
    if (bytes === undefined) continue;
    const kind = entry.endsWith(SUBJECTS) ? SUBJECTS : ".keys";
    const name = `keys/${tenantIn(entry)}-${sha256(bytes).slice(0, 32)}${kind}`;
    after[entry] = name;
    if (before[entry] === name) continue;
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
    for (const entry of Object.keys(after)) {
      if (place.disk.readFile(place.pathOf(fileOf(entry))) !== undefined) continue;
      delete after[entry];
      changed = true;
    }
  } while (changed);
  return written;
}

/** Puts the entries of tenants into a key store's folder. @throws `backup_invalid`, `storage_failed` */
export async function restoreKeys(
  from: BackupTarget,
  wanted: (tenant: string) => boolean,
  into: { readonly disk: Disk; readonly pathOf: (file: string) => string },
): Promise<void> {
  for (const [entry, name] of Object.entries(await readIndex(from))) {
    if (!wanted(tenantIn(entry))) continue;
    const bytes = await from.get(name);
    if (bytes === undefined || !name.includes(sha256(bytes).slice(0, 32)))
      throw invalid(`${name} is not what was backed up`);
    await into.disk.replaceFile(into.pathOf(fileOf(entry)), bytes);
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
  return new Set(entries.map(([entry]) => tenantIn(entry)));
}

/** One tenant's entry; undefined if there is none. */
export async function readKeyEntry(from: BackupTarget, tenant: string): Promise<Buffer | undefined> {
  const name = (await readIndex(from))[tenant];
  return name === undefined ? undefined : from.get(name);
}

/** The keys of one tenant's subjects, as their file has them; undefined if there are none. */
export function readSubjectEntry(from: BackupTarget, tenant: string): Promise<Buffer | undefined> {
  return readKeyEntry(from, tenant + SUBJECTS);
}

function tenantIn(entry: string): string {
  return entry.endsWith(SUBJECTS) ? entry.slice(0, -SUBJECTS.length) : entry;
}

function fileOf(entry: string): string {
  return entry.endsWith(SUBJECTS) ? entry : `${entry}.keys`;
}

async function readIndex(from: BackupTarget): Promise<KeyIndex> {
  const bytes = await from.get(INDEX);
  if (bytes === undefined) return {};
  const parsed = parseJson(bytes) as KeyIndex;
  const sane = Object.entries(parsed).every(
    ([entry, name]) =>
      /^[0-9]+(?:\.subjects)?$/.test(entry) &&
      typeof name === "string" &&
      name.startsWith(`keys/${tenantIn(entry)}-`),
  );
  if (!sane) throw invalid("the index of keys is not one");
  return parsed;
}
