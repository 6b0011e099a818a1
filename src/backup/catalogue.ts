/** The backups in a place: which there are, each with its signature checked. */
import { kimberliteError } from "../errors.ts";
import { openNote, type VerifierKey } from "../log/signed-note.ts";
import {
  BACKUP_FORMAT,
  type BackupManifest,
  backupText,
  encodeJson,
  invalid,
  parseJson,
  parseManifest,
} from "./backup-format.ts";
import type { BackupTarget } from "./target.ts";

/** Ids of the backups in a place, oldest first. */
export async function listBackups(from: BackupTarget): Promise<string[]> {
  const names = await from.list("backups/");
  const signed = new Set(names.filter((name) => name.endsWith(".sig")));
  return names.flatMap((name) => {
    const id = /^backups\/([0-9A-Za-z-]+)\.json$/.exec(name)?.[1];
    return id !== undefined && signed.has(`backups/${id}.sig`) ? [id] : [];
  });
}

/** @throws `backup_not_found`, `backup_invalid` for one that is not what the installation signed */
export async function readBackup(from: BackupTarget, id: string, key: VerifierKey): Promise<BackupManifest> {
  const bytes = /^[0-9A-Za-z-]{1,64}$/.test(id) ? await from.get(`backups/${id}.json`) : undefined;
  const note = bytes === undefined ? undefined : await from.get(`backups/${id}.sig`);
  if (bytes === undefined || note === undefined) {
    throw kimberliteError("backup_not_found", `there is no backup ${JSON.stringify(id)}`);
  }
  let text: string;
  try {
    text = openNote(note, [key]).text;
  } catch (cause) {
    throw kimberliteError("backup_invalid", `backup ${id} is not signed by the installation`, { cause });
  }
  if (text !== backupText(bytes)) throw invalid(`backup ${id} is not what was signed`);
  const manifest = parseManifest(bytes);
  if (manifest.id !== id) throw invalid(`backup ${id} is another one`);
  return manifest;
}

/**
 * The backup to restore from: one by its id; or for a time the first that was begun after it, which has all until then;
 * or the latest.
 */
export async function chooseBackup(
  from: BackupTarget,
  key: VerifierKey,
  wanted: { readonly backup?: string | undefined; readonly timeUs?: bigint | undefined },
): Promise<BackupManifest> {
  if (wanted.backup !== undefined) return readBackup(from, wanted.backup, key);
  const ids = await listBackups(from);
  const latest = ids.at(-1);
  if (latest === undefined) throw kimberliteError("backup_not_found", "the place holds no backup");
  if (wanted.timeUs !== undefined) {
    for (const id of ids) {
      const manifest = await readBackup(from, id, key);
      if (BigInt(manifest.timeUs) >= wanted.timeUs) return manifest;
    }
  }
  return readBackup(from, latest, key);
}

/**
 * Makes a place this installation's, or sees that it is.
 *
 * @throws `destination_exists` for another's, or for one that holds something else
 */
export async function claimPlace(
  place: BackupTarget,
  installation: string,
  what: "data" | "keys",
): Promise<void> {
  const wanted = encodeJson({ format: BACKUP_FORMAT, what, installation });
  const present = await place.get("installation.json");
  if (present?.equals(wanted) === true) return;
  if (present !== undefined) {
    throw kimberliteError(
      "destination_exists",
      "the place holds backups of another installation, or of another kind",
    );
  }
  if ((await place.list("")).length > 0)
    throw kimberliteError("destination_exists", "the place holds something else than backups");
  await place.put("installation.json", wanted);
}

/** Which installation's backups a place holds. @throws `backup_not_found` */
export async function installationOf(place: BackupTarget, what: "data" | "keys"): Promise<string> {
  const bytes = await place.get("installation.json");
  if (bytes === undefined) throw kimberliteError("backup_not_found", `there is no backup of ${what} there`);
  const parsed = parseJson(bytes) as { installation?: unknown; what?: unknown };
  if (parsed.what !== what || !/^[0-9a-f]{16}$/.test(String(parsed.installation)))
    throw invalid(`the place is none of ${what}`);
  return parsed.installation as string;
}
