/** `kimberlite erase`, `certificate`, `hold …`, `retention` and `audit`. */
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import type { AuditAction, AuditEntry } from "../audit/audit-event.ts";
import type { ErasureCertificate } from "../erasure/certificate.ts";
import { kimberliteError } from "../errors.ts";
import { Duration } from "../tenant/duration.ts";
import type { RetentionMode } from "../tenant/tenant-config.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions } from "./arguments.ts";
import { actorName, recorded } from "./installation.ts";
import { withNode } from "./open-node.ts";
import { startProgress } from "./progress.ts";
import { counted, escapeLine, formatTime, renderTable, toJson } from "./render.ts";

interface TenantOptions extends GlobalOptions {
  readonly tenant: TenantId;
}

interface EraseFlags extends GlobalOptions {
  readonly tenant?: TenantId;
  readonly reason?: string;
  readonly certificate?: string;
  readonly drill?: boolean;
  readonly overrideRetention?: boolean;
  readonly keepCiphertext?: boolean;
}

export async function erase(options: EraseFlags): Promise<undefined> {
  const { tenant, reason, certificate: path, overrideRetention = false, keepCiphertext = false } = options;
  if (options.drill === true) {
    if (options.server === undefined) return (await import("./drill.ts")).drill(options);
    throw kimberliteError(
      "unsupported",
      "a drill erases a tenant of its own, on this machine; leave --url out",
    );
  }
  if (tenant === undefined || reason === undefined || path === undefined) {
    throw kimberliteError("invalid_argument", "erase takes --tenant, --reason and --certificate, or --drill");
  }
  // Made first: an erasure that cannot be certified to whoever asked is not begun.
  const file = reserve(path);
  try {
    const certificate = await withNode(options, (db) =>
      db.eraseTenant(tenant, { reason, overrideRetention, keepCiphertext, actor: actorName(options) }),
    );
    writeSync(file, certificate.note);
    report(options, certificate, describe(certificate, path));
  } catch (error) {
    rmSync(path);
    throw error;
  } finally {
    closeSync(file);
  }
}

export async function printCertificate(options: TenantOptions): Promise<undefined> {
  const certificate = await withNode(options, (db) => db.erasureCertificate(options.tenant));
  if (options.json === true) console.log(toJson(certificate));
  else process.stdout.write(certificate.note);
}

interface HoldFlags extends TenantOptions {
  readonly name: string;
  readonly reason: string;
}

export async function placeHold(options: HoldFlags): Promise<undefined> {
  const { tenant, name, reason } = options;
  const hold = await withNode(options, (db) =>
    db.placeLegalHold(tenant, { name, reason, actor: actorName(options) }),
  );
  report(
    options,
    hold,
    `tenant ${tenant} is held for "${escapeLine(name)}": nothing of it is erased until that ends`,
  );
}

export async function releaseHold(options: HoldFlags): Promise<undefined> {
  const { tenant, name, reason } = options;
  const left = await withNode(options, (db) =>
    db.releaseLegalHold(tenant, { name, reason, actor: actorName(options) }),
  );
  const holds = left.legalHolds.length;
  const refused = left.refusedErasures.at(-1);
  const lines = [
    `the hold "${escapeLine(name)}" on tenant ${tenant} has ended; ${holds === 0 ? "no other stands" : `${counted(holds, "other hold")} ${holds === 1 ? "stands" : "stand"}`}`,
  ];
  if (holds === 0 && refused !== undefined) {
    lines.push(
      `its erasure was asked for meanwhile, because: ${escapeLine(refused.reason)}. Ask again with: kimberlite erase`,
    );
  }
  report(options, left, lines.join("\n"));
}

export async function listHolds(options: TenantOptions): Promise<undefined> {
  const { legalHolds } = await withNode(options, (db) => db.describeTenant(options.tenant));
  if (options.json === true) return void console.log(toJson(legalHolds));
  const rows = legalHolds.map((hold) =>
    [hold.name, hold.reason, hold.actor, formatTime(hold.placedAtUs)].map(escapeLine),
  );
  console.log(rows.length === 0 ? "no hold stands" : renderTable(["hold", "reason", "by", "since"], rows));
}

