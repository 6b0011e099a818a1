/**
 * A master key in the Transit engine of HashiCorp Vault or OpenBao: KEKs are encrypted and decrypted by calls to it.
 *
 * Each call carries tenant, purpose and version as associated data, which the key authenticates; what is encrypted
 * carries a proof of the same inside. New versions of the key in Vault need nothing here: Vault finds the version in the
 * ciphertext. Transit's own `rewrap` is not used, because it does not take associated data everywhere: what is to go
 * under a newer version is decrypted and encrypted again, as a rotation of the master key to the same key does.
 */
import { assert, kimberliteError } from "../errors.ts";
import { bindKey, fromStoredForm, openBoundKey, storedForm, wrongKey } from "./bound-key.ts";
import { encodeKeyContext, type KeyContext, type MasterKeyProvider } from "./master-key.ts";
import { errorsOf, field, VaultClient, type VaultOptions, type VaultPlace } from "./vault-client.ts";

/** Types of keys that authenticate associated data. */
const TYPES: ReadonlySet<unknown> = new Set([
  "aes256-gcm96",
  "aes128-gcm96",
  "chacha20-poly1305",
  "xchacha20-poly1305",
]);

interface TransitKey extends VaultPlace {
  readonly mount: string;
  readonly name: string;
}

/**
 * Opens the key that `vault://HOST:PORT/MOUNT/keys/NAME` (or `openbao://…`) names; `?namespace=NS` for a namespace
 * (else `VAULT_NAMESPACE`), `?tls=false` for a server without TLS. Credentials are in `options`, else in the environment: `VAULT_TOKEN`, or
 * `VAULT_ROLE_ID` with `VAULT_SECRET_ID`, and `VAULT_CACERT`; `BAO_…` likewise. Costs three calls.
 *
 * @throws `invalid_argument` for another URI; `master_key_invalid` for a key of another type; `master_key_missing`,
 * `master_key_denied`, `master_key_throttled`, `master_key_timeout`, `master_key_unreachable` (also when it is sealed), as
 * each later use does.
 */
export async function vaultTransit(uri: string, options: VaultOptions = {}): Promise<MasterKeyProvider> {
  const named = parseUri(uri);
  const key = { ...named, namespace: named.namespace ?? fromVault("NAMESPACE") };
  const client = new VaultClient(key, { ...fromEnvironment(process.env), ...options });
  try {
    await client.begin();
    const keyId = await describe(client, key);
    return new VaultTransit({ uri, keyId, key, client });
  } catch (error) {
    client.close();
    throw error;
  }
}

class VaultTransit implements MasterKeyProvider {
  readonly uri: string;
  readonly keyId: string;
  readonly #key: TransitKey;
  readonly #client: VaultClient;
  #closed = false;

  constructor(parts: {
    readonly uri: string;
    readonly keyId: string;
    readonly key: TransitKey;
    readonly client: VaultClient;
  }) {
    this.uri = parts.uri;
    this.keyId = parts.keyId;
    this.#key = parts.key;
    this.#client = parts.client;
  }

  async wrap(key: Buffer, context: KeyContext): Promise<Uint8Array> {
    const plaintext = bindKey(key, context);
    try {
      const answer = await this.#call("encrypt", { plaintext: plaintext.toString("base64") }, context);
      const ciphertext = field(answer.body, "data", "ciphertext");
      if (answer.status === 400) throw refused("Vault does not encrypt with this key", errorsOf(answer));
      if (typeof ciphertext !== "string" || !/^vault:v\d+:/.test(ciphertext)) {
        throw refused("Vault answered without a ciphertext");
      }
      return storedForm(Buffer.from(ciphertext, "ascii"));
    } finally {
      plaintext.fill(0);
    }
  }

