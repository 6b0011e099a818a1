/**
 * A master key in AWS KMS: it never leaves the service, and KEKs are encrypted and decrypted by calls to it.
 *
 * Each call carries an encryption context (purpose, tenant, version) that KMS authenticates and writes to CloudTrail, so
 * a key policy can say which tenants' KEKs a principal may open. What is encrypted carries a proof of the same inside.
 *
 * Kept: `keyId` is the key's ARN, also when it was named by an alias, so that an alias that moves is noticed; every call
 * ends within its time; the SDK retries what may pass (throttling, 5xx, connections) a bounded number of times, with
 * backoff and jitter; what KMS refuses is never tried again here.
 */
import type { KMSClient, KMSClientConfig } from "@aws-sdk/client-kms";
import { assert, type ErrorCode, KimberliteError, kimberliteError } from "../errors.ts";
import { bindKey, fromStoredForm, openBoundKey, storedForm, wrongKey } from "./bound-key.ts";
import type { KeyContext, MasterKeyProvider } from "./master-key.ts";

export interface AwsKmsOptions {
  /** Longest time of one call with its retries, 5 s unless given. */
  readonly timeoutMs?: number;
  /** Attempts of one call, 3 unless given. */
  readonly maxAttempts?: number;
  /** Of the SDK's client; by default the SDK finds region and credentials as it always does. */
  readonly client?: KMSClientConfig;
}

type Sdk = typeof import("@aws-sdk/client-kms");

const DEFAULT_TIMEOUT_MS = 5_000;
const ARN = /^arn:[a-z-]+:kms:([a-z0-9-]+):\d{12}:(?:key|alias)\/[A-Za-z0-9/_-]{1,256}$/;

/**
 * Opens the key that `awskms:///arn:aws:kms:REGION:ACCOUNT:key/ID` (or `:alias/NAME`) names; a host before the ARN is the
 * endpoint, as in `awskms://localhost:4566/arn…?tls=false`. Costs one `DescribeKey`.
 *
 * @throws `invalid_argument` for another URI; `master_key_invalid` for a key that does not encrypt symmetrically;
 * `master_key_missing`, `master_key_disabled`, `master_key_pending_deletion`, `master_key_denied`,
 * `master_key_throttled`, `master_key_timeout`, `master_key_unreachable`, as each later use does.
 */
export async function awsKms(uri: string, options: AwsKmsOptions = {}): Promise<MasterKeyProvider> {
  const { arn, region, endpoint } = parseUri(uri);
  const sdk = await import("@aws-sdk/client-kms");
  const { timeoutMs = DEFAULT_TIMEOUT_MS, maxAttempts = 3 } = options;
  const client = new sdk.KMSClient({
    region,
    maxAttempts,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...options.client,
  });
  const caller = new KmsCaller(sdk, client, timeoutMs);
  try {
    const keyId = await caller.describe(arn);
    return new AwsKms({ uri, keyId, caller });
  } catch (error) {
    client.destroy();
    throw error;
  }
}

class AwsKms implements MasterKeyProvider {
  readonly uri: string;
  readonly keyId: string;
  readonly #caller: KmsCaller;
  #closed = false;

  constructor(parts: { readonly uri: string; readonly keyId: string; readonly caller: KmsCaller }) {
    this.uri = parts.uri;
    this.keyId = parts.keyId;
    this.#caller = parts.caller;
  }

  async wrap(key: Buffer, context: KeyContext): Promise<Uint8Array> {
    this.#assertOpen();
    const plaintext = bindKey(key, context);
    try {
      return storedForm(await this.#caller.encrypt(this.keyId, plaintext, context));
    } finally {
      plaintext.fill(0);
    }
  }

  async unwrap(wrapped: Uint8Array, context: KeyContext): Promise<Buffer> {
    this.#assertOpen();
    const plaintext = await this.#caller.decrypt(this.keyId, fromStoredForm(wrapped, context), context);
    try {
      return openBoundKey(plaintext, context);
    } finally {
      plaintext.fill(0);
    }
  }

  async close(): Promise<void> {
    if (!this.#closed) this.#caller.destroy();
    this.#closed = true;
  }

  #assertOpen(): void {
    assert(!this.#closed, "a master key is not used after it was closed");
  }
}

/** The calls, bounded in time, with the service's refusals as errors of the family. */
class KmsCaller {
  readonly #sdk: Sdk;
  readonly #client: KMSClient;
  readonly #timeoutMs: number;

  constructor(sdk: Sdk, client: KMSClient, timeoutMs: number) {
    this.#sdk = sdk;
    this.#client = client;
    this.#timeoutMs = timeoutMs;
  }

  /** The key's ARN, if it is one that can be used. */
  async describe(arn: string): Promise<string> {
    const { KeyMetadata: key } = await this.#call(arn, undefined, (abortSignal) =>
      this.#client.send(new this.#sdk.DescribeKeyCommand({ KeyId: arn }), { abortSignal }),
    );
    requireUsable(key?.KeyState);
    if (key?.Arn === undefined || key.KeySpec !== "SYMMETRIC_DEFAULT" || key.KeyUsage !== "ENCRYPT_DECRYPT") {
      throw kimberliteError("master_key_invalid", "the KMS key is not a symmetric key for encryption", {
        detail: { key: arn },
      });
    }
    return key.Arn;
  }

  async encrypt(keyArn: string, plaintext: Buffer, context: KeyContext): Promise<Uint8Array> {
    const { CiphertextBlob } = await this.#call(keyArn, context, (abortSignal) => {
      const input = { KeyId: keyArn, Plaintext: plaintext, EncryptionContext: encryptionContext(context) };
      return this.#client.send(new this.#sdk.EncryptCommand(input), { abortSignal });
    });
    if (CiphertextBlob === undefined) throw unreachable("KMS answered without a ciphertext");
    return CiphertextBlob;
  }

  async decrypt(keyArn: string, ciphertext: Buffer, context: KeyContext): Promise<Uint8Array> {
    const { Plaintext, KeyId } = await this.#call(keyArn, context, (abortSignal) => {
      const input = {
        KeyId: keyArn,
        CiphertextBlob: ciphertext,
        EncryptionContext: encryptionContext(context),
      };
      return this.#client.send(new this.#sdk.DecryptCommand(input), { abortSignal });
    });
    if (Plaintext === undefined || KeyId !== keyArn) throw wrongKey(context);
    return Plaintext;
  }

  destroy(): void {
    this.#client.destroy();
  }

  async #call<T>(
    keyArn: string,
    context: KeyContext | undefined,
    send: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const signal = AbortSignal.timeout(this.#timeoutMs);
    try {
      return await send(signal);
    } catch (error) {
      if (signal.aborted) {
        throw kimberliteError("master_key_timeout", "KMS did not answer in time", {
          detail: { timeoutMs: this.#timeoutMs, key: keyArn },
          retryAfterMs: this.#timeoutMs,
        });
      }
      throw toFamily(error, { keyArn, context });
    }
  }
}

