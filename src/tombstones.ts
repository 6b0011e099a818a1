/**
 * Certificates of erased tenants in a place of backups, which keep them from being revived.
 *
 * Kept: only what the installation signed is believed; what it did not sign is not passed over.
 */
import type { BackupTarget } from "./backup/target.ts";
import { verifyErasureCertificate } from "./erasure/certificate.ts";
import { type KimberliteError, kimberliteError } from "./errors.ts";
import type { VerifierKey } from "./log/signed-note.ts";

/** Where a place of data has the certificate of a tenant that was erased. */
export function tombstoneName(tenant: string): string {
  return `erased/${tenant}.txt`;
}

/**
 * Certificates of tenants that were erased, as the place knows them, by id: each one that the installation signed. One
 * that it did not sign is neither believed nor passed over, for it may stand where a true one stood.
 *
 * @throws `signature_invalid`, `certificate_invalid` with `detail.file`
 */
export async function readTombstones(from: BackupTarget, key: VerifierKey): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const name of await from.list("erased/")) {
    const id = /^erased\/([0-9]+)\.txt$/.exec(name)?.[1];
    const note = id === undefined ? undefined : await readTombstone(from, id, key);
    if (id !== undefined && note !== undefined) found.set(id, note);
  }
  return found;
}

/** One tenant's; undefined if the place has none. @throws as `readTombstones` */
export async function readTombstone(
  from: BackupTarget,
  tenant: string,
  key: VerifierKey,
): Promise<string | undefined> {
  const file = tombstoneName(tenant);
  const note = (await from.get(file))?.toString("utf8");
  if (note === undefined) return undefined;
  try {
    if (verifyErasureCertificate(note, key).tenant === tenant) return note;
  } catch (cause) {
    const { code } = cause as KimberliteError;
    throw kimberliteError(code, `${file} is no certificate that the installation signed`, {
      cause,
      detail: { file },
    });
  }
  throw kimberliteError("certificate_invalid", `${file} is the certificate of another tenant`, {
    detail: { file },
  });
}
