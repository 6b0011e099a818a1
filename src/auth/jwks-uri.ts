/**
 * Which places keys may be fetched from. A tenant names the place, so it must not become a way into the network that the
 * node stands in: https alone, no credentials in it, and no address that is not public, unless the operator allows it.
 */
import { BlockList, isIP, isIPv6 } from "node:net";
import { kimberliteError } from "../errors.ts";

/** What the operator allows. */
export interface JwksPolicy {
  /** This machine itself, also without TLS: for development. */
  readonly allowLoopback: boolean;
  /** Addresses of private networks, for an identity provider beside the node. */
  readonly allowPrivateAddresses: boolean;
}

export const STRICT_JWKS_POLICY: JwksPolicy = { allowLoopback: false, allowPrivateAddresses: false };

const MAX_URI = 500;

const PRIVATE_RANGES = [
  "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24",
  "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4",
  "::/96 ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/32 2001:db8::/32 2002::/16 fc00::/7 fe80::/10",
  "fec0::/10 ff00::/8",
];

const notPublic = new BlockList();
for (const range of PRIVATE_RANGES.join(" ").split(" ")) {
  const [network = "", bits = ""] = range.split("/");
  notPublic.addSubnet(network, Number(bits), network.includes(":") ? "ipv6" : "ipv4");
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** @throws `invalid_argument`, which does not repeat the URI */
export function parseJwksUri(uri: unknown, policy: JwksPolicy): URL {
  const refuse = (why: string): Error => kimberliteError("invalid_argument", `jwksUri ${why}`);
  if (typeof uri !== "string" || uri.length > MAX_URI || !URL.canParse(uri)) throw refuse("is not a URL");
  const url = new URL(uri);
  const host = hostOf(url);
  const local = host === "localhost" || (isIP(host) !== 0 && isLoopback(host));
  const scheme = url.protocol === "https:" || (url.protocol === "http:" && local && policy.allowLoopback);
  if (!scheme) throw refuse("is not https");
  if (url.username !== "" || url.password !== "") throw refuse("has credentials in it");
  if (url.hash !== "") throw refuse("has a fragment");
  if (isIP(host) !== 0 && !mayConnect(host, url, policy)) throw refuse("names an address that is not public");
  return url;
}

/** The host without the brackets of an IPv6 address. */
function hostOf(url: URL): string {
  return url.hostname.startsWith("[") ? url.hostname.slice(1, -1) : url.hostname;
}

/** True if keys of `url` may be fetched from the address that its name leads to. */
export function mayConnect(address: string, url: URL, policy: JwksPolicy): boolean {
  if (policy.allowPrivateAddresses) return true;
  if (url.protocol === "http:") return policy.allowLoopback && isLoopback(address);
  if (policy.allowLoopback && isLoopback(address)) return true;
  return isIP(address) !== 0 && !notPublic.check(address, isIPv6(address) ? "ipv6" : "ipv4");
}

function isLoopback(address: string): boolean {
  return loopback.check(address, isIPv6(address) ? "ipv6" : "ipv4");
}
