/** What the admin API can reach beside the database; what is absent was not configured. */
import { join } from "node:path";
import type { BackupPlace } from "../backup-places.ts";
import { kimberliteError } from "../errors.ts";
import type { RotationProgress } from "../master-rotation.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { Jobs } from "./jobs.ts";

/** A place of backups: where the logs go, and apart from them the wrapped keys. */
export interface BackupPlaces {
  readonly logs: BackupPlace;
  readonly keys?: BackupPlace;
}

/** For whom the master key is rotated, and who is told how far it is. */
export interface RotationBy {
  readonly actor: string;
  readonly correlationId: string;
  readonly address: string;
  readonly onProgress: (progress: RotationProgress) => void;
}

export interface Services {
  readonly jobs: Jobs;
  readonly folders: Folders;
  /** Places of backups, by the names that the API has for them. */
  readonly backupPlaces: ReadonlyMap<string, BackupPlaces>;
  /** Schemes of master keys that tenants may name as their own. */
  readonly masterKeySchemes: readonly string[];
  /** Moves the node to one of its configured master keys. @returns the key's id */
  readonly rotateMasterKey?: ((name: string, by: RotationBy) => Promise<string>) | undefined;
}

/** Folders of the server's machine that the admin API may write to and read from. */
export interface FolderSettings {
  readonly exports?: string;
  readonly imports?: string;
}

/**
 * Places within the configured folders. A name is letters, digits, `-` and `_`, so that no name leads anywhere else; a
 * tenant's exports are in a folder of its own.
 */
export class Folders {
  readonly #settings: FolderSettings;

  constructor(settings: FolderSettings) {
    this.#settings = settings;
  }

  /** Where an export of that name goes. @throws `not_authorized` if no folder is configured, `invalid_argument` */
  exportOf(tenant: TenantId, name: string): string {
    return join(required(this.#settings.exports, "exports"), String(tenant), requireName(name));
  }

  /** Where an import of that name lies. @throws `not_authorized` if no folder is configured, `invalid_argument` */
  importOf(name: string): string {
    return join(required(this.#settings.imports, "imports"), requireName(name));
  }
}

export const FOLDER_NAME = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$";

function requireName(name: string): string {
  if (new RegExp(FOLDER_NAME).test(name)) return name;
  throw kimberliteError("invalid_argument", "a name is 1 to 64 letters, digits, hyphens and underscores");
}

function required(folder: string | undefined, name: string): string {
  if (folder !== undefined) return folder;
  throw kimberliteError("not_authorized", `the server has no folder for ${name}; its settings name one`);
}
