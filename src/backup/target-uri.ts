/** Which place a URI names for backups. */
import { kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import { type BackupTarget, directoryTarget } from "./target.ts";

/** Opens `file:PATH` or `s3://BUCKET/PREFIX`. @throws `invalid_argument` */
export async function openBackupTarget(uri: string, disk: Disk): Promise<BackupTarget> {
  if (typeof uri === "string" && uri.startsWith("s3:")) return (await import("./s3-target.ts")).s3Target(uri);
  if (typeof uri === "string" && /^file:./.test(uri) && !uri.includes("\0")) {
    return directoryTarget(decodeURIComponent(uri.slice("file:".length).replace(/^\/\/(?=\/)/, "")), disk);
  }
  throw kimberliteError("invalid_argument", "a place of backups is file:PATH or s3://BUCKET/PREFIX");
}
