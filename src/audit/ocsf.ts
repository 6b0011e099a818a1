/**
 * Audit events as events of the Open Cybersecurity Schema Framework (OCSF 1.5.0), which security tools read: one JSON
 * object a line. An event that is about credentials is of the class Authentication (3002), any other of API Activity
 * (6003).
 */
import type { AuditEntry, AuditOutcome } from "./audit-event.ts";

const OCSF_VERSION = "1.5.0";

/** What the events are about: which installation wrote them, and whose stream they are of. */
export interface OcsfSource {
  readonly installation: string;
  /** The tenant whose audit stream it is; absent for the system's. */
  readonly tenant?: bigint;
  readonly productVersion: string;
}

interface OcsfClass {
  readonly uid: number;
  readonly name: string;
  readonly category: { readonly uid: number; readonly name: string };
}

const API_ACTIVITY: OcsfClass = {
  uid: 6003,
  name: "API Activity",
  category: { uid: 6, name: "Application Activity" },
};
const AUTHENTICATION: OcsfClass = {
  uid: 3002,
  name: "Authentication",
  category: { uid: 3, name: "Identity & Access Management" },
};

/** OCSF's activities of API Activity, by the verb of our action. */
const ACTIVITIES: readonly (readonly [RegExp, number, string])[] = [
  [/\.(create|place|declare|import|restore|register|enrol)$/, 1, "Create"],
  [/\.(read|use|list|export|backup|query)$/, 2, "Read"],
  [/\.(erase|release|trim|revoke|remove|delete)$/, 4, "Delete"],
];
const UPDATE = [3, "Update"] as const;
const LOGON = [1, "Logon"] as const;

const STATUS: Readonly<Record<AuditOutcome, readonly [number, string]>> = {
  began: [1, "Success"],
  done: [1, "Success"],
  refused: [2, "Failure"],
  failed: [2, "Failure"],
};

/** What is destroyed, or taken out in clear text, is more than a note. */
const SEVERE = /^(tenant|subject)\.(erase|export|trim)$|^key\.(freeze|rotate-master)$/;

/** One event, as an OCSF object. Integers past 2^53 are strings. */
export function toOcsf(entry: AuditEntry, source: OcsfSource): Readonly<Record<string, unknown>> {
  const kind = entry.action.startsWith("auth.") ? AUTHENTICATION : API_ACTIVITY;
  const [activity, activityName] = kind === AUTHENTICATION ? LOGON : activityOf(entry.action);
  const [statusId, status] = STATUS[entry.outcome];
  const refused = statusId === 2;
  return {
    category_uid: kind.category.uid,
    category_name: kind.category.name,
    class_uid: kind.uid,
    class_name: kind.name,
    activity_id: activity,
    activity_name: activityName,
    type_uid: kind.uid * 100 + activity,
    type_name: `${kind.name}: ${activityName}`,
    time: Number(entry.timeUs / 1_000n),
    ...severityOf(entry.action, refused),
    status_id: statusId,
    status,
    ...(entry.code === undefined ? {} : { status_code: entry.code }),
    ...(entry.reason === undefined ? {} : { message: entry.reason }),
    actor: { user: { name: entry.actor } },
    src_endpoint: sourceOf(entry),
    ...(kind === AUTHENTICATION
      ? { user: { name: entry.actor }, service: { name: "Kimberlite" } }
      : apiOf(entry)),
    metadata: {
      version: OCSF_VERSION,
      product: { name: "Kimberlite", vendor_name: "Kimberlite", version: source.productVersion },
      uid: `${source.installation}/${source.tenant ?? 0n}/${entry.offset}`,
      log_name: source.tenant === undefined ? "system audit" : "tenant audit",
      sequence: Number(entry.offset),
      ...(source.tenant === undefined ? {} : { tenant_uid: String(source.tenant) }),
      ...(entry.correlationId === undefined ? {} : { correlation_uid: entry.correlationId }),
    },
    unmapped: toUnmapped(entry),
  };
}

function activityOf(action: string): readonly [number, string] {
  const found = ACTIVITIES.find(([verb]) => verb.test(action));
  return found === undefined ? UPDATE : [found[1], found[2]];
}

function severityOf(action: string, refused: boolean): Readonly<Record<string, unknown>> {
  if (refused) return { severity_id: 3, severity: "Medium" };
  if (SEVERE.test(action)) return { severity_id: 2, severity: "Low" };
  return { severity_id: 1, severity: "Informational" };
}

/** Required of API Activity, also of what came over no network. */
function sourceOf({ detail }: AuditEntry): Readonly<Record<string, string>> {
  const address = detail?.["address"];
  return typeof address === "string" && address !== "" ? { ip: address } : { name: "in process" };
}

function apiOf(entry: AuditEntry): Readonly<Record<string, unknown>> {
  const object = entry.tenant === undefined ? undefined : String(entry.tenant);
  return {
    api: {
      operation: entry.action,
      ...(entry.correlationId === undefined ? {} : { request: { uid: entry.correlationId } }),
    },
    ...(object === undefined ? {} : { resources: [{ type: "tenant", uid: object }] }),
  };
}

function toUnmapped(entry: AuditEntry): Readonly<Record<string, unknown>> {
  const detail = Object.entries(entry.detail ?? {}).map(([name, value]) => [
    name,
    typeof value === "bigint" ? value.toString() : value,
  ]);
  return {
    outcome: entry.outcome,
    log_offset: entry.logOffset.toString(),
    ...(detail.length === 0 ? {} : { detail: Object.fromEntries(detail) as Record<string, unknown> }),
  };
}
