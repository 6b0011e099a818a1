/**
 * Signed notes (C2SP `signed-note`): text with Ed25519 signatures that anyone can check who has the verifier key.
 *
 * Invariants: text is handed out as verified only after a signature of a given key verified over exactly its UTF-8
 * bytes; one bad signature of a given key refuses the whole note; signatures of other keys are ignored; a note is
 * limited in size and in signatures before anything of it is decoded; base64 is taken in its one canonical form.
 */
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import { kimberliteError } from "../errors.ts";

/** Most bytes of a note, signatures included. */
export const MAX_NOTE_BYTES = 1_000_000;
/** Most signatures of a note. */
export const MAX_NOTE_SIGNATURES = 100;

/** One signature line. Key name and key id together say which key made it. */
export interface NoteSignature {
  readonly keyName: string;
  /** An identifier of 32 bits, not a secure hash of the key. */
  readonly keyId: number;
  /** What the key's algorithm gave; 64 bytes for Ed25519. Unverified until `openNote` returned it. */
  readonly signature: Uint8Array;
}

/** A note's parts. */
export interface SignedNote {
  /** What is signed, with its final newline and without the blank line after it. */
  readonly text: string;
  readonly signatures: readonly NoteSignature[];
}

/** A key that checks notes. */
export interface VerifierKey {
  readonly keyName: string;
  readonly keyId: number;
  /** Ed25519. */
  readonly publicKey: KeyObject;
}

/** A key that signs notes. */
export interface NoteSigner {
  /** Not empty, without spaces and `+`; by advice a URL without a scheme, such as `example.com/log`. */
  readonly keyName: string;
  /** Ed25519. */
  readonly privateKey: KeyObject;
}

const ALGORITHM_ED25519 = 0x01;
const KEY_ID_BYTES = 4;
const SIGNATURE_LINE_START = "\u2014 ";
const RAW_KEY_BYTES = 32;
/** DER of RFC 8410 up to the 32 bytes of the key, for which Node has no raw form. */
const SPKI_START = Buffer.from("302a300506032b6570032100", "hex");
const PKCS8_START = Buffer.from("302e020100300506032b657004220420", "hex");

/**
 * The Ed25519 public key of 32 bytes (RFC 8032 §5.1.5).
 *
 * @throws `invalid_argument` for another length.
 */
export function importPublicKey(raw: Uint8Array): KeyObject {
  if (raw.length !== RAW_KEY_BYTES) throw invalidArgument("an Ed25519 public key is 32 bytes");
  return createPublicKey({ key: Buffer.concat([SPKI_START, raw]), format: "der", type: "spki" });
}

/**
 * The 32 bytes of an Ed25519 public key, also from the private key.
 *
 * @throws `invalid_argument` for another kind of key.
 */
export function exportPublicKey(key: KeyObject): Buffer {
  requireEd25519(key);
  const publicKey = key.type === "private" ? createPublicKey(key) : key;
  return publicKey.export({ format: "der", type: "spki" }).subarray(SPKI_START.length);
}

/**
 * The Ed25519 private key of a 32-byte seed (RFC 8032 §5.1.5). The caller zeroes the seed.
 *
 * @throws `invalid_argument` for another length.
 */
export function importPrivateKey(seed: Uint8Array): KeyObject {
  if (seed.length !== RAW_KEY_BYTES) throw invalidArgument("an Ed25519 seed is 32 bytes");
  const der = Buffer.concat([PKCS8_START, seed]);
  try {
    return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  } finally {
    der.fill(0);
  }
}

/**
 * The 32-byte seed of an Ed25519 private key, in memory of its own that the caller zeroes after use.
 *
 * @throws `invalid_argument` for another kind of key.
 */
export function exportPrivateKey(key: KeyObject): Buffer {
  requireEd25519(key);
  if (key.type !== "private") throw invalidArgument("a public key has no seed");
  const der = key.export({ format: "der", type: "pkcs8" });
  const seed = Buffer.alloc(RAW_KEY_BYTES);
  der.copy(seed, 0, PKCS8_START.length);
  der.fill(0);
  return seed;
}

