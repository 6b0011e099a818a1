/** PKCS#11 URIs (RFC 7512), as far as they name a key in a token and how to reach it. Pure. */
import { kimberliteError } from "../errors.ts";

/** Where a key is. At least one attribute of the token and one of the key is given. */
export interface Pkcs11Place {
  readonly modulePath: string;
  readonly token: string | undefined;
  readonly serial: string | undefined;
  readonly slotId: number | undefined;
  readonly object: string | undefined;
  readonly id: Buffer | undefined;
  /** `file:PATH` of a PIN, or undefined. */
  readonly pinSource: string | undefined;
  readonly pinValue: string | undefined;
}

const PATH_ATTRIBUTES = new Set([
  "token",
  "serial",
  "slot-id",
  "object",
  "id",
  "type",
  "manufacturer",
  "model",
]);
const QUERY_ATTRIBUTES = new Set(["module-path", "pin-source", "pin-value"]);
const ESCAPE = /%([0-9a-fA-F]{2})/g;

/**
 * Parses `pkcs11:token=…;object=…?module-path=…&pin-source=…`.
 *
 * @throws `invalid_argument` for another URI, an attribute that is unknown or given twice, or one that cannot be met here.
 */
export function parsePkcs11Uri(uri: string): Pkcs11Place {
  const parts = /^pkcs11:([^?#]*)(?:\?([^#]*))?$/.exec(uri);
  if (parts === null) throw invalid("it does not begin with pkcs11:");
  const path = attributes(parts[1] ?? "", ";", PATH_ATTRIBUTES);
  const query = attributes(parts[2] ?? "", "&", QUERY_ATTRIBUTES);
  const text = (from: Map<string, Buffer>, name: string): string | undefined =>
    from.get(name)?.toString("utf8");
  const type = text(path, "type") ?? "secret-key";
  const modulePath = text(query, "module-path");
  const slotId = text(path, "slot-id");
  if (modulePath === undefined || !modulePath.startsWith("/"))
    throw invalid("module-path is the path of the token's library");
  if (type !== "secret-key") throw invalid("the key is of type secret-key");
  if (slotId !== undefined && !/^\d{1,9}$/.test(slotId)) throw invalid("slot-id is a number");
  const place = {
    modulePath,
    token: text(path, "token"),
    serial: text(path, "serial"),
    slotId: slotId === undefined ? undefined : Number(slotId),
    object: text(path, "object"),
    id: path.get("id"),
    pinSource: text(query, "pin-source"),
    pinValue: text(query, "pin-value"),
  };
  if (place.token === undefined && place.serial === undefined && place.slotId === undefined) {
    throw invalid("it names no token: give token, serial or slot-id");
  }
  if (place.object === undefined && place.id === undefined)
    throw invalid("it names no key: give object or id");
  return place;
}

/** The URI without what opens the token. */
export function withoutPin(uri: string): string {
  return uri.replace(/([?&])pin-value=[^&]*&?/, "$1").replace(/[?&]$/, "");
}

function attributes(text: string, separator: string, known: ReadonlySet<string>): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const part of text === "" ? [] : text.split(separator)) {
    const at = part.indexOf("=");
    const name = part.slice(0, at);
    if (at < 1 || !known.has(name) || found.has(name))
      throw invalid("an attribute is unknown, or given twice");
    found.set(name, decode(part.slice(at + 1)));
  }
  return found;
}

/** Percent-encoded octets: a key's id is any bytes. */
function decode(value: string): Buffer {
  if (!/^(?:[A-Za-z0-9\-._~:[\]@!$'()*+,=/&?|]|%[0-9a-fA-F]{2})*$/.test(value))
    throw invalid("a value is not percent-encoded");
  const latin1 = value.replace(ESCAPE, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(latin1, "latin1");
}

function invalid(why: string): Error {
  return kimberliteError("invalid_argument", `not a PKCS#11 URI of a master key: ${why}`);
}
