/**
 * An installation as the command lays it out: `DIR/master.key`, `DIR/data`, and `DIR/master.key.next` only while a
 * rotation of the master key is under way.
 *
 * Kept: an installation that is there is never made anew; a rotation that was interrupted locks nobody out, because
 * until it is finished both keys are tried.
 */
import { userInfo } from "node:os";
import { join } from "node:path";
import { readInstallation } from "../directory/data-directory.ts";
import { kimberliteError } from "../errors.ts";
import { systemDisk } from "../host/disk.ts";
import type { MasterKeyProvider } from "../keys/master-key.ts";
import { createMasterKeyFile, masterKeyFile } from "../keys/master-key-file.ts";
import { Kimberlite } from "../kimberlite.ts";
import type { OpenOptions } from "../open-options.ts";

export interface InstallationPaths {
  readonly dir: string;
  readonly masterKey: string;
  readonly nextMasterKey: string;
  readonly data: string;
}

export function installationPaths(dir: string): InstallationPaths {
  const masterKey = join(dir, "master.key");
  return { dir, masterKey, nextMasterKey: `${masterKey}.next`, data: join(dir, "data") };
}

/**
 * Makes master key and data directory. A master key that stands there without data is taken as it is.
 *
 * @returns true if the master key was made now.
 * @throws `already_initialised`, and what `Kimberlite.open` throws
 */
export async function initialise(paths: InstallationPaths): Promise<boolean> {
  if (readInstallation(systemDisk, paths.data) !== undefined) {
    throw kimberliteError("already_initialised", `${paths.dir} is initialised already; nothing was changed`);
  }
  systemDisk.makeFolder(paths.dir);
  const fresh = !systemDisk.has(paths.masterKey);
  if (fresh) createMasterKeyFile(paths.masterKey);
  const db = await Kimberlite.open({ dataDir: paths.data, masterKey: masterKeyFile(paths.masterKey) });
  await db.close();
  return fresh;
}

/** Opens an installation that `initialise` made. @throws `directory_not_initialised`, and what `Kimberlite.open` throws */
export async function openInstallation(
  paths: InstallationPaths,
  options: Pick<OpenOptions, "onProgress"> = {},
): Promise<Kimberlite> {
  if (readInstallation(systemDisk, paths.data) === undefined) {
    throw kimberliteError(
      "directory_not_initialised",
      `${paths.dir} holds no installation; make one with: kimberlite init --dir ${paths.dir}`,
    );
  }
  return Kimberlite.open({ ...options, dataDir: paths.data, ...masterKeysOf(paths), create: false });
}

/** Opens, works, and closes whatever the work did. */
export async function withInstallation<T>(
  paths: InstallationPaths,
  work: (db: Kimberlite) => Promise<T>,
  options: Pick<OpenOptions, "onProgress"> = {},
): Promise<T> {
  const db = await openInstallation(paths, options);
  try {
    // What a replacement of the master key left beside it, if it was interrupted.
    await systemDisk.clearReplaced(paths.masterKey);
    return await work(db);
  } finally {
    await db.close();
  }
}

/** The installation's master key; in the middle of a rotation also the one that it leads to. */
export function masterKeysOf(
  paths: InstallationPaths,
): Pick<OpenOptions, "masterKey"> & { readonly otherMasterKeys: readonly MasterKeyProvider[] } {
  const next = systemDisk.has(paths.nextMasterKey) ? [masterKeyFile(paths.nextMasterKey)] : [];
  return { masterKey: masterKeyFile(paths.masterKey), otherMasterKeys: next };
}

/**
 * Re-wraps every tenant's keys under a new master key and puts it in the place of the old one, which is overwritten.
 * After an interruption it goes on with the same new key.
 */
export async function rotateMasterKeyFile(paths: InstallationPaths): Promise<string> {
  const keyId = await withInstallation(paths, async (db) => {
    if (!systemDisk.has(paths.nextMasterKey)) createMasterKeyFile(paths.nextMasterKey);
    const next = masterKeyFile(paths.nextMasterKey);
    await db.rotateMasterKey(next);
    return next.keyId;
  });
  const bytes = systemDisk.readFile(paths.nextMasterKey);
  if (bytes === undefined) {
    throw kimberliteError("master_key_missing", `${paths.nextMasterKey} is gone; put it back`);
  }
  await systemDisk.replaceFile(paths.masterKey, bytes);
  bytes.fill(0);
  await systemDisk.destroyFile(paths.nextMasterKey);
  return keyId;
}

/** Who the log says did it. */
export function actorName(): string {
  try {
    return `cli:${userInfo().username}`.slice(0, 255);
  } catch {
    // A user id without a name, as containers have.
    return `cli:uid-${process.getuid?.() ?? "unknown"}`;
  }
}
