/** What a look at a tenant's whole log found, as it is shown. */
import { kimberliteError } from "../errors.ts";
import type { Verified } from "./place.ts";
import { counted, formatBytes, toJson } from "./render.ts";

/** @throws `log_damaged` for a log that is not whole, unless it is shown as JSON */
export function showVerified(report: Verified, json: boolean): string {
  const { roots: _, root, ...known } = report;
  if (json) return toJson({ ...known, root: root.toString("base64") });
  requireWhole(report);
  const size = `${counted(report.size, "record")} in ${counted(report.blocks, "block")}, ${formatBytes(report.bytes)}`;
  return `whole: ${size}, every seal opened\nMerkle root ${root.toString("base64")}`;
}

/** @throws `log_damaged` */
export function requireWhole({ ok, tenant, firstBadOffset, reason }: Verified): void {
  if (ok) return;
  throw kimberliteError("log_damaged", `the log is damaged at offset ${firstBadOffset}: ${reason}`, {
    detail: { tenant, offset: firstBadOffset },
  });
}
