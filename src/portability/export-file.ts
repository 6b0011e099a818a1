/**
 * A file of an export while it is written: buffered, counted, digested, and durable when it is finished.
 *
 * Survives a full disk: what was written so far stays, is not in the manifest, and is written again from its start.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Disk, DiskFile } from "../host/disk.ts";
import type { ExportedFile } from "./export-verifier.ts";

const BUFFER_BYTES = 1024 * 1024;

export class ExportFile {
  readonly #name: string;
  readonly #file: DiskFile;
  readonly #digest: ReturnType<typeof createHash> = createHash("sha256");
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #bytes = 0;

  private constructor(name: string, file: DiskFile) {
    this.#name = name;
    this.#file = file;
  }

  /** Begins the file anew, whatever stood there. @throws `disk_full`, `disk_failed` */
  static create(disk: Disk, dir: string, name: string): ExportFile {
    const file = disk.open(join(dir, name), "create");
    try {
      file.truncate(0);
    } catch (error) {
      file.close();
      throw error;
    }
    return new ExportFile(name, file);
  }

  /** Bytes so far. */
  get bytes(): number {
    return this.#bytes + this.#pendingBytes;
  }

  /** The bytes are the file's from here on. @throws `disk_full`, `disk_failed` */
  write(bytes: Uint8Array): void {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    if (this.#pendingBytes >= BUFFER_BYTES) this.#flush();
  }

  /** Makes it durable and closes it. @throws `disk_full`, `disk_failed` */
  async finish(): Promise<ExportedFile> {
    try {
      this.#flush();
      await this.#file.sync();
    } finally {
      this.#file.close();
    }
    return { name: this.#name, bytes: this.#bytes, sha256: this.#digest.digest("hex") };
  }

  /** Closes a file that will not be finished. */
  abandon(): void {
    this.#file.close();
  }

  #flush(): void {
    if (this.#pendingBytes === 0) return;
    const bytes = Buffer.concat(this.#pending, this.#pendingBytes);
    this.#file.write(bytes, this.#bytes);
    this.#digest.update(bytes);
    this.#bytes += bytes.length;
    this.#pending = [];
    this.#pendingBytes = 0;
  }
}

/** Runs work on a new file and finishes it; a failure closes it. */
export async function writeExportFile(
  place: { readonly disk: Disk; readonly dir: string },
  name: string,
  work: (file: ExportFile) => Promise<void>,
): Promise<ExportedFile> {
  const file = ExportFile.create(place.disk, place.dir, name);
  try {
    await work(file);
  } catch (error) {
    file.abandon();
    throw error;
  }
  return file.finish();
}
