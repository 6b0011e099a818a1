/**
 * An emulator of AWS KMS, for tests: the calls that Kimberlite makes, over HTTP as the official SDK makes them.
 *
 * It checks what the service documents: AWS Signature Version 4 of every request (canonical request, scope, signed
 * headers, clock), the JSON 1.1 protocol, encryption contexts as additional authenticated data, states of keys, and
 * shapes of errors. It is not AWS: nothing here shows how the real service behaves beyond its documents.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  randomBytes,
  randomUUID,
} from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface EmulatedKey {
  readonly arn: string;
  readonly material: Buffer;
  state: "Enabled" | "Disabled" | "PendingDeletion";
  spec: string;
}

type Body = Record<string, unknown>;

/** What a test may have the next calls do; cleared by the test. */
export interface Faults {
  /** Answer after so long. */
  delayMs?: number;
  /** Break the connection this many times. */
  resets?: number;
  /** Answer with this many internal errors. */
  internalErrors?: number;
  throttles?: number;
  denied?: boolean;
  /** What `Decrypt` gives in the place of the right plaintext. */
  plaintext?: (right: Buffer) => Buffer;
}

const ACCOUNT = "111122223333";
export const REGION = "eu-west-1";
export const CREDENTIALS = { accessKeyId: "AKIDEMULATED", secretAccessKey: "emulated/secret+key" };

class Refusal extends Error {
  readonly type: string;
  readonly status: number;

  constructor(type: string, message: string, status = 400) {
    super(message);
    this.type = type;
    this.status = status;
  }
}

