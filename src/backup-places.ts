/** The places that a backup goes to or comes from, opened: those that a URI names, and those of the caller's making. */
import { type BackupTarget, requireApart } from "./backup/target.ts";
import { openBackupTarget } from "./backup/target-uri.ts";
import type { Disk } from "./host/disk.ts";
import { hasMethods } from "./tenant/call-options.ts";

/** A place of backups: `file:PATH` or `s3://BUCKET/PREFIX`, or one of the caller's making. */
export type BackupPlace = string | BackupTarget;

export interface Places {
  readonly to: BackupTarget;
  readonly keysTo: BackupTarget | undefined;
  /** Closes what was opened here. */
  close(): Promise<void>;
}

/** @throws `invalid_argument`, also for keys in the place of what they open */
export async function openPlaces(
  disk: Disk,
  given: { readonly to?: BackupPlace | undefined; readonly keysTo?: BackupPlace | undefined },
): Promise<Places> {
  const opened: BackupTarget[] = [];
  const open = async (place: unknown): Promise<BackupTarget> => {
    if (hasMethods(place, ["put", "get", "list", "remove"])) return place as BackupTarget;
    const target = await openBackupTarget(place as string, disk);
    opened.push(target);
    return target;
  };
  const close = async (): Promise<void> => {
    for (const target of opened) await target.close();
  };
  try {
    const to = await open(given.to);
    const keysTo = given.keysTo === undefined ? undefined : await open(given.keysTo);
    if (keysTo !== undefined) requireApart(to, keysTo);
    return { to, keysTo, close };
  } catch (error) {
    await close();
    throw error;
  }
}