  async unwrap(wrapped: Uint8Array, context: KeyContext): Promise<Buffer> {
    const ciphertext = fromStoredForm(wrapped, context).toString("latin1");
    if (!isCanonical(ciphertext)) throw wrongKey(context);
    const answer = await this.#call("decrypt", { ciphertext }, context);
    const encoded = field(answer.body, "data", "plaintext");
    if (answer.status === 400 || typeof encoded !== "string") throw wrongKey(context);
    const plaintext = Buffer.from(encoded, "base64");
    try {
      return openBoundKey(plaintext, context);
    } finally {
      plaintext.fill(0);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#client.close();
  }

  #call(
    operation: "encrypt" | "decrypt",
    given: Readonly<Record<string, string>>,
    context: KeyContext,
  ): ReturnType<VaultClient["call"]> {
    assert(!this.#closed, "a master key is not used after it was closed");
    const body = { ...given, associated_data: encodeKeyContext(context).toString("base64") };
    return this.#client.call({
      method: "POST",
      path: `${this.#key.mount}/${operation}/${this.#key.name}`,
      body,
    });
  }
}

/** The key's id, if it is one that can be used: of this cluster and namespace, for names are. */
async function describe(client: VaultClient, { mount, name, namespace }: TransitKey): Promise<string> {
  const answer = await client.call({ method: "GET", path: `${mount}/keys/${name}` });
  const data = field(answer.body, "data");
  if (answer.status !== 200 || !TYPES.has(field(data, "type")) || field(data, "derived") === true) {
    throw kimberliteError("master_key_invalid", "the Transit key is not an AEAD key without derivation");
  }
  if (field(data, "soft_deleted") === true) {
    throw kimberliteError("master_key_pending_deletion", "the Transit key is deleted; restore it");
  }
  const health = await client.call({ method: "GET", path: "sys/health?standbyok=true", anonymous: true });
  const cluster = field(health.body, "cluster_id");
  return `vault:${typeof cluster === "string" ? cluster : "unknown"}/${namespace ?? ""}/${mount}/${name}`;
}

/** Base64 has several texts for some bytes; only the one that Vault writes is what it gave. */
function isCanonical(ciphertext: string): boolean {
  const [, base64 = ""] = /^vault:v[1-9]\d{0,8}:([A-Za-z0-9+/]+={0,2})$/.exec(ciphertext) ?? [];
  return base64 !== "" && Buffer.from(base64, "base64").toString("base64") === base64;
}

function refused(words: string, reason?: string): Error {
  return kimberliteError("master_key_invalid", words, { detail: { reason } });
}

function parseUri(uri: string): TransitKey {
  const pattern =
    /^(?:vault|openbao):\/\/([A-Za-z0-9.-]+)(?::(\d{1,5}))?\/([A-Za-z0-9/_.-]+)\/keys\/([A-Za-z0-9_.-]+)(?:\?(.*))?$/;
  const [, host, port = "8200", mount, name, query = ""] = pattern.exec(uri) ?? [];
  const parameters = new URLSearchParams(query);
  const known = [...parameters.keys()].every((key) => key === "namespace" || key === "tls");
  const tls = parameters.get("tls") ?? "true";
  if (
    host === undefined ||
    mount === undefined ||
    name === undefined ||
    !known ||
    !/^(true|false)$/.test(tls)
  ) {
    throw kimberliteError("invalid_argument", "a Transit key is named as vault://HOST:PORT/MOUNT/keys/NAME");
  }
  const namespace = parameters.get("namespace") ?? undefined;
  return { host, port: Number(port), mount, name, tls: tls === "true", namespace };
}

function fromVault(name: string, env: NodeJS.ProcessEnv = process.env): string | undefined {
  return env[`VAULT_${name}`] ?? env[`BAO_${name}`];
}

function fromEnvironment(env: NodeJS.ProcessEnv): VaultOptions {
  const read = (name: string): string | undefined => fromVault(name, env);
  const [token, tokenFile, caFile] = [read("TOKEN"), read("TOKEN_FILE"), read("CACERT")];
  const [roleId, secretId] = [read("ROLE_ID"), read("SECRET_ID")];
  return {
    ...(token === undefined ? {} : { token }),
    ...(tokenFile === undefined ? {} : { tokenFile }),
    ...(caFile === undefined ? {} : { caFile }),
    ...(roleId === undefined || secretId === undefined ? {} : { appRole: { roleId, secretId } }),
  };
}
