/** `kimberlite subject declare`, `list`, `erase` and `verify`: persons within a tenant who can be erased alone. */
import { closeSync, readFileSync, rmSync, writeSync } from "node:fs";
import { verifySubjectCertificate } from "../erasure/subject-certificate.ts";
import { kimberliteError } from "../errors.ts";
import { parseVerifierKey } from "../log/signed-note.ts";
import type { SqlInput } from "../projection/values.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions, RecordedOptions } from "./arguments.ts";
import { reserve } from "./governance.ts";
import { actorName, recorded } from "./installation.ts";
import { withNode } from "./open-node.ts";
import { counted, escapeLine, renderTable, toJson } from "./render.ts";

interface DeclareFlags extends RecordedOptions {
  readonly tenant: TenantId;
  readonly table: string;
  readonly column: string;
}

export async function declare(options: DeclareFlags): Promise<undefined> {
  const { tenant, table, column } = options;
  const declared = await withNode(options, (db) =>
    db.declareSubject(tenant, { table, column }, recorded(options)),
  );
  if (options.json === true) return void console.log(toJson(declared));
  console.log(
    `the rows of ${escapeLine(declared.table)} are those of their ${escapeLine(declared.column)} from record ${declared.declaredAt} on`,
  );
}

export async function list(options: GlobalOptions & { readonly tenant: TenantId }): Promise<undefined> {
  const { tenant } = options;
  const found = await withNode(options, async (db) => ({
    declared: await db.subjects(tenant),
    erased: await db.subjectCertificates(tenant),
  }));
  if (options.json === true) return void console.log(toJson(found));
  const rows = found.declared.map(({ table, column, declaredAt }) => [
    escapeLine(table),
    escapeLine(column),
    `${declaredAt}`,
  ]);
  console.log(
    rows.length === 0 ? "no subjects are declared" : renderTable(["table", "subject", "from record"], rows),
  );
  for (const { subject, endedAt, reason } of found.erased)
    console.log(`erased: ${subject} at ${endedAt}: ${escapeLine(reason)}`);
}

interface EraseFlags extends GlobalOptions {
  readonly tenant: TenantId;
  readonly subject: string;
  readonly number?: boolean;
  readonly reason: string;
  readonly certificate: string;
  readonly overrideRetention?: boolean;
}

export async function erase(options: EraseFlags): Promise<undefined> {
  const { tenant, reason, certificate: path, overrideRetention = false } = options;
  const subject = parseSubject(options);
  // Made first: an erasure that cannot be certified to whoever asked is not begun.
  const file = reserve(path);
  try {
    const certificate = await withNode(options, (db) =>
      db.eraseSubject(tenant, subject, { reason, overrideRetention, actor: actorName(options) }),
    );
    writeSync(file, certificate.note);
    if (options.json === true) return void console.log(toJson(certificate));
    const rows = certificate.tables.reduce((sum, table) => sum + table.rows, 0);
    console.log(
      `subject ${certificate.subject} of tenant ${tenant} is erased: ${counted(rows, "row")}, and the key of its history`,
    );
    console.log(
      `the certificate is in ${path}; check it with: kimberlite subject verify ${path} --key "$(kimberlite key verifier)"`,
    );
  } catch (error) {
    rmSync(path);
    throw error;
  } finally {
    closeSync(file);
  }
}

/** A value that was typed stays out of messages: it is a person. @throws `invalid_argument` */
function parseSubject({ subject, number = false }: EraseFlags): SqlInput {
  if (!number) return subject;
  if (/^-?\d{1,19}$/.test(subject)) return BigInt(subject);
  const value = Number(subject);
  if (subject.trim() !== "" && Number.isFinite(value)) return value;
  throw kimberliteError("invalid_argument", "--number takes a subject that is a number");
}

export async function verify(
  path: string,
  options: GlobalOptions & { readonly key: string },
): Promise<undefined> {
  const certificate = verifySubjectCertificate(read(path), parseVerifierKey(options.key));
  if (options.json === true) return void console.log(toJson({ ok: true, ...certificate }));
  const { subject, tenant, endedAt, actor, reason } = certificate;
  console.log(
    `the certificate holds: subject ${subject} of tenant ${tenant} was erased at ${endedAt} by ${escapeLine(actor)}: ${escapeLine(reason)}`,
  );
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw kimberliteError("invalid_argument", `${path} cannot be read`, { cause });
  }
}
