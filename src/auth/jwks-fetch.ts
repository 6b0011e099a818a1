/**
 * Fetches an issuer's key set: one request, no redirect followed, a few seconds, some kilobytes, and to an address that
 * the policy allows. The name is looked up once, and the connection goes to the address that was checked.
 */
import { lookup } from "node:dns";
import type { LookupFunction } from "node:net";
import type { PublicJwk } from "./jwk.ts";
import { parseKeySet } from "./jwk.ts";
import { type JwksPolicy, mayConnect, parseJwksUri } from "./jwks-uri.ts";

/** Gives the usable keys at a place; rejects if they cannot be had. */
export type FetchKeys = (url: URL) => Promise<PublicJwk[]>;

const TIME_LIMIT_MS = 5_000;
const LIMIT_BYTES = 65_536;

/** @param ca PEM certificates that are trusted besides the system's */
export function keyFetcher(policy: JwksPolicy, ca?: string): FetchKeys {
  return async (url) => {
    // The policy may be stricter than when the place was registered, and an address is not looked up.
    parseJwksUri(url.href, policy);
    const keys = parseKeySet(JSON.parse(await fetchText(url, policy, ca)));
    if (keys === undefined) throw new Error("the answer is not a key set");
    return keys;
  };
}

async function fetchText(url: URL, policy: JwksPolicy, ca: string | undefined): Promise<string> {
  // Loading them takes a tenth of a second, and most processes fetch no keys.
  const { request: send } = await (url.protocol === "https:" ? import("node:https") : import("node:http"));
  const trusted = ca === undefined ? {} : { ca: [...(await import("node:tls")).rootCertificates, ca] };
  return new Promise((resolve, reject) => {
    const request = send(url, {
      agent: false,
      headers: { accept: "application/jwk-set+json, application/json", "user-agent": "kimberlite" },
      lookup: guardedLookup(url, policy),
      signal: AbortSignal.timeout(TIME_LIMIT_MS),
      ...trusted,
    });
    request.on("error", reject);
    request.on("response", (response) => {
      if (response.statusCode !== 200) {
        response.destroy(new Error(`the issuer answered with status ${response.statusCode}`));
      }
      const chunks: Buffer[] = [];
      let size = 0;
      response.on("data", (chunk: Buffer) => {
        size += chunk.length;
        if (size > LIMIT_BYTES) response.destroy(new Error("the key set is too large"));
        else chunks.push(chunk);
      });
      response.on("error", reject);
      response.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
    });
    request.end();
  });
}

/** A name that leads to any address which is not allowed leads nowhere. */
function guardedLookup(url: URL, policy: JwksPolicy): LookupFunction {
  return (hostname, options, done) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) return done(error, []);
      const refused = addresses.some(({ address }) => !mayConnect(address, url, policy));
      if (refused || addresses.length === 0) {
        return done(new Error("the name leads to an address that is not public"), []);
      }
      if (options.all === true) return done(null, addresses);
      const [first] = addresses;
      done(null, first?.address ?? "", first?.family);
    });
  };
}
