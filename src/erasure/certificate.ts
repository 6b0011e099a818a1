/**
 * The certificate of an erasure: what was destroyed, when, by whom and why, signed by the installation.
 *
 * It is a C2SP signed note, so anyone with the installation's verifier key can check it offline, years later, without a
 * server. Its text is a first line that names the format, a second line of JSON, and nothing else; the same facts have
 * one text only. It holds no secret and nothing of the data.
 */
import { kimberliteError } from "../errors.ts";
import { type NoteSigner, openNote, parseNote, signNote, type VerifierKey } from "../log/signed-note.ts";

const FORMAT = "kimberlite-erasure-certificate/v1";

/** What was removed, and where it was. */
export interface RemovedPart {
  readonly what: "keys" | "memory" | "journal" | "projection" | "log" | "log payload";
  /** Path within the data directory, or "process". */
  readonly where: string;
  /** Files or entries. */
  readonly count: number;
}

/** The facts of an erasure. Times are ISO 8601 in UTC. */
export interface ErasureFacts {
  readonly tenant: string;
  readonly installation: string;
  readonly actor: string;
  readonly reason: string;
  readonly beganAt: string;
  readonly endedAt: string;
  /** Versions of keys whose only copies were in the key store, and are overwritten there. */
  readonly keysDestroyed: {
    readonly kek: number;
    readonly deks: readonly number[];
    readonly masterKeyId: string;
  };
  /** The log as it ended; null if it could not be read any more. */
  readonly log: { readonly size: string; readonly root: string; readonly checkpoint: string } | null;
  readonly removed: readonly RemovedPart[];
  /** True if sealed blocks were kept, so that the chain and tree still verify over what nobody can read. */
  readonly ciphertextKept: boolean;
  /** Present if the retention was not over, and was overridden. */
  readonly retentionOverriddenUntil?: string;
  /** What no erasure on this machine reaches. */
  readonly outsideReach: readonly string[];
}

/** A certificate with its signed text. */
export interface ErasureCertificate extends ErasureFacts {
  /** The signed note: keep this. */
  readonly note: string;
}

export const OUTSIDE_REACH: readonly string[] = [
  "copies of the key store made outside this installation",
  "versions of the master key that a KMS, vault or HSM retains: they open nothing without the destroyed wrapped keys",
  "exports and results that were given to clients, and what clients keep in memory",
  "blocks that a copy-on-write file system or an SSD keeps of the overwritten key store entry: wrapped keys only",
];

export function signCertificate(facts: ErasureFacts, signer: NoteSigner): ErasureCertificate {
  return { ...facts, note: signNote(`${FORMAT}\n${JSON.stringify(facts)}\n`, [signer]) };
}

/**
 * Checks a certificate with the keys that the caller trusts.
 *
 * @throws `signature_invalid` if the note is malformed or none of the keys signed it; `certificate_invalid` if what they
 * signed is no certificate.
 */
export function verifyErasureCertificate(
  note: string | Uint8Array,
  keys: VerifierKey | readonly VerifierKey[],
): ErasureCertificate {
  const { text } = openNote(note, "keyId" in keys ? [keys] : keys);
  return { ...parseFacts(text), note: typeof note === "string" ? note : Buffer.from(note).toString("utf8") };
}

/** True for a note that says it is a certificate; nothing of it is verified. */
export function looksLikeCertificate(note: string): boolean {
  try {
    return parseNote(note).text.startsWith(`${FORMAT}\n`);
  } catch {
    return false;
  }
}

/** A certificate from the catalogue, which this installation signed. @throws `certificate_invalid` */
export function readCertificate(note: string): ErasureCertificate {
  return { ...parseFacts(parseNote(note).text), note };
}

function parseFacts(text: string): ErasureFacts {
  const lines = text.split("\n");
  if (lines.length !== 3 || lines[0] !== FORMAT || lines[2] !== "") throw invalid("its form is another");
  let facts: Partial<ErasureFacts>;
  try {
    facts = JSON.parse(lines[1] as string) as Partial<ErasureFacts>;
  } catch (cause) {
    throw invalid("its facts are not JSON", cause);
  }
  const strings = [facts.tenant, facts.installation, facts.actor, facts.reason, facts.beganAt, facts.endedAt];
  const sane =
    strings.every((value) => typeof value === "string") &&
    Array.isArray(facts.keysDestroyed?.deks) &&
    Array.isArray(facts.removed) &&
    JSON.stringify(facts) === lines[1];
  if (!sane) throw invalid("facts are missing or in another form");
  return facts as ErasureFacts;
}

function invalid(why: string, cause?: unknown): Error {
  return kimberliteError("certificate_invalid", `not an erasure certificate: ${why}`, {
    ...(cause === undefined ? {} : { cause }),
  });
}
