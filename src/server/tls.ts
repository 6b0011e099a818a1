/**
 * Certificates of the server's own, from files: looked at again every few seconds and put into force for new connections
 * when they changed, without a restart.
 *
 * Kept: files that are unreadable, do not belong together or are half written never replace what works.
 */
import { createSecureContext, type SecureContextOptions } from "node:tls";
import { kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";

/** PEM files. */
export interface TlsSettings {
  /** The certificate and what leads from it to its authority. */
  readonly certFile: string;
  readonly keyFile: string;
  /** Authorities of clients' certificates: with it, who has none is not let in (mutual TLS). */
  readonly clientCaFile?: string;
}

type Material = Pick<SecureContextOptions, "cert" | "key" | "ca">;

/** What a TLS server is made with. @throws `invalid_argument` if a file is missing or they do not belong together */
export function loadTls(disk: Disk, { certFile, keyFile, clientCaFile }: TlsSettings): Material {
  const material = {
    cert: read(disk, certFile),
    key: read(disk, keyFile),
    ...(clientCaFile === undefined ? {} : { ca: read(disk, clientCaFile) }),
  };
  try {
    createSecureContext({ ...material, minVersion: MIN_VERSION });
  } catch (cause) {
    throw kimberliteError("invalid_argument", "the TLS certificate and key are not usable together", {
      cause,
    });
  }
  return material;
}

export const MIN_VERSION = "TLSv1.2";

/** Puts changed files into force. `reload` looks now; `every` looks by itself until the server closes. */
export class TlsReloader {
  readonly #disk: Disk;
  readonly #settings: TlsSettings;
  readonly #use: (material: Material) => void;
  #present: string;

  constructor(disk: Disk, settings: TlsSettings, use: (material: Material) => void) {
    this.#disk = disk;
    this.#settings = settings;
    this.#use = use;
    this.#present = fingerprint(loadTls(disk, settings));
  }

  /** @throws as `loadTls`; what was in force stays */
  reload(): boolean {
    const material = loadTls(this.#disk, this.#settings);
    const next = fingerprint(material);
    if (next === this.#present) return false;
    this.#use(material);
    this.#present = next;
    return true;
  }
}

function read(disk: Disk, path: string): Buffer {
  const bytes = disk.readFile(path);
  if (bytes !== undefined) return bytes;
  throw kimberliteError("invalid_argument", `there is no file ${path}`);
}

function fingerprint({ cert, ca }: Material): string {
  return `${String(cert)}\n${String(ca ?? "")}`;
}
