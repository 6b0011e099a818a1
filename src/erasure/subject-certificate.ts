/**
 * The certificate of the erasure of one subject within a tenant: what was destroyed, when, by whom and why, signed by the
 * installation. A C2SP signed note like a tenant's certificate: its text is a line that names the format and a line of
 * JSON. It names the subject by the random name that the log has, and holds nothing of the person.
 */
import { kimberliteError } from "../errors.ts";
import { type NoteSigner, openNote, parseNote, signNote, type VerifierKey } from "../log/signed-note.ts";
import type { RemovedPart } from "./certificate.ts";

const FORMAT = "kimberlite-subject-erasure-certificate/v1";

/** A table whose rows were of the subject. */
export interface ErasedTable {
  readonly table: string;
  readonly column: string;
  /** Record of the declaration: rows from there on were sealed under the subject's key. */
  readonly declaredAt: string;
  /** Rows that were there and were deleted. */
  readonly rows: number;
}

/** What is known of an erasure when it begins. Times are ISO 8601 in UTC. */
export interface SubjectErasureBegun {
  readonly actor: string;
  readonly reason: string;
  readonly beganAt: string;
  readonly tables: readonly ErasedTable[];
  /** Present if the retention was not over, and was overridden. */
  readonly retentionOverriddenUntil?: string;
}

export interface SubjectErasureFacts extends SubjectErasureBegun {
  readonly tenant: string;
  readonly installation: string;
  /** Random name of the subject, hex: it stands in the log in the place of the person. */
  readonly subject: string;
  readonly endedAt: string;
  /** Record of the erasure. */
  readonly offset: string;
  /** The log when nothing of the subject was left: the same as before, and longer. */
  readonly log: { readonly size: string; readonly root: string; readonly checkpoint: string };
  readonly removed: readonly RemovedPart[];
  /** What no erasure on this machine reaches. */
  readonly outsideReach: readonly string[];
}

/** A certificate with its signed text. */
export interface SubjectErasureCertificate extends SubjectErasureFacts {
  /** The signed note: keep this. */
  readonly note: string;
}

export const OUTSIDE_REACH_OF_SUBJECT: readonly string[] = [
  "copies of the key store made outside this installation",
  "changes from before the declarations, tables and event streams without one, and copies that triggers made there",
  "text of schema changes",
  "exports and results that were given to clients, and what clients keep in memory",
  "blocks that a file system or an SSD keeps of files that were overwritten or replaced: wrapped keys, and pages sealed under the projection's key",
];

export function signSubjectCertificate(
  facts: SubjectErasureFacts,
  signer: NoteSigner,
): SubjectErasureCertificate {
  return { ...facts, note: signNote(`${FORMAT}\n${JSON.stringify(facts)}\n`, [signer]) };
}

/**
 * Checks a certificate with the keys that the caller trusts, offline.
 *
 * @throws `signature_invalid` if the note is malformed or none of the keys signed it; `certificate_invalid` if what they
 * signed is no certificate of a subject's erasure.
 */
export function verifySubjectCertificate(
  note: string | Uint8Array,
  keys: VerifierKey | readonly VerifierKey[],
): SubjectErasureCertificate {
  const { text } = openNote(note, "keyId" in keys ? [keys] : keys);
  return { ...parseFacts(text), note: typeof note === "string" ? note : Buffer.from(note).toString("utf8") };
}

/** A certificate from a tenant's own log. @throws `certificate_invalid` */
export function readSubjectCertificate(note: string): SubjectErasureCertificate {
  return { ...parseFacts(parseNote(note).text), note };
}

function parseFacts(text: string): SubjectErasureFacts {
  const lines = text.split("\n");
  if (lines.length !== 3 || lines[0] !== FORMAT || lines[2] !== "") throw invalid("its form is another");
  let facts: Partial<SubjectErasureFacts>;
  try {
    facts = JSON.parse(lines[1] as string) as Partial<SubjectErasureFacts>;
  } catch (cause) {
    throw invalid("its facts are not JSON", cause);
  }
  const { tenant, installation, subject, actor, reason, beganAt, endedAt, offset } = facts;
  const strings = [tenant, installation, subject, actor, reason, beganAt, endedAt, offset];
  const sane =
    strings.every((value) => typeof value === "string") &&
    Array.isArray(facts.tables) &&
    Array.isArray(facts.removed) &&
    typeof facts.log === "object" &&
    JSON.stringify(facts) === lines[1];
  if (!sane) throw invalid("facts are missing or in another form");
  return facts as SubjectErasureFacts;
}

function invalid(why: string, cause?: unknown): Error {
  return kimberliteError("certificate_invalid", `not a certificate of a subject's erasure: ${why}`, {
    ...(cause === undefined ? {} : { cause }),
  });
}
