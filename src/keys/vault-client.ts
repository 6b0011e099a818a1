/**
 * Calls to Vault or OpenBao: bounded in time and size, tried again where that may help, with a token that is kept alive.
 *
 * Kept: the token is sent to the one host that was named, over TLS unless the operator said otherwise, and is in no
 * error; a call ends within its time; what the server refuses is not tried again, but for a token that expired and can be
 * had anew.
 */
import { readFileSync } from "node:fs";
import { type ErrorCode, KimberliteError, kimberliteError } from "../errors.ts";
import { type Randomness, systemRandomness } from "../host/randomness.ts";

/** How the server is to be reached, and who is asking. */
export interface VaultOptions {
  readonly token?: string;
  /** File that holds a token; read again when the server refuses the one that is known, for an agent may renew it. */
  readonly tokenFile?: string;
  readonly appRole?: { readonly roleId: string; readonly secretId: string; readonly mount?: string };
  /** File of PEM certificates that sign the server's, beside the machine's own. */
  readonly caFile?: string;
  /** Longest time of one call with its retries, 5 s unless given. */
  readonly timeoutMs?: number;
}

export interface VaultPlace {
  readonly host: string;
  readonly port: number;
  readonly tls: boolean;
  readonly namespace: string | undefined;
}

/** An answer: its status and JSON, checked to be an object. */
export interface VaultAnswer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

interface Call {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly body?: Readonly<Record<string, unknown>>;
  /** True for what is asked before there is a token. */
  readonly anonymous?: boolean;
}

const DEFAULT_TIMEOUT_MS = 5_000;
const MAX_ANSWER_BYTES = 1024 * 1024;
const ATTEMPTS = 3;
const MAX_TIMER_MS = 2 ** 31 - 1;

export class VaultClient {
  readonly #place: VaultPlace;
  readonly #options: VaultOptions;
  readonly #ca: string | undefined;
  readonly #randomness: Randomness = systemRandomness();
  #token: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(place: VaultPlace, options: VaultOptions) {
    this.#place = place;
    this.#options = options;
    this.#ca = options.caFile === undefined ? undefined : readText(options.caFile);
  }

  /** Gets a token, if there is none yet, and keeps it alive. @throws as `call` */
  async begin(): Promise<void> {
    await this.#findToken();
    this.#renewLater(await this.call({ method: "GET", path: "auth/token/lookup-self" }, "ttl"));
  }

  /**
   * Makes a call, with the token.
   *
   * @throws `master_key_denied`, `master_key_missing` (404), `master_key_throttled`, `master_key_unreachable`,
   * `master_key_timeout`; an answer with status 400 is the caller's to read.
   */
  async call(call: Call, lifetime?: "ttl"): Promise<VaultAnswer> {
    const deadlineMs = performance.now() + (this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    let renewed = lifetime === "ttl";
    for (let attempt = 1; ; attempt += 1) {
      let answer: VaultAnswer | undefined;
      let failure: unknown;
      try {
        answer = await this.#send(call, deadlineMs);
      } catch (error) {
        if (error instanceof KimberliteError) throw error;
        failure = error;
      }
      if (answer !== undefined && (answer.status < 300 || answer.status === 400)) return answer;
      if (answer?.status === 403 && !renewed && (await this.#anotherToken())) {
        renewed = true;
        continue;
      }
      const again = answer === undefined || answer.status >= 500 || answer.status === 429;
      const pauseMs = 100 * 2 ** attempt * (0.5 + (this.#randomness.bytes(1)[0] as number) / 512);
      const late = performance.now() + pauseMs >= deadlineMs;
      if (!again || attempt >= ATTEMPTS || late) throw refusal(answer, failure);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#token = undefined;
  }

  async #findToken(): Promise<void> {
    const { token, tokenFile, appRole } = this.#options;
    if (tokenFile !== undefined) this.#token = readText(tokenFile).trim();
    else if (appRole !== undefined) await this.#logIn(appRole);
    else this.#token = token;
    if (this.#token === undefined || !/^[\x21-\x7e]+$/.test(this.#token)) {
      throw kimberliteError("master_key_denied", "there is no token for Vault");
    }
  }

  /** True if the refused token was replaced by another. */
  async #anotherToken(): Promise<boolean> {
    const { tokenFile, appRole } = this.#options;
    if (tokenFile === undefined && appRole === undefined) return false;
    const before = this.#token;
    await this.#findToken();
    return this.#token !== before;
  }

  async #logIn(role: NonNullable<VaultOptions["appRole"]>): Promise<void> {
    const { roleId, secretId, mount = "approle" } = role;
    const body = { role_id: roleId, secret_id: secretId };
    const answer = await this.call(
      { method: "POST", path: `auth/${mount}/login`, body, anonymous: true },
      "ttl",
    );
    const token = field(answer.body, "auth", "client_token");
    if (answer.status !== 200 || typeof token !== "string") {
      throw kimberliteError("master_key_denied", "Vault refused the AppRole");
    }
    this.#token = token;
  }

  /** At two thirds of its life the token is renewed; one that cannot be is replaced when it is refused. */
  #renewLater(answer: VaultAnswer): void {
    const ttl = field(answer.body, "data", "ttl") ?? field(answer.body, "auth", "lease_duration");
    const renewable = field(answer.body, "data", "renewable") ?? field(answer.body, "auth", "renewable");
    clearTimeout(this.#timer);
    if (this.#closed || typeof ttl !== "number" || ttl <= 0 || renewable !== true) return;
    this.#timer = setTimeout(() => void this.#renew(ttl), Math.min((ttl * 1_000 * 2) / 3, MAX_TIMER_MS));
    this.#timer.unref();
  }

  async #renew(ttl: number): Promise<void> {
    try {
      this.#renewLater(await this.call({ method: "POST", path: "auth/token/renew-self", body: {} }));
    } catch {
      // While the token lives it is tried again, and again sooner.
      this.#renewLater({ status: 200, body: { data: { ttl: ttl / 3, renewable: ttl > 1 } } });
    }
  }

  async #send(call: Call, deadlineMs: number): Promise<VaultAnswer> {
    const { host, port, tls, namespace } = this.#place;
    // Loading them takes a tenth of a second, and most processes have their master key elsewhere.
    const { request } = await (tls ? import("node:https") : import("node:http"));
    const leftMs = Math.max(1, Math.ceil(deadlineMs - performance.now()));
    const payload = call.body === undefined ? undefined : Buffer.from(JSON.stringify(call.body));
    const headers: Record<string, string> = { "x-vault-request": "true", accept: "application/json" };
    if (call.anonymous !== true && this.#token !== undefined) headers["x-vault-token"] = this.#token;
    if (namespace !== undefined) headers["x-vault-namespace"] = namespace;
    if (payload !== undefined) {
      headers["content-type"] = "application/json";
      headers["content-length"] = String(payload.length);
    }
    const options = { host, port, method: call.method, path: `/v1/${call.path}`, headers };
    return new Promise((resolve, reject) => {
      const trusted = tls && this.#ca !== undefined ? { ca: this.#ca } : {};
      const sent = request({ ...options, ...trusted });
      const timer = setTimeout(() => {
        reject(timedOut());
        sent.destroy();
      }, leftMs);
      sent.on("error", reject);
      sent.on("close", () => clearTimeout(timer));
      sent.on("response", (response) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > MAX_ANSWER_BYTES) sent.destroy(new Error("an answer of Vault is too large"));
          else chunks.push(chunk);
        });
        response.on("error", reject);
        response.on("end", () => {
          const body = parseBody(Buffer.concat(chunks));
          resolve({ status: response.statusCode ?? 0, body });
        });
      });
      sent.end(payload);
    });
  }
}

