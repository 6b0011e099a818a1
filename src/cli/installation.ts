/**
 * An installation as the command lays it out: `DIR/data`, and `DIR/master.key` or, for a master key elsewhere, a
 * `DIR/config.json` that names it by its URI. While a rotation of the master key is under way `DIR/master.key.next`, or
 * the configuration, holds the one that it leads to.
 *
 * Kept: an installation that is there is never made anew; a rotation that was interrupted locks nobody out, because
 * until it is finished both keys are tried.
 */
import { userInfo } from "node:os";
import { join, resolve } from "node:path";
import type { GovernanceOptions } from "../administration.ts";
import { readInstallation } from "../directory/data-directory.ts";
import { kimberliteError } from "../errors.ts";
import { systemDisk } from "../host/disk.ts";
import type { MasterKeyProvider } from "../keys/master-key.ts";
import { createMasterKeyFile, masterKeyFile } from "../keys/master-key-file.ts";
import { masterKeyPath, openMasterKey } from "../keys/master-key-uri.ts";
import type { Kimberlite } from "../kimberlite.ts";
import type { RotationProgress } from "../master-rotation.ts";
import type { OpenOptions } from "../open-options.ts";
import { parseMasterKeyUri } from "../tenant/tenant-config.ts";
import type { GlobalOptions, RecordedOptions } from "./arguments.ts";

export interface InstallationPaths {
  readonly dir: string;
  readonly masterKey: string;
  readonly nextMasterKey: string;
  readonly config: string;
  readonly data: string;
}

/** What the configuration says; both are URIs for `openMasterKey`. */
interface Configuration {
  readonly masterKey?: string;
  readonly nextMasterKey?: string;
}

/** Who rotates and why, and who is told how far it is. */
export interface RotationOptions {
  readonly actor: string;
  readonly reason?: string;
  readonly onProgress: (progress: RotationProgress) => void;
}

export function installationPaths(dir: string): InstallationPaths {
  const masterKey = join(dir, "master.key");
  return {
    dir,
    masterKey,
    nextMasterKey: `${masterKey}.next`,
    config: join(dir, "config.json"),
    data: join(dir, "data"),
  };
}

/**
 * Makes master key and data directory. A master key that stands there without data is taken as it is.
 *
 * @returns true if the master key was made now.
 * @throws `already_initialised`, and what `Kimberlite.open` throws
 */
export async function initialise(paths: InstallationPaths, given?: string): Promise<boolean> {
  const uri = given === undefined ? undefined : keptUri(given);
  if (readInstallation(systemDisk, paths.data) !== undefined) {
    throw kimberliteError("already_initialised", `${paths.dir} is initialised already; nothing was changed`);
  }
  const elsewhere = uri === undefined ? undefined : await openMasterKey(uri);
  systemDisk.makeFolder(paths.dir);
  const fresh = elsewhere === undefined && !systemDisk.has(paths.masterKey);
  if (fresh) createMasterKeyFile(paths.masterKey);
  const masterKey = elsewhere ?? masterKeyFile(paths.masterKey);
  const db = await open({ dataDir: paths.data, masterKey });
  await db.close();
  if (uri !== undefined) await configure(paths, { masterKey: uri });
  return fresh;
}

/**
 * The URI of a master key as it is kept: a path in it is absolute, for later commands are given elsewhere.
 *
 * @throws `invalid_argument` for one that holds a PIN
 */
export function keptUri(uri: string): string {
  if (!uri.startsWith("file:")) return parseMasterKeyUri(uri);
  return parseMasterKeyUri(`file:${encodeURI(resolve(masterKeyPath(uri)))}`);
}

/** The engine is loaded when a directory is opened: a command that asks a server needs none of it. */
async function open(options: OpenOptions): Promise<Kimberlite> {
  const { Kimberlite: Engine } = await import("../kimberlite.ts");
  return Engine.open(options);
}

