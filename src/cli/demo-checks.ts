/** What the demo looks at behind the database's back: the bytes of its files. */
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Kimberlite } from "../kimberlite.ts";
import { logFolder } from "../log/segment.ts";
import type { VerifyReport } from "../log/verify.ts";
import { quoteName } from "../projection/tables.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { filesBelow } from "./inspect.ts";
import { type VerifiablePlace, verifyTenantFiles } from "./offline-verify.ts";
import { toJson } from "./render.ts";

export interface Scan {
  readonly files: number;
  readonly bytes: number;
  /** Names of the files that hold the text. */
  readonly holding: readonly string[];
}

/** Looks for a text, as UTF-8 and as UTF-16, in every byte of every file. */
export function filesHolding(root: string, text: string): Scan {
  const files = filesBelow(root);
  const needles = [Buffer.from(text, "utf8"), Buffer.from(text, "utf16le")];
  const holding = files.filter(({ name }) => {
    const bytes = readFileSync(join(root, name));
    return needles.some((needle) => bytes.includes(needle));
  });
  return {
    files: files.length,
    bytes: files.reduce((sum, file) => sum + file.bytes, 0),
    holding: holding.map(({ name }) => name),
  };
}

/** A digest over all rows of a table, in the order of their ids. */
export async function rowDigest(
  db: Kimberlite,
  id: TenantId,
  table: string,
): Promise<{ readonly rows: number; readonly digest: string }> {
  const rows = await db.query(id, `SELECT * FROM ${quoteName(table)} ORDER BY id`);
  return { rows: rows.length, digest: createHash("sha256").update(toJson(rows)).digest("hex") };
}

/** Copies a tenant's log, changes one bit in the middle of it, and verifies the copy. */
export async function flippedBit(place: VerifiablePlace, tenant: TenantId): Promise<VerifyReport> {
  const data = mkdtempSync(join(tmpdir(), "kimberlite-demo-copy-"));
  try {
    const folder = logFolder(data, tenant);
    cpSync(logFolder(place.data, tenant), folder, { recursive: true });
    const [segment] = filesBelow(folder);
    const path = join(folder, segment?.name ?? "");
    const bytes = readFileSync(path);
    const middle = bytes.length >> 1;
    bytes.writeUInt8(bytes.readUInt8(middle) ^ 1, middle);
    writeFileSync(path, bytes);
    return await verifyTenantFiles({ ...place, data }, tenant, {});
  } finally {
    rmSync(data, { recursive: true, force: true });
  }
}
