/**
 * The master key in a file: for development, and for machines whose disk is itself protected.
 *
 * The file is text of three lines, readable by its owner alone:
 *
 *     kimberlite-master-key-v1
 *     id: <32 hex digits>
 *     key: <44 base64 characters>
 *
 * The id is a MAC of the key under the key itself, so it is public, says nothing about the key, and tells a
 * damaged file from the wrong file. What the key wraps is 0x01 ‖ nonce ‖ ciphertext ‖ tag (AES-256-GCM), with the
 * canonical context as associated data.
 */
import { createHmac, createSecretKey, type KeyObject } from "node:crypto";
import * as fs from "node:fs";
import { dirname, resolve } from "node:path";
import { assert, kimberliteError } from "../errors.ts";
import { diskError, systemDisk } from "../host/disk.ts";
import { type Randomness, systemRandomness } from "../host/randomness.ts";
import { encodeKeyContext, KEY_BYTES, type KeyContext, type MasterKeyProvider } from "./master-key.ts";
import { freshKey, unwrapKey, wrapKey } from "./wrapping.ts";

const FORMAT_LINE = "kimberlite-master-key-v1";
const FILE_PATTERN = new RegExp(
  `^${FORMAT_LINE}\\r?\\nid: ([0-9a-f]{32})\\r?\\nkey: ([A-Za-z0-9+/]+=*)\\s*$`,
);
const MAX_FILE_BYTES = 1_024;
const WRAPPED_FORMAT = 1;

interface MasterKey {
  readonly id: string;
  readonly key: KeyObject;
}

/**
 * The master key in the file at `path`. Nothing is read before the first use, which is synchronous and costs one
 * small read.
 *
 * Uses throw `master_key_missing` when the file is absent or cannot be read, `master_key_invalid` when it is not a
 * master key or anyone but its owner has access to it, and `master_key_wrong` when it did not wrap what it is
 * asked to unwrap.
 */
export function masterKeyFile(path: string, randomness: Randomness = systemRandomness()): MasterKeyProvider {
  return new MasterKeyFile(resolve(path), randomness);
}

/**
 * Makes a new master key in a new file, readable by its owner alone and durable when this returns.
 *
 * @returns the key's id.
 * @throws `master_key_exists` when something stands at `path` already: it is left as it is.
 */
export function createMasterKeyFile(path: string, randomness: Randomness = systemRandomness()): string {
  const key = freshKey(randomness);
  const id = masterKeyId(key);
  const text = Buffer.from(`${FORMAT_LINE}\nid: ${id}\nkey: ${key.toString("base64")}\n`, "ascii");
  try {
    writeNewFile(resolve(path), text);
  } finally {
    key.fill(0);
    text.fill(0);
  }
  return id;
}

class MasterKeyFile implements MasterKeyProvider {
  readonly uri: string;
  readonly #path: string;
  readonly #randomness: Randomness;
  #loaded: MasterKey | undefined;
  #closed = false;

  constructor(path: string, randomness: Randomness) {
    this.uri = `file:${path}`;
    this.#path = path;
    this.#randomness = randomness;
  }

  get keyId(): string {
    return this.#master().id;
  }

  async wrap(key: Buffer, context: KeyContext): Promise<Uint8Array> {
    const binding = encodeKeyContext(context);
    const wrapped = wrapKey({ key, wrappingKey: this.#master().key, binding, randomness: this.#randomness });
    return Buffer.concat([Buffer.of(WRAPPED_FORMAT), wrapped]);
  }

  async unwrap(wrapped: Uint8Array, context: KeyContext): Promise<Buffer> {
    const master = this.#master();
    const binding = encodeKeyContext(context);
    const key =
      wrapped[0] === WRAPPED_FORMAT
        ? unwrapKey({ wrapped: wrapped.subarray(1), wrappingKey: master.key, binding })
        : undefined;
    if (key !== undefined) return key;
    throw kimberliteError("master_key_wrong", "this master key did not wrap the tenant's key", {
      detail: { tenant: context.tenant, kekVersion: context.version, masterKeyId: master.id },
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#loaded = undefined;
  }

  #master(): MasterKey {
    assert(!this.#closed, "a master key is not used after it was closed");
    this.#loaded ??= loadMasterKey(this.#path);
    return this.#loaded;
  }
}

function loadMasterKey(path: string): MasterKey {
  const bytes = readPrivateFile(path);
  const match = FILE_PATTERN.exec(bytes.toString("latin1"));
  bytes.fill(0);
  if (match === null) throw invalid(path, "it is not a master key file");
  const key = Buffer.from(match[2] ?? "", "base64");
  try {
    if (key.length !== KEY_BYTES) throw invalid(path, "its key has the wrong length");
    const id = masterKeyId(key);
    if (id !== match[1]) throw invalid(path, "its key does not belong to its id");
    return { id, key: createSecretKey(key) };
  } finally {
    key.fill(0);
  }
}

function masterKeyId(key: Buffer): string {
  return createHmac("sha256", key).update("kimberlite/v1/master-key-id").digest("hex").slice(0, 32);
}

function readPrivateFile(path: string): Buffer {
  const fd = openPrivateFile(path);
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw invalid(path, "it is not a file");
    if (process.platform !== "win32" && (stat.mode & 0o077) !== 0) {
      throw invalid(path, "others than its owner have access to it (chmod 600 it)");
    }
    if (stat.size > MAX_FILE_BYTES) throw invalid(path, "it is too long");
    const bytes = Buffer.alloc(stat.size);
    const count = fs.readSync(fd, bytes, 0, bytes.length, 0);
    return bytes.subarray(0, count);
  } finally {
    fs.closeSync(fd);
  }
}

function openPrivateFile(path: string): number {
  try {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    return fs.openSync(path, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
  } catch (cause) {
    throw kimberliteError("master_key_missing", `the master key file ${path} cannot be opened`, { cause });
  }
}

function invalid(path: string, why: string): Error {
  return kimberliteError("master_key_invalid", `${path} cannot be the master key: ${why}`);
}

function writeNewFile(path: string, bytes: Buffer): void {
  const fd = openNewFile(path);
  try {
    fs.fchmodSync(fd, 0o600);
    fs.writeFileSync(fd, bytes);
    fs.fsyncSync(fd);
  } catch (error) {
    fs.rmSync(path, { force: true });
    throw diskError(error);
  } finally {
    fs.closeSync(fd);
  }
  systemDisk.syncFolder(dirname(path));
}

function openNewFile(path: string): number {
  try {
    return fs.openSync(path, "wx", 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw diskError(error);
    throw kimberliteError("master_key_exists", `${path} exists already and is not overwritten`, {
      cause: error,
    });
  }
}