function requireEd25519(key: KeyObject): void {
  if (key.asymmetricKeyType !== "ed25519") throw invalidArgument("notes are signed with Ed25519 keys");
}

/**
 * The verifier key of a name and an Ed25519 key, of which the public half is used.
 *
 * @throws `invalid_argument` for a name that notes cannot carry, or another kind of key.
 */
export function verifierKey(keyName: string, key: KeyObject): VerifierKey {
  requireKeyName(keyName, invalidArgument);
  const raw = exportPublicKey(key);
  return { keyName, keyId: keyIdOf(keyName, raw), publicKey: importPublicKey(raw) };
}

/** The text form of a verifier key: `name+hex8+base64(0x01 ‖ public key)`. */
export function formatVerifierKey(key: VerifierKey): string {
  const encoded = Buffer.concat([Uint8Array.of(ALGORITHM_ED25519), exportPublicKey(key.publicKey)]);
  return `${key.keyName}+${key.keyId.toString(16).padStart(8, "0")}+${encoded.toString("base64")}`;
}

/**
 * Parses the text form of a verifier key.
 *
 * @throws `invalid_argument` for another form, another algorithm than Ed25519, or a key id that is not the key's.
 */
export function parseVerifierKey(text: string): VerifierKey {
  const [, keyName, keyIdHex, base64] = /^([^+]*)\+([0-9a-fA-F]{8})\+(.*)$/s.exec(text) ?? [];
  if (keyName === undefined || keyIdHex === undefined || base64 === undefined) {
    throw invalidArgument("a verifier key is name+id+key");
  }
  const encoded = decodeBase64(base64, invalidArgument);
  if (encoded[0] !== ALGORITHM_ED25519) throw invalidArgument("a verifier key is an Ed25519 key");
  const key = verifierKey(keyName, importPublicKey(encoded.subarray(1)));
  if (key.keyId !== Number.parseInt(keyIdHex, 16))
    throw invalidArgument("the verifier key's id is not its own");
  return key;
}

/**
 * Signs a text with each of the keys, in order, and gives the note.
 *
 * @throws `invalid_argument` if the text does not end in a newline, has other control characters or a lone
 * surrogate, or the note would exceed a limit.
 */
export function signNote(text: string, signers: readonly NoteSigner[]): string {
  requireText(text, invalidArgument);
  const bytes = Buffer.from(text);
  const signatures = signers.map(({ keyName, privateKey }) => {
    const { keyId } = verifierKey(keyName, privateKey);
    if (privateKey.type !== "private") throw invalidArgument("a note is signed with a private key");
    return { keyName, keyId, signature: sign(null, bytes, privateKey) };
  });
  return formatNote({ text, signatures });
}

/**
 * Writes a note. It does not look at whether the signatures verify.
 *
 * @throws `invalid_argument` if `parseNote` would refuse the note or read other parts from it.
 */
export function formatNote({ text, signatures }: SignedNote): string {
  requireText(text, invalidArgument);
  if (signatures.length === 0) throw invalidArgument("a note has at least one signature");
  if (signatures.length > MAX_NOTE_SIGNATURES) throw invalidArgument("a note has too many signatures");
  const note = `${text}\n${signatures.map(formatSignature).join("")}`;
  if (Buffer.byteLength(note) > MAX_NOTE_BYTES) throw invalidArgument("a note is too long");
  return note;
}

function formatSignature({ keyName, keyId, signature }: NoteSignature): string {
  requireKeyName(keyName, invalidArgument);
  if (signature.length === 0) throw invalidArgument("a note's signature is not empty");
  const encoded = Buffer.alloc(KEY_ID_BYTES + signature.length);
  encoded.writeUInt32BE(keyId);
  encoded.set(signature, KEY_ID_BYTES);
  return `${SIGNATURE_LINE_START}${keyName} ${encoded.toString("base64")}\n`;
}

/**
 * Takes a note apart. **Nothing of it is verified**; use `openNote` unless only the form matters.
 *
 * @throws `signature_invalid` if it is not a signed note, or exceeds a limit of size or number.
 */
