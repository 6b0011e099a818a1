/**
 * An emulator of Vault's (and OpenBao's) Transit engine, for tests: the calls that Kimberlite makes, with statuses and
 * errors as their documents give them. It checks tokens, their lives, namespaces and policies, and binds associated data
 * as the real engine does. It is not Vault.
 */
import { createCipheriv, createDecipheriv, randomBytes, randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

type Body = Record<string, unknown>;

interface TransitKey {
  readonly type: string;
  readonly versions: Buffer[];
  readonly derived: boolean;
}

interface Token {
  expiresAtMs: number;
  readonly ttl: number;
}

export interface VaultFaults {
  delayMs?: number;
  resets?: number;
  internalErrors?: number;
  throttles?: number;
  denied?: boolean;
  sealed?: boolean;
  standby?: boolean;
  plaintext?: (right: Buffer) => Buffer;
}

class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export const MOUNT = "transit";
export const NAMESPACE = "team/a";

export class VaultEmulator implements AsyncDisposable {
  readonly faults: VaultFaults = {};
  readonly calls: string[] = [];
  readonly appRole: { readonly roleId: string; readonly secretId: string } = {
    roleId: randomUUID(),
    secretId: randomUUID(),
  };
  readonly #tokens: Map<string, Token> = new Map();
  readonly #keys: Map<string, TransitKey> = new Map();
  readonly #cluster = randomUUID();
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<VaultEmulator> {
    const server = createServer();
    const emulator = new VaultEmulator(server);
    server.on("request", (request, response) => void emulator.#serve(request, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return emulator;
  }

  uriOf(name: string, parameters = ""): string {
    const { port } = this.#server.address() as AddressInfo;
    return `vault://127.0.0.1:${port}/${MOUNT}/keys/${name}?tls=false${parameters}`;
  }

  makeKey(
    name: string,
    options: { readonly type?: string; readonly derived?: boolean; readonly namespace?: string } = {},
  ): void {
    const { type = "aes256-gcm96", derived = false, namespace = "" } = options;
    this.#keys.set(`${namespace}/${name}`, { type, derived, versions: [randomBytes(32)] });
  }

  rotateKey(name: string): void {
    this.#keys.get(`/${name}`)?.versions.push(randomBytes(32));
  }

  /** @param ttl seconds */
  makeToken(ttl = 3_600): string {
    const token = `hvs.${randomBytes(16).toString("hex")}`;
    this.#tokens.set(token, { ttl, expiresAtMs: Date.now() + ttl * 1_000 });
    return token;
  }

  revoke(token: string): void {
    this.#tokens.delete(token);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const { faults } = this;
    if (faults.delayMs !== undefined) await new Promise((resolve) => setTimeout(resolve, faults.delayMs));
    if (takeOne(faults, "resets")) return void request.socket.destroy();
    try {
      const text = Buffer.concat(chunks).toString("utf8");
      answer(response, 200, this.#run(request, text === "" ? {} : (JSON.parse(text) as Body)));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      answer(response, error.status, { errors: [error.message] });
    }
  }

  #run(request: IncomingMessage, body: Body): Body {
    const { faults } = this;
    const path = (request.url ?? "").replace(/^\/v1\//, "").replace(/\?.*$/, "");
    this.calls.push(`${request.method} ${path}`);
    if (faults.sealed === true) throw new Refusal(503, "Vault is sealed");
    if (faults.standby === true) throw new Refusal(503, "node is standby, active node unavailable");
    if (takeOne(faults, "internalErrors")) throw new Refusal(500, "internal error");
    if (takeOne(faults, "throttles")) throw new Refusal(429, "request path: rate limit quota exceeded");
    if (path === "sys/health") return { initialized: true, sealed: false, cluster_id: this.#cluster };
    if (path === "auth/approle/login") return this.#logIn(body);
    const token = this.#authenticate(request);
    if (path === "auth/token/lookup-self") return { data: { ttl: token.ttl, renewable: true } };
    if (path === "auth/token/renew-self") {
      token.expiresAtMs = Date.now() + token.ttl * 1_000;
      return { auth: { lease_duration: token.ttl, renewable: true } };
    }
    if (faults.denied === true) throw new Refusal(403, "1 error occurred:\n\t* permission denied\n\n");
    return { data: this.#transit(path, body, String(request.headers["x-vault-namespace"] ?? "")) };
  }

  #logIn(body: Body): Body {
    const { roleId, secretId } = this.appRole;
    if (body["role_id"] !== roleId || body["secret_id"] !== secretId)
      throw new Refusal(400, "invalid role or secret ID");
    return { auth: { client_token: this.makeToken(), lease_duration: 3_600, renewable: true } };
  }

  #authenticate(request: IncomingMessage): Token {
    if (request.headers["x-vault-request"] !== "true") throw new Refusal(412, "required header is missing");
    const token = this.#tokens.get(String(request.headers["x-vault-token"] ?? ""));
    if (token === undefined || token.expiresAtMs < Date.now()) throw new Refusal(403, "permission denied");
    return token;
  }

  #transit(path: string, body: Body, namespace: string): Body {
    const [mount, operation, name] = path.split("/");
    const key = mount === MOUNT ? this.#keys.get(`${namespace}/${name}`) : undefined;
    if (key === undefined) throw new Refusal(operation === "keys" ? 404 : 400, "encryption key not found");
    if (operation === "keys") {
      const versions = key.versions.map((_, index) => [String(index + 1), 1_700_000_000 + index]);
      return {
        type: key.type,
        derived: key.derived,
        keys: Object.fromEntries(versions),
        latest_version: versions.length,
      };
    }
    if (operation === "encrypt") return { ciphertext: seal(key, body), key_version: key.versions.length };
    if (operation === "rewrap") {
      throw new Refusal(400, "associated_data is not supported in rewrap");
    }
    const plaintext = unseal(key, body);
    return { plaintext: (this.faults.plaintext?.(plaintext) ?? plaintext).toString("base64") };
  }
}

function takeOne(faults: VaultFaults, name: "resets" | "internalErrors" | "throttles"): boolean {
  const left = faults[name] ?? 0;
  if (left > 0) faults[name] = left - 1;
  return left > 0;
}

function seal(key: TransitKey, body: Body): string {
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", key.versions.at(-1) as Buffer, nonce);
  cipher.setAAD(associatedData(body));
  const plaintext = Buffer.from(String(body["plaintext"]), "base64");
  const sealed = Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
  return `vault:v${key.versions.length}:${sealed.toString("base64")}`;
}

function unseal(key: TransitKey, body: Body): Buffer {
  const [, version, base64 = ""] = /^vault:v(\d+):(.*)$/.exec(String(body["ciphertext"])) ?? [];
  if (version === undefined) throw new Refusal(400, "invalid ciphertext: no prefix");
  const material = key.versions[Number(version) - 1];
  const sealed = Buffer.from(base64, "base64");
  if (material === undefined || sealed.length < 28)
    throw new Refusal(400, "invalid ciphertext: version is too new");
  try {
    const decipher = createDecipheriv("aes-256-gcm", material, sealed.subarray(0, 12), { authTagLength: 16 });
    decipher.setAAD(associatedData(body));
    decipher.setAuthTag(sealed.subarray(-16));
    return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
  } catch {
    throw new Refusal(400, "cipher: message authentication failed");
  }
}

function answer(response: ServerResponse, status: number, body: Body): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ request_id: randomUUID(), ...body }));
}

function associatedData(body: Body): Buffer {
  const given = body["associated_data"];
  return Buffer.from(typeof given === "string" ? given : "", "base64");
}
