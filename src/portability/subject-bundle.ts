/**
 * Keys of subjects in a file of their own, beside no export: with it, whoever has the export reads the rows of the subjects
 * that were not erased when it was written. Without it nobody does, not even in another installation.
 */
import { kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import type { CopiedSubjects } from "../keys/subject-keys.ts";

const FORMAT = "kimberlite-subject-keys/v1";
const ROOT_BYTES = 32;
const SLOT_BYTES = 128;

interface Bundle {
  readonly format: string;
  readonly tenant: string;
  readonly root: string;
  readonly slots: string;
}

/** Writes the file whole, for its owner's eyes; none where there are no keys. @throws `disk_full`, `disk_failed` */
export async function writeSubjectBundle(
  place: { readonly disk: Disk; readonly path: string; readonly tenant: string },
  copied: CopiedSubjects | undefined,
): Promise<void> {
  if (copied === undefined) return;
  const { root, slots } = copied;
  const { tenant } = place;
  const bundle: Bundle = {
    format: FORMAT,
    tenant,
    root: root.toString("base64"),
    slots: slots.toString("base64"),
  };
  const bytes = Buffer.from(`${JSON.stringify(bundle)}\n`);
  await place.disk.replaceFile(place.path, bytes);
  bytes.fill(0);
}

/** @throws `keys_missing` without the file; `keys_damaged` for one that is none, or another tenant's */
export function readSubjectBundle(disk: Disk, path: string, tenant: string): CopiedSubjects {
  const bytes = disk.readFile(path);
  if (bytes === undefined)
    throw kimberliteError("keys_missing", "there is no file of keys of subjects there");
  const parsed = parse(bytes);
  bytes.fill(0);
  if (parsed?.tenant !== tenant || parsed.format !== FORMAT) throw damaged();
  const root = Buffer.from(String(parsed.root), "base64");
  const slots = Buffer.from(String(parsed.slots), "base64");
  if (root.length !== ROOT_BYTES || slots.length % SLOT_BYTES !== 0) throw damaged();
  return { root, slots };
}

function parse(bytes: Buffer): Partial<Bundle> | undefined {
  try {
    return (JSON.parse(bytes.toString("utf8")) ?? undefined) as Partial<Bundle> | undefined;
  } catch {
    return undefined;
  }
}

function damaged(): Error {
  return kimberliteError("keys_damaged", "the file holds no keys of this tenant's subjects");
}