export function parseNote(note: string | Uint8Array): SignedNote {
  const whole = decodeNote(note);
  requireText(whole, notSigned);
  const separator = whole.lastIndexOf("\n\n");
  if (separator < 0) throw notSigned("it has no signatures");
  const lines = whole.slice(separator + 2, -1).split("\n");
  if (lines.length > MAX_NOTE_SIGNATURES) throw notSigned("it has too many signatures");
  return { text: whole.slice(0, separator + 1), signatures: lines.map(parseSignature) };
}

function decodeNote(note: string | Uint8Array): string {
  const length = typeof note === "string" ? Buffer.byteLength(note) : note.length;
  if (length > MAX_NOTE_BYTES) throw notSigned("it is too long");
  if (typeof note === "string") return note;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(note);
  } catch (cause) {
    throw kimberliteError("signature_invalid", "the note is not UTF-8", { cause });
  }
}

function parseSignature(line: string): NoteSignature {
  if (!line.startsWith(SIGNATURE_LINE_START)) throw notSigned("a signature line has another form");
  const [keyName, base64, ...more] = line.slice(SIGNATURE_LINE_START.length).split(" ");
  if (keyName === undefined || base64 === undefined || more.length > 0) {
    throw notSigned("a signature line has another form");
  }
  requireKeyName(keyName, notSigned);
  const encoded = decodeBase64(base64, notSigned);
  if (encoded.length <= KEY_ID_BYTES) throw notSigned("a signature is too short");
  return { keyName, keyId: encoded.readUInt32BE(), signature: encoded.subarray(KEY_ID_BYTES) };
}

/**
 * Opens a note with the keys that the caller trusts: its text, and the signatures of these keys, one a key. Other
 * signatures are ignored.
 *
 * @throws `signature_invalid` if the note is malformed, none of the keys signed it, or a signature with the name and
 * id of one of them does not verify.
 */
export function openNote(note: string | Uint8Array, keys: readonly VerifierKey[]): SignedNote {
  const { text, signatures } = parseNote(note);
  const bytes = Buffer.from(text);
  const verified = new Map<VerifierKey, NoteSignature>();
  for (const line of signatures) {
    const key = keys.find(({ keyName, keyId }) => keyName === line.keyName && keyId === line.keyId);
    if (key === undefined) continue;
    if (!verify(null, bytes, key.publicKey, line.signature)) throw notSigned("a signature does not verify");
    if (!verified.has(key)) verified.set(key, line);
  }
  if (verified.size === 0) throw notSigned("none of the given keys signed it");
  return { text, signatures: [...verified.values()] };
}

function keyIdOf(keyName: string, rawKey: Uint8Array): number {
  const digest = createHash("sha256").update(`${keyName}\n`).update(Uint8Array.of(ALGORITHM_ED25519));
  return digest.update(rawKey).digest().readUInt32BE();
}

type Refusal = (reason: string) => Error;

/** Node decodes base64 leniently; a note has one form only, so the way back must give the same text. */
function decodeBase64(text: string, refuse: Refusal): Buffer {
  const bytes = Buffer.from(text, "base64");
  if (bytes.toString("base64") !== text) throw refuse("its base64 is malformed");
  return bytes;
}

function requireText(text: string, refuse: Refusal): void {
  if (!text.endsWith("\n")) throw refuse("it does not end in a newline");
  if (/[^\n -\u{10ffff}]/u.test(text)) throw refuse("it has control characters");
  if (!text.isWellFormed()) throw refuse("it is not well-formed Unicode");
}

function requireKeyName(keyName: string, refuse: Refusal): void {
  if (
    !/^[^+\p{White_Space}]+$/u.test(keyName) ||
    /[^ -\u{10ffff}]/u.test(keyName) ||
    !keyName.isWellFormed()
  ) {
    throw refuse("a key's name is not empty and has no spaces, plus signs or control characters");
  }
}

function notSigned(reason: string): Error {
  return kimberliteError("signature_invalid", `the signed note is refused: ${reason}`);
}

function invalidArgument(reason: string): Error {
  return kimberliteError("invalid_argument", `not a signed note or verifier key: ${reason}`);
}