/** Opens an installation that `initialise` made. @throws `directory_not_initialised`, and what `Kimberlite.open` throws */
export async function openInstallation(
  paths: InstallationPaths,
  options: Pick<OpenOptions, "onProgress" | "jwks" | "limits" | "maxOpenTenants"> = {},
): Promise<Kimberlite> {
  if (readInstallation(systemDisk, paths.data) === undefined) {
    // The system's folder alone is a first opening that was interrupted: `init` makes it anew.
    const lostItsFormat = systemDisk.list(join(paths.data, "tenants")).some((name) => name !== "0");
    const what = lostItsFormat
      ? `${paths.data} holds tenants, but its kimberlite.json is missing: put that of a copy there`
      : `${paths.dir} holds no installation; make one with: kimberlite init --dir ${paths.dir}`;
    throw kimberliteError("directory_not_initialised", what);
  }
  const masterKeys = await masterKeysOf(paths);
  return open({ ...options, dataDir: paths.data, ...masterKeys, create: false });
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

/** The installation's master key; in the middle of a rotation also the one that it leads to. @throws as `openMasterKey` */
async function masterKeysOf(
  paths: InstallationPaths,
): Promise<Pick<OpenOptions, "masterKey"> & { readonly otherMasterKeys: readonly MasterKeyProvider[] }> {
  const { masterKey, nextMasterKey } = readConfiguration(paths);
  const others = nextMasterKey === undefined ? [] : [await openMasterKey(nextMasterKey)];
  if (masterKey === undefined) {
    const files = masterKeyFilesOf(paths);
    return { ...files, otherMasterKeys: [...files.otherMasterKeys, ...others] };
  }
  return { masterKey: await openMasterKey(masterKey), otherMasterKeys: others };
}

/** The master key in its file; in the middle of a rotation also the one that it leads to. */
export function masterKeyFilesOf(
  paths: InstallationPaths,
): Pick<OpenOptions, "masterKey"> & { readonly otherMasterKeys: readonly MasterKeyProvider[] } {
  const next = systemDisk.has(paths.nextMasterKey) ? [masterKeyFile(paths.nextMasterKey)] : [];
  return { masterKey: masterKeyFile(paths.masterKey), otherMasterKeys: next };
}

function readConfiguration(paths: InstallationPaths): Configuration {
  const bytes = systemDisk.readFile(paths.config);
  if (bytes === undefined) return {};
  try {
    const parsed = JSON.parse(bytes.toString("utf8")) as Record<string, unknown>;
    const known = Object.entries(parsed).every(
      ([name, value]) => /^(masterKey|nextMasterKey)$/.test(name) && typeof value === "string",
    );
    if (known) return parsed as Configuration;
  } catch {
    // Said below, as of anything else that is not a configuration.
  }
  throw kimberliteError("invalid_argument", `${paths.config} is not {"masterKey": "URI"}`);
}

export async function configure(paths: InstallationPaths, configuration: Configuration): Promise<void> {
  await systemDisk.replaceFile(paths.config, Buffer.from(`${JSON.stringify(configuration, null, 2)}\n`));
}

/**
 * Re-wraps every tenant's keys under the master key that a URI names, which is the installation's from then on. After an
 * interruption both are known, and the command is given again. A key file that was the former one stays where it is.
 *
 * @returns the new key's id
 */
export async function rotateMasterKeyTo(
  paths: InstallationPaths,
  given: string,
  options: RotationOptions,
): Promise<string> {
  return rotateTo(paths, given, (next) => withInstallation(paths, (db) => db.rotateMasterKey(next, options)));
}

/** As `rotateMasterKeyTo`, of an installation that this process has open. */
export function rotateOpenMasterKeyTo(
  paths: InstallationPaths,
  db: Kimberlite,
  {
    to,
    ...options
  }: GovernanceOptions & { readonly to: string; readonly onProgress?: RotationOptions["onProgress"] },
): Promise<string> {
  return rotateTo(paths, to, (next) => db.rotateMasterKey(next, options));
}

async function rotateTo(
  paths: InstallationPaths,
  given: string,
  rotate: (next: MasterKeyProvider) => Promise<void>,
): Promise<string> {
  const uri = keptUri(given);
  const { masterKey: former } = readConfiguration(paths);
  const next = await openMasterKey(uri);
  // Read before it is kept: a key that is not there is not made part of the installation.
  const keyId = next.keyId;
  await configure(paths, { ...(former === undefined ? {} : { masterKey: former }), nextMasterKey: uri });
  await rotate(next);
  await configure(paths, { masterKey: uri });
  return keyId;
}

/**
 * Re-wraps every tenant's keys under a new master key and puts it in the place of the old one, which is overwritten.
 * After an interruption it goes on with the same new key.
 */
export async function rotateMasterKeyFile(
  paths: InstallationPaths,
  options: RotationOptions,
): Promise<string> {
  const keyId = await withInstallation(paths, async (db) => {
    if (!systemDisk.has(paths.nextMasterKey)) createMasterKeyFile(paths.nextMasterKey);
    const next = masterKeyFile(paths.nextMasterKey);
    await db.rotateMasterKey(next, options);
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

/** Who and why, as a command's options say. */
export function recorded(options: RecordedOptions): { readonly actor: string; readonly reason?: string } {
  const { reason } = options;
  return { actor: actorName(options), ...(reason === undefined ? {} : { reason }) };
}

/** Who the log says did it: who the options name, or the account that runs the command. */
export function actorName({ actor }: Pick<GlobalOptions, "actor"> = {}): string {
  if (actor !== undefined) return actor;
  try {
    return `cli:${userInfo().username}`.slice(0, 255);
  } catch {
    // A user id without a name, as containers have.
    return `cli:uid-${process.getuid?.() ?? "unknown"}`;
  }
}
