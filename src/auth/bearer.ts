/** The credential that a request carries (RFC 6750 §2.1). Only the header counts: an address ends up in logs. */

/** The token after `Bearer`, or undefined if there is none; what it is worth is for authentication to say. */
export function bearerOf(authorization: string | undefined): string | undefined {
  return /^Bearer +([\x21-\x7e]+) *$/i.exec(authorization ?? "")?.[1];
}
