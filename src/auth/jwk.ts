/**
 * Public keys as JSON Web Keys (RFC 7517): only those that sign with what is allowed here, and never a private or a
 * symmetric one.
 */
import { createPublicKey, type JsonWebKey } from "node:crypto";
import { kimberliteError } from "../errors.ts";

/** The algorithms that a token may be signed with. No `none`, and nothing symmetric: a public key is no secret. */
export const ALGORITHMS: readonly string[] = ["EdDSA", "Ed25519", "ES256", "RS256"];

/** A public key: `kty` OKP with Ed25519, EC with P-256, or RSA. */
export interface PublicJwk {
  readonly kty: string;
  readonly kid?: string;
  readonly alg?: string;
  readonly use?: string;
  readonly crv?: string;
  readonly x?: string;
  readonly y?: string;
  readonly n?: string;
  readonly e?: string;
}

const FIELDS = ["kty", "kid", "alg", "use", "crv", "x", "y", "n", "e"] as const;
const MAX_STATIC_KEYS = 16;
const MAX_REMOTE_KEYS = 64;
const MAX_FIELD = 2_000;
const MIN_RSA_BITS = 2_048;
const MAX_RSA_BITS = 8_192;

/** Keys that a caller registers: each must be usable. @throws `invalid_argument` */
export function parseStaticKeys(keys: unknown): readonly PublicJwk[] {
  if (!Array.isArray(keys) || keys.length === 0 || keys.length > MAX_STATIC_KEYS) {
    throw kimberliteError("invalid_argument", `keys are 1 to ${MAX_STATIC_KEYS} public JSON Web Keys`);
  }
  return Object.freeze(keys.map(parseStaticKey));
}

/** The usable keys of a set that an issuer publishes; undefined if it is no set. What it holds besides is left out. */
export function parseKeySet(set: unknown): PublicJwk[] | undefined {
  if (typeof set !== "object" || set === null) return undefined;
  const { keys } = set as { readonly keys?: unknown };
  if (!Array.isArray(keys) || keys.length > MAX_REMOTE_KEYS) return undefined;
  return keys.flatMap((key) => toPublicKey(key) ?? []);
}

function parseStaticKey(key: unknown): PublicJwk {
  if (typeof key === "object" && key !== null && ("d" in key || "k" in key)) {
    throw kimberliteError(
      "invalid_argument",
      "a private or symmetric key was given; register the public key",
    );
  }
  const known = toPublicKey(key);
  if (known !== undefined) return known;
  throw kimberliteError(
    "invalid_argument",
    "a key is not a public Ed25519 or P-256 key, nor one of RSA with 2,048 to 8,192 bits",
  );
}

function toPublicKey(key: unknown): PublicJwk | undefined {
  if (typeof key !== "object" || key === null || "d" in key || "k" in key) return undefined;
  const given = key as Record<string, unknown>;
  const present = FIELDS.filter((field) => given[field] !== undefined);
  const sound = present.every((field) => {
    const value = given[field];
    return typeof value === "string" && value.length <= MAX_FIELD;
  });
  if (!sound) return undefined;
  const jwk = Object.fromEntries(present.map((field) => [field, given[field]])) as unknown as PublicJwk;
  return isUsable(jwk) ? Object.freeze(jwk) : undefined;
}

function isUsable(jwk: PublicJwk): boolean {
  if (jwk.use !== undefined && jwk.use !== "sig") return false;
  if (jwk.alg !== undefined && !ALGORITHMS.includes(jwk.alg)) return false;
  try {
    const { asymmetricKeyType: type, asymmetricKeyDetails: details } = createPublicKey({
      key: jwk as JsonWebKey,
      format: "jwk",
    });
    if (type === "rsa") {
      const bits = details?.modulusLength ?? 0;
      return bits >= MIN_RSA_BITS && bits <= MAX_RSA_BITS;
    }
    return type === "ed25519" || (type === "ec" && details?.namedCurve === "prime256v1");
  } catch {
    return false;
  }
}