interface RetentionFlags extends TenantOptions {
  readonly days: number;
  readonly mode?: RetentionMode;
  readonly reason?: string;
}

export async function retention(options: RetentionFlags): Promise<undefined> {
  const { tenant, days, mode } = options;
  const given = { ...recorded(options), ...(mode === undefined ? {} : { mode }) };
  const entry = await withNode(options, (db) => db.setRetention(tenant, Duration.days(days), given));
  const { retentionMs, retentionMode } = entry;
  report(
    options,
    { tenant, retentionMs, retentionMode },
    `tenant ${tenant}: data is kept for at least ${days} days, in ${retentionMode} mode`,
  );
}

interface TrimFlags extends TenantOptions {
  readonly reason: string;
  readonly before?: Date;
  readonly overrideRetention?: boolean;
}

export async function trim(options: TrimFlags): Promise<undefined> {
  const { tenant, reason, before, overrideRetention = false } = options;
  const progress = startProgress("trim");
  try {
    const done = await withNode(options, (db) =>
      db.trimTenant(tenant, {
        reason,
        overrideRetention,
        actor: actorName(options),
        ...(before === undefined ? {} : { before }),
        onProgress: ({ doneRecords, totalRecords }) =>
          progress.update(Number(doneRecords), Number(totalRecords)),
      }),
    );
    progress.stop();
    const { trimmed, firstOffset } = done;
    const text =
      trimmed === 0n
        ? `tenant ${tenant}: no record is past its retention`
        : `tenant ${tenant}: ${counted(trimmed, "record")} destroyed, the first that is left is ${firstOffset}; tables and proofs are as they were`;
    report(options, { tenant, ...done }, text);
  } finally {
    progress.stop();
  }
}

interface AuditFlags extends GlobalOptions {
  readonly tenant?: TenantId;
  readonly action?: AuditAction;
  readonly from?: number;
  readonly limit?: number;
}

export async function audit(options: AuditFlags): Promise<undefined> {
  const { tenant, action, from, limit } = options;
  const range = {
    ...(action === undefined ? {} : { action }),
    ...(from === undefined ? {} : { from }),
    ...(limit === undefined ? {} : { limit }),
  };
  const entries = await withNode(options, (db) =>
    Array.fromAsync(tenant === undefined ? db.nodeAudit(range) : db.audit(tenant, range)),
  );
  if (options.json === true) {
    for (const entry of entries) console.log(toJson(entry));
    return;
  }
  const rows = entries.map((entry) => [
    entry.offset,
    formatTime(entry.timeUs),
    escapeLine(entry.actor),
    entry.action,
    entry.code === undefined ? entry.outcome : `${entry.outcome}: ${entry.code}`,
    entry.tenant ?? "",
    escapeLine(about(entry)),
  ]);
  console.log(
    rows.length === 0
      ? "no such event"
      : renderTable(["at", "time", "actor", "action", "outcome", "tenant", "about"], rows),
  );
}

function about({ reason, detail }: AuditEntry): string {
  const fields = Object.entries(detail ?? {}).map(([name, value]) => `${name} ${value}`);
  return [...(reason === undefined ? [] : [reason]), ...fields].join("; ");
}

function describe(certificate: ErasureCertificate, path: string): string {
  const { tenant, keysDestroyed, removed } = certificate;
  return [
    `tenant ${tenant} is erased: KEK ${keysDestroyed.kek} and ${counted(keysDestroyed.deks.length, "data key")} destroyed`,
    ...removed.map(({ what, where, count }) => `  ${what}: ${where} (${count})`),
    `the certificate is in ${path}; check it with: kimberlite verify ${path} --key "$(kimberlite key verifier)"`,
  ].join("\n");
}

/** Makes a new file for a certificate. @throws `destination_exists`, `invalid_argument` */
export function reserve(path: string): number {
  try {
    return openSync(path, "wx", 0o600);
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code;
    const code = errno === "EEXIST" ? "destination_exists" : "invalid_argument";
    throw kimberliteError(code, `${path} cannot be made for the certificate (${errno ?? "unknown"})`, {
      cause,
    });
  }
}

function report(options: GlobalOptions, json: unknown, text: string): void {
  console.log(options.json === true ? toJson(json) : text);
}