/** The value at a path of fields, if there is one. */
export function field(body: unknown, ...path: readonly string[]): unknown {
  let value = body;
  for (const name of path) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

/** What the server says of a refusal; it names paths and states, no secret. */
export function errorsOf(answer: VaultAnswer): string {
  const errors = field(answer.body, "errors");
  return Array.isArray(errors) ? errors.map(String).join("; ").slice(0, 300) : "";
}

function parseBody(bytes: Buffer): Readonly<Record<string, unknown>> {
  if (bytes.length === 0) return {};
  try {
    const parsed: unknown = JSON.parse(bytes.toString("utf8"));
    return typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

const BY_STATUS: Readonly<Record<number, readonly [ErrorCode, string]>> = {
  401: ["master_key_denied", "Vault does not accept the token"],
  403: ["master_key_denied", "Vault denies access to the key, or the token is not valid any more"],
  404: ["master_key_missing", "Vault has no such key or mount"],
  405: ["master_key_missing", "Vault has no such key or mount"],
  429: ["master_key_throttled", "Vault refuses more calls for now"],
};

function refusal(answer: VaultAnswer | undefined, cause: unknown): Error {
  if (answer === undefined) {
    return kimberliteError("master_key_unreachable", "Vault cannot be reached", {
      cause,
      retryAfterMs: 1_000,
    });
  }
  const [code, words] = BY_STATUS[answer.status] ?? [
    "master_key_unreachable" as const,
    /sealed/i.test(errorsOf(answer)) ? "Vault is sealed: unseal it" : "Vault failed, or is on standby",
  ];
  const detail = { status: answer.status };
  return kimberliteError(code, words, {
    detail,
    ...(answer.status >= 429 ? { retryAfterMs: 1_000 } : {}),
  });
}

function timedOut(): Error {
  return kimberliteError("master_key_timeout", "Vault did not answer in time", { retryAfterMs: 1_000 });
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw kimberliteError("master_key_denied", "a file with credentials for Vault cannot be read", { cause });
  }
}