export class AwsKmsEmulator implements AsyncDisposable {
  readonly faults: Faults = {};
  /** Every call that was let in: its operation and context. */
  readonly calls: { readonly operation: string; readonly body: Body }[] = [];
  readonly #keys: Map<string, EmulatedKey> = new Map();
  readonly #aliases: Map<string, string> = new Map();
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<AwsKmsEmulator> {
    const server = createServer();
    const emulator = new AwsKmsEmulator(server);
    server.on("request", (request, response) => void emulator.#serve(request, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return emulator;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  uriOf(arn: string): string {
    return `awskms://${this.host}/${arn}?tls=false`;
  }

  makeKey(spec = "SYMMETRIC_DEFAULT"): EmulatedKey {
    const arn = `arn:aws:kms:${REGION}:${ACCOUNT}:key/${randomUUID()}`;
    const key: EmulatedKey = { arn, material: randomBytes(32), state: "Enabled", spec };
    this.#keys.set(arn, key);
    return key;
  }

  alias(name: string, key: EmulatedKey): string {
    const arn = `arn:aws:kms:${REGION}:${ACCOUNT}:alias/${name}`;
    this.#aliases.set(arn, key.arn);
    return arn;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const bytes = Buffer.concat(chunks);
    const { faults } = this;
    if (faults.delayMs !== undefined) await new Promise((resolve) => setTimeout(resolve, faults.delayMs));
    if (takeOne(faults, "resets")) return void request.socket.destroy();
    try {
      requireSignature(request, bytes);
      if (takeOne(faults, "internalErrors")) throw new Refusal("KMSInternalException", "internal", 500);
      if (takeOne(faults, "throttles")) throw new Refusal("ThrottlingException", "Rate exceeded");
      if (faults.denied === true)
        throw new Refusal("AccessDeniedException", "not authorized to perform: kms:*");
      answer(response, 200, this.#run(request, JSON.parse(bytes.toString("utf8")) as Body));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      answer(response, error.status, { __type: error.type, message: error.message });
    }
  }

  #run(request: IncomingMessage, body: Body): Body {
    const operation = /^TrentService\.(\w+)$/.exec(String(request.headers["x-amz-target"]))?.[1] ?? "";
    if (request.headers["content-type"] !== "application/x-amz-json-1.1") {
      throw new Refusal("SerializationException", "not application/x-amz-json-1.1");
    }
    this.calls.push({ operation, body });
    switch (operation) {
      case "DescribeKey":
        return { KeyMetadata: metadata(this.#find(body)) };
      case "Encrypt":
        return this.#encrypt(body);
      case "Decrypt":
        return this.#decrypt(body);
      default:
        throw new Refusal("UnknownOperationException", operation);
    }
  }

  #encrypt(body: Body): Body {
    const key = usable(this.#find(body));
    const plaintext = Buffer.from(String(body["Plaintext"]), "base64");
    if (plaintext.length < 1 || plaintext.length > 4_096)
      throw new Refusal("ValidationException", "plaintext");
    const nonce = randomBytes(12);
    const cipher = createCipheriv("aes-256-gcm", key.material, nonce);
    cipher.setAAD(contextBytes(body));
    const sealed = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
    const id = Buffer.from(key.arn, "ascii");
    const blob = Buffer.concat([Buffer.of(id.length), id, nonce, sealed]);
    return {
      CiphertextBlob: blob.toString("base64"),
      KeyId: key.arn,
      EncryptionAlgorithm: "SYMMETRIC_DEFAULT",
    };
  }

  #decrypt(body: Body): Body {
    const blob = Buffer.from(String(body["CiphertextBlob"]), "base64");
    const end = 1 + (blob[0] ?? 0);
    const key = this.#keys.get(blob.toString("ascii", 1, end));
    if (key === undefined || blob.length < end + 28) throw new Refusal("InvalidCiphertextException", "");
    if (body["KeyId"] !== undefined && this.#find(body) !== key) {
      throw new Refusal("IncorrectKeyException", "The key ID in the request does not identify a CMK");
    }
    usable(key);
    const plaintext = unseal(key, blob.subarray(end), contextBytes(body));
    const given = this.faults.plaintext?.(plaintext) ?? plaintext;
    return { Plaintext: given.toString("base64"), KeyId: key.arn, EncryptionAlgorithm: "SYMMETRIC_DEFAULT" };
  }

  #find(body: Body): EmulatedKey {
    const id = String(body["KeyId"]);
    const key = this.#keys.get(this.#aliases.get(id) ?? id);
    if (key === undefined) throw new Refusal("NotFoundException", `Key '${id}' does not exist`);
    return key;
  }
}

function takeOne(faults: Faults, name: "resets" | "internalErrors" | "throttles"): boolean {
  const left = faults[name] ?? 0;
  if (left > 0) faults[name] = left - 1;
  return left > 0;
}

function usable(key: EmulatedKey): EmulatedKey {
  if (key.state === "Disabled") throw new Refusal("DisabledException", `${key.arn} is disabled.`);
  if (key.state === "PendingDeletion")
    throw new Refusal("KMSInvalidStateException", `${key.arn} is pending deletion.`);
  return key;
}

function metadata(key: EmulatedKey): Body {
  return {
    Arn: key.arn,
    KeyId: key.arn.split("/")[1],
    AWSAccountId: ACCOUNT,
    Enabled: key.state === "Enabled",
    KeyState: key.state,
    KeySpec: key.spec,
    KeyUsage: key.spec === "SYMMETRIC_DEFAULT" ? "ENCRYPT_DECRYPT" : "SIGN_VERIFY",
    KeyManager: "CUSTOMER",
    Origin: "AWS_KMS",
  };
}

function contextBytes(body: Body): Buffer {
  const context = Object.entries((body["EncryptionContext"] ?? {}) as Record<string, string>);
  return Buffer.from(JSON.stringify(context.sort(([a], [b]) => (a < b ? -1 : 1))));
}

function unseal(key: EmulatedKey, sealed: Buffer, aad: Buffer): Buffer {
  try {
    const decipher = createDecipheriv("aes-256-gcm", key.material, sealed.subarray(0, 12), {
      authTagLength: 16,
    });
    decipher.setAAD(aad);
    decipher.setAuthTag(sealed.subarray(-16));
    return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
  } catch {
    throw new Refusal("InvalidCiphertextException", "");
  }
}

function answer(response: ServerResponse, status: number, body: Body): void {
  response.writeHead(status, {
    "content-type": "application/x-amz-json-1.1",
    "x-amzn-requestid": randomUUID(),
  });
  response.end(JSON.stringify(body));
}

/** AWS Signature Version 4, checked from the request as it came. */
export function requireSignature(
  request: IncomingMessage,
  body: Buffer,
  service: { readonly name: string; readonly credentials: typeof CREDENTIALS } = {
    name: "kms",
    credentials: CREDENTIALS,
  },
): void {
  const header = String(request.headers.authorization ?? "");
  const parsed =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$/.exec(
      header,
    );
  if (parsed === null) throw new Refusal("MissingAuthenticationTokenException", "no signature", 403);
  const [, id, date, region, name, signedHeaders = "", signature] = parsed;
  const { credentials } = service;
  if (id !== credentials.accessKeyId) throw new Refusal("UnrecognizedClientException", "unknown key id", 403);
  const time = String(request.headers["x-amz-date"]);
  const skewMs = Math.abs(
    Date.now() - Date.parse(time.replace(/^(\d{4})(\d\d)(\d\dT\d\d)(\d\d)(\d\dZ)$/, "$1-$2-$3:$4:$5")),
  );
  if (name !== service.name || region !== REGION || !time.startsWith(date ?? "-") || !(skewMs < 300_000)) {
    throw new Refusal("InvalidSignatureException", "scope or time", 403);
  }
  const names = signedHeaders.split(";");
  if (!names.includes("host") || !names.includes("x-amz-date")) {
    throw new Refusal("InvalidSignatureException", "host and date are not signed", 403);
  }
  const url = new URL(request.url ?? "/", "http://host");
  const query = [...url.searchParams]
    .map(([key, value]) => `${encode(key)}=${encode(value)}`)
    .sort()
    .join("&");
  const headers = names.map(
    (each) => `${each}:${String(request.headers[each]).trim().replace(/ +/g, " ")}\n`,
  );
  const given = request.headers["x-amz-content-sha256"];
  const payload = given === undefined || /^[0-9a-f]{64}$/.test(String(given)) ? sha256(body) : String(given);
  if (given !== undefined && /^[0-9a-f]{64}$/.test(String(given)) && given !== payload) {
    throw new Refusal("InvalidSignatureException", "the payload's hash is not the body's", 403);
  }
  const canonical = [request.method, url.pathname, query, headers.join(""), signedHeaders, payload].join(
    "\n",
  );
  const scope = `${date}/${region}/${name}/aws4_request`;
  const toSign = ["AWS4-HMAC-SHA256", time, scope, sha256(Buffer.from(canonical))].join("\n");
  let key: Buffer = Buffer.from(`AWS4${credentials.secretAccessKey}`);
  for (const part of [date, region, name, "aws4_request"]) key = hmac(key, part ?? "");
  if (hmac(key, toSign).toString("hex") !== signature) {
    throw new Refusal("InvalidSignatureException", "The request signature we calculated does not match", 403);
  }
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
