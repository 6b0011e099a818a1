/** Keys and tokens as identity providers and attackers make them, on real key pairs. */
import { type CryptoKey, exportJWK, generateKeyPair, SignJWT } from "jose";
import type { IssuerConfig, PublicJwk, RequestOrigin } from "../../src/index.ts";

export const ORIGIN: RequestOrigin = { remoteAddress: "192.0.2.7", requestId: "r1" };
export const AUDIENCE = "kimberlite-test";

/** Somebody who signs tokens. */
export interface Signer {
  readonly issuer: string;
  readonly algorithm: string;
  readonly kid: string;
  readonly privateKey: CryptoKey;
  readonly publicJwk: PublicJwk;
}

export async function makeSigner(issuer: string, algorithm = "EdDSA", kid = "k1"): Promise<Signer> {
  const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true });
  const publicJwk = { ...(await exportJWK(publicKey)), kid, alg: algorithm } as PublicJwk;
  return { issuer, algorithm, kid, privateKey, publicJwk };
}

export function issuerOf(signer: Signer, more: Partial<IssuerConfig> = {}): IssuerConfig {
  return { issuer: signer.issuer, audience: AUDIENCE, keys: [signer.publicJwk], ...more };
}

/** Claims of a good token for tenant 1, with changes; `undefined` leaves one out. */
export interface Changes {
  readonly claims?: Readonly<Record<string, unknown>>;
  readonly header?: Readonly<Record<string, unknown>>;
}

export function sign(
  signer: Signer,
  nowUs: bigint,
  { claims = {}, header = {} }: Changes = {},
): Promise<string> {
  const nowS = Number(nowUs / 1_000_000n);
  const all = {
    iss: signer.issuer,
    aud: AUDIENCE,
    sub: "alice",
    exp: nowS + 300,
    kimberlite_tenant: "1",
    kimberlite_role: "writer",
    ...claims,
  };
  const given = Object.entries(all).filter(([, value]) => value !== undefined);
  return new SignJWT(Object.fromEntries(given))
    .setProtectedHeader({ alg: signer.algorithm, kid: signer.kid, ...header })
    .sign(signer.privateKey);
}

/** A token of three parts that nobody signed as `sign` does. */
export function forge(header: unknown, payload: unknown, signature: string | Buffer = ""): string {
  const encode = (part: unknown): string => Buffer.from(JSON.stringify(part)).toString("base64url");
  return `${encode(header)}.${encode(payload)}.${Buffer.from(signature).toString("base64url")}`;
}
