/**
 * Backups in S3, or in whatever speaks its protocol, through the official SDK: `s3://BUCKET/PREFIX`.
 *
 * Kept: what is put carries a SHA-256 that the service checks; every call ends within its time; the SDK retries what may
 * pass. Credentials and region come from the environment, as the SDK finds them.
 */
import type { S3Client, S3ClientConfig } from "@aws-sdk/client-s3";
import { type ErrorCode, kimberliteError } from "../errors.ts";
import type { BackupTarget } from "./target.ts";

export interface S3TargetOptions {
  /** Longest time of one call with its retries, 60 s unless given. */
  readonly timeoutMs?: number;
  /** Of the SDK's client. */
  readonly client?: S3ClientConfig;
}

type Sdk = typeof import("@aws-sdk/client-s3");

const DEFAULT_TIMEOUT_MS = 60_000;

/**
 * Opens `s3://BUCKET[/PREFIX][?region=…&endpoint=…]`; with an endpoint, buckets are in the path.
 *
 * @throws `invalid_argument` for another URI
 */
export async function s3Target(uri: string, options: S3TargetOptions = {}): Promise<BackupTarget> {
  const { bucket, prefix, region, endpoint } = parseUri(uri);
  const sdk = await import("@aws-sdk/client-s3");
  const client = new sdk.S3Client({
    ...(region === undefined ? {} : { region }),
    ...(endpoint === undefined ? {} : { endpoint, forcePathStyle: true }),
    ...options.client,
  });
  return new S3Target({ sdk, client, bucket, prefix, timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS });
}

interface S3Parts {
  readonly sdk: Sdk;
  readonly client: S3Client;
  readonly bucket: string;
  /** Ends in a slash, or is empty. */
  readonly prefix: string;
  readonly timeoutMs: number;
}

class S3Target implements BackupTarget {
  readonly uri: string;
  readonly #parts: S3Parts;

  constructor(parts: S3Parts) {
    this.#parts = parts;
    this.uri = `s3://${parts.bucket}/${parts.prefix}`.replace(/\/$/, "");
  }

  async put(name: string, bytes: Buffer): Promise<void> {
    const { sdk, client, bucket, prefix } = this.#parts;
    const input = { Bucket: bucket, Key: prefix + name, Body: bytes, ChecksumAlgorithm: "SHA256" } as const;
    await this.#call((abortSignal) => client.send(new sdk.PutObjectCommand(input), { abortSignal }));
  }

  async get(name: string): Promise<Buffer | undefined> {
    const { sdk, client, bucket, prefix } = this.#parts;
    const command = new sdk.GetObjectCommand({ Bucket: bucket, Key: prefix + name });
    return this.#call(async (abortSignal) => {
      try {
        const { Body } = await client.send(command, { abortSignal });
        return Body === undefined ? Buffer.alloc(0) : Buffer.from(await Body.transformToByteArray());
      } catch (error) {
        if (error instanceof sdk.NoSuchKey) return undefined;
        throw error;
      }
    });
  }

  async list(prefix: string): Promise<string[]> {
    const { sdk, client, bucket, prefix: root } = this.#parts;
    const names: string[] = [];
    let token: string | undefined;
    do {
      const input = { Bucket: bucket, Prefix: root + prefix, ContinuationToken: token };
      const page = await this.#call((abortSignal) =>
        client.send(new sdk.ListObjectsV2Command(input), { abortSignal }),
      );
      for (const { Key } of page.Contents ?? []) if (Key !== undefined) names.push(Key.slice(root.length));
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
    return names.sort();
  }

  async remove(name: string): Promise<void> {
    const { sdk, client, bucket, prefix } = this.#parts;
    const command = new sdk.DeleteObjectCommand({ Bucket: bucket, Key: prefix + name });
    await this.#call((abortSignal) => client.send(command, { abortSignal }));
  }

  async close(): Promise<void> {
    this.#parts.client.destroy();
  }

  async #call<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await work(AbortSignal.timeout(this.#parts.timeoutMs));
    } catch (cause) {
      throw toError(cause);
    }
  }
}

/** What will not pass by itself is not to be tried again. */
function toError(cause: unknown): Error {
  const { name = "unknown", $metadata } = cause as {
    name?: string;
    $metadata?: { readonly httpStatusCode?: number };
  };
  const status = $metadata?.httpStatusCode;
  const refused = status === 401 || status === 403;
  const code: ErrorCode = refused ? "not_authorized" : "storage_failed";
  const detail = { reason: name, ...(status === undefined ? {} : { status }) };
  return kimberliteError(code, `the place of backups refused: ${name}`, { cause, detail });
}

/** @throws `invalid_argument` */
function parseUri(uri: string): { bucket: string; prefix: string; region?: string; endpoint?: string } {
  const parts = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/([A-Za-z0-9._/-]*))?(?:\?(.*))?$/.exec(uri);
  if (parts?.[1] === undefined) {
    throw kimberliteError("invalid_argument", "backups in S3 are at s3://BUCKET/PREFIX?region=…&endpoint=…");
  }
  const settings = new URLSearchParams(parts[3] ?? "");
  for (const name of settings.keys()) {
    if (name !== "region" && name !== "endpoint")
      throw kimberliteError("invalid_argument", "a place in S3 takes region and endpoint");
  }
  const path = (parts[2] ?? "").replace(/^\/+|\/+$/g, "");
  const region = settings.get("region");
  const endpoint = settings.get("endpoint");
  return {
    bucket: parts[1],
    prefix: path === "" ? "" : `${path}/`,
    ...(region === null ? {} : { region }),
    ...(endpoint === null ? {} : { endpoint }),
  };
}