/** Names of exceptions as the service and the SDK give them. */
const CODES: Readonly<Record<string, ErrorCode>> = {
  NotFoundException: "master_key_missing",
  DisabledException: "master_key_disabled",
  AccessDeniedException: "master_key_denied",
  UnrecognizedClientException: "master_key_denied",
  InvalidClientTokenId: "master_key_denied",
  InvalidSignatureException: "master_key_denied",
  IncompleteSignature: "master_key_denied",
  MissingAuthenticationToken: "master_key_denied",
  ExpiredTokenException: "master_key_denied",
  InvalidGrantTokenException: "master_key_denied",
  CredentialsProviderError: "master_key_denied",
  ThrottlingException: "master_key_throttled",
  TooManyRequestsException: "master_key_throttled",
  LimitExceededException: "master_key_throttled",
  InvalidKeyUsageException: "master_key_invalid",
  UnsupportedOperationException: "master_key_invalid",
};

const WORDS: Partial<Record<ErrorCode, string>> = {
  master_key_missing: "KMS has no such key",
  master_key_disabled: "the KMS key is disabled",
  master_key_denied: "KMS denies access to the key, or there are no valid credentials",
  master_key_throttled: "KMS refuses more calls for now",
  master_key_invalid: "the KMS key is not a symmetric key for encryption",
};

const THROTTLED_RETRY_MS = 1_000;

function toFamily(
  error: unknown,
  about: { readonly keyArn: string; readonly context: KeyContext | undefined },
): Error {
  if (error instanceof KimberliteError) return error;
  const name = error instanceof Error ? error.name : "";
  const { keyArn: key, context } = about;
  if (context !== undefined && /^(InvalidCiphertext|IncorrectKey|InvalidEncryptionContext)/.test(name)) {
    return wrongKey(context);
  }
  if (name === "KMSInvalidStateException") {
    const pending = /pending.?(?:replica.?)?deletion/i.test((error as Error).message);
    return pending
      ? stateError("PendingDeletion")
      : unreachable("the KMS key is in no state to be used", key);
  }
  const code = CODES[name];
  if (code === undefined) return unreachable("KMS cannot be reached, or failed", key, name);
  return kimberliteError(code, WORDS[code] ?? name, {
    detail: { key, reason: name },
    ...(code === "master_key_throttled" ? { retryAfterMs: THROTTLED_RETRY_MS } : {}),
  });
}

function requireUsable(state: string | undefined): void {
  if (state === "Enabled") return;
  throw stateError(state);
}

function stateError(state: string | undefined): Error {
  if (state === "Disabled") return kimberliteError("master_key_disabled", "the KMS key is disabled");
  if (state === "PendingDeletion" || state === "PendingReplicaDeletion") {
    return kimberliteError("master_key_pending_deletion", "the KMS key is scheduled for deletion");
  }
  return unreachable("the KMS key is in no state to be used");
}

function unreachable(why: string, key?: string, reason?: string): Error {
  return kimberliteError("master_key_unreachable", why, { detail: { key, reason }, retryAfterMs: 1_000 });
}

/** As it stands in CloudTrail and in conditions of policies. */
function encryptionContext(context: KeyContext): Record<string, string> {
  return {
    "kimberlite:purpose": context.purpose,
    "kimberlite:tenant": context.tenant.toString(),
    "kimberlite:version": context.version.toString(),
  };
}

function parseUri(uri: string): {
  readonly arn: string;
  readonly region: string;
  readonly endpoint?: string;
} {
  const parts = /^awskms:\/\/([^/?]*)\/([^?]+)(?:\?(tls=(?:true|false)))?$/.exec(uri);
  const [, host = "", arn = "", tls] = parts ?? [];
  const region = ARN.exec(arn)?.[1];
  if (region === undefined || (host !== "" && !/^[A-Za-z0-9.-]+(?::\d{1,5})?$/.test(host))) {
    throw kimberliteError(
      "invalid_argument",
      "a KMS key is named as awskms:///arn:aws:kms:REGION:ACCOUNT:key/ID",
    );
  }
  if (host === "") return { arn, region };
  return { arn, region, endpoint: `${tls === "tls=false" ? "http" : "https"}://${host}` };
}
