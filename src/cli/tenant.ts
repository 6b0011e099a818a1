/** `kimberlite tenant …` */
import type { TenantDescription } from "../operations.ts";
import { Duration } from "../tenant/duration.ts";
import { Region } from "../tenant/region.ts";
import type { RetentionMode, TenantEntry, TenantQuota } from "../tenant/tenant-config.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import {
  changeQuota,
  type GlobalOptions,
  QUOTA_NAMES,
  type QuotaFlags,
  type RecordedOptions,
} from "./arguments.ts";
import { keptUri, recorded } from "./installation.ts";
import type { Node } from "./node.ts";
import { withNode } from "./open-node.ts";
import { counted, escapeLine, formatBytes, formatTime, grouped, renderTable, toJson } from "./render.ts";

const PAGE = 10_000;
const DAY_MS = 86_400_000;

interface CreateOptions extends RecordedOptions, QuotaFlags {
  readonly name: string;
  readonly region: string;
  readonly retentionDays?: number;
  readonly retentionMode?: RetentionMode;
  readonly masterKey?: string;
}

export async function createTenant(id: TenantId, options: CreateOptions): Promise<undefined> {
  const { name, retentionDays } = options;
  const config = { id, name, region: Region.of(options.region), quota: changeQuota({}, options) };
  const held = options.masterKey === undefined ? {} : { masterKey: keptUri(options.masterKey) };
  const mode = options.retentionMode === undefined ? {} : { retentionMode: options.retentionMode };
  const retention = retentionDays === undefined ? {} : { retention: Duration.days(retentionDays) };
  const entry = await open(options, (db) =>
    db.createTenant({ ...config, ...retention, ...mode, ...held }, recorded(options)),
  );
  if (options.json === true) console.log(toJson(entry));
  else
    console.log(
      `tenant ${entry.id} "${escapeLine(entry.name)}" created in ${entry.region}, with keys of its own`,
    );
}

export async function listTenants(options: GlobalOptions): Promise<undefined> {
  const entries = await open(options, allTenants);
  if (options.json === true) return void console.log(toJson(entries));
  if (entries.length === 0)
    return void console.log("no tenants yet; make one with: kimberlite tenant create");
  const held = entries.some(({ masterKey }) => masterKey !== undefined);
  const rows = entries.map((entry) => [
    entry.id,
    entry.name,
    entry.region,
    entry.state,
    formatRetention(entry.retentionMs),
    formatQuota(entry.quota),
    formatTime(entry.createdAtUs),
    ...(held ? [entry.masterKey === undefined ? "the node's" : `its own, ${entry.keyAccess ?? ""}`] : []),
  ]);
  const columns = ["id", "name", "region", "state", "retention", "quota", "created"];
  console.log(renderTable(held ? [...columns, "master key"] : columns, rows));
}

export async function describeTenant(id: TenantId, options: GlobalOptions): Promise<undefined> {
  const description = await open(options, async (db) => {
    try {
      return { ...(await db.describeTenant(id)), refusedErasures: await db.refusedErasures(id) };
    } catch (error) {
      if (options.json !== true && options.server === undefined) await tellRefused(db, id);
      throw error;
    }
  });
  if (options.json === true) return void console.log(toJson(description));
  const refused = description.refusedErasures.map(
    ({ refusedAtUs, actor, reason, code }): [string, string] => [
      "refused erasure",
      escapeLine(`${formatTime(refusedAtUs)} by ${actor}: ${reason} (${code})`),
    ],
  );
  console.log(renderTable(["tenant", String(id)], [...describe(description), ...refused]));
}

/** Of a tenant whose own master key refused, what is known without its keys. */
async function tellRefused(db: Node, id: TenantId): Promise<void> {
  const before = id === 1n ? {} : { after: TenantId(id - 1n) };
  const [entry] = await db.listTenants({ ...before, limit: 1 });
  if (entry?.id === id && entry.keyAccess === "withdrawn")
    console.log(renderTable(["tenant", String(id)], describeEntry(entry)));
}

/** What is known of a tenant, a line each. */
export function describe(description: TenantDescription): [string, string][] {
  const { quota, logBytes, projectionBytes } = description;
  return [
    ...describeEntry(description),
    ["records", grouped(description.size)],
    ["log", used(logBytes, quota.maxLogBytes)],
    ["SQL database", used(projectionBytes, quota.maxProjectionBytes)],
    ["operations", formatRates(quota)],
  ];
}

function describeEntry(entry: TenantEntry): [string, string][] {
  return [
    ["name", entry.name],
    ["region", entry.region],
    ["state", entry.state],
    ["created", formatTime(entry.createdAtUs)],
    ["retention", `${formatRetention(entry.retentionMs)}, ${entry.retentionMode} mode`],
    ["legal holds", entry.legalHolds.map(({ name }) => escapeLine(name)).join(", ") || "none"],
    ["master key", formatMasterKey(entry)],
  ];
}

function formatMasterKey({ masterKey, keyAccess }: TenantEntry): string {
  if (masterKey === undefined) return "the node's";
  return keyAccess === undefined ? masterKey : `${masterKey}, access ${keyAccess}`;
}

export async function suspendTenant(id: TenantId, options: RecordedOptions): Promise<undefined> {
  reportState(options, await open(options, (db) => db.suspendTenant(id, recorded(options))));
}

export async function resumeTenant(id: TenantId, options: RecordedOptions): Promise<undefined> {
  reportState(options, await open(options, (db) => db.resumeTenant(id, recorded(options))));
}

export async function changeTenantQuota(
  id: TenantId,
  options: RecordedOptions & QuotaFlags,
): Promise<undefined> {
  const quota = await open(options, async (db) => {
    const entry = await (options.server === undefined ? findTenant(db, id) : db.describeTenant(id));
    if (QUOTA_NAMES.every((name) => options[name] === undefined)) return entry.quota;
    return (await db.setQuota(id, changeQuota(entry.quota, options), recorded(options))).quota;
  });
  if (options.json === true) return void console.log(toJson(quota));
  const rows = QUOTA_NAMES.map((name): [string, string] => [name, formatLimit(name, quota[name])]);
  console.log(renderTable(["quota", `tenant ${id}`], rows));
}

/** Every tenant, page by page. */
export async function allTenants(db: Pick<Node, "listTenants">): Promise<TenantEntry[]> {
  const entries: TenantEntry[] = [];
  for (;;) {
    const after = entries.at(-1)?.id;
    const page = await db.listTenants(after === undefined ? { limit: PAGE } : { after, limit: PAGE });
    entries.push(...page);
    if (page.length < PAGE) return entries;
  }
}

/** The entry without opening the tenant; a missing one is refused as everywhere. */
async function findTenant(db: Node, id: TenantId): Promise<TenantEntry> {
  const before = id === 1n ? {} : { after: TenantId(id - 1n) };
  const [entry] = await db.listTenants({ ...before, limit: 1 });
  return entry?.id === id ? entry : db.describeTenant(id);
}

function open<T>(options: GlobalOptions, work: (db: Node) => Promise<T>): Promise<T> {
  return withNode(options, work);
}

function reportState(options: GlobalOptions, entry: TenantEntry): void {
  if (options.json === true) console.log(toJson(entry));
  else console.log(`tenant ${entry.id} is ${entry.state}`);
}

function formatRetention(ms: number): string {
  if (ms === 0) return "none";
  return ms % DAY_MS === 0 ? counted(ms / DAY_MS, "day") : `${(ms / DAY_MS).toFixed(2)} days`;
}

function used(bytes: number, limit: number | undefined): string {
  return limit === undefined ? formatBytes(bytes) : `${formatBytes(bytes)} of ${formatBytes(limit)}`;
}

function formatRates(quota: TenantQuota): string {
  const rates = QUOTA_NAMES.filter((name) => !name.endsWith("Bytes") && quota[name] !== undefined);
  return rates.length === 0 ? "unlimited" : rates.map((name) => `${name} ${quota[name]}`).join(", ");
}

function formatQuota(quota: TenantQuota): string {
  const limits = QUOTA_NAMES.filter((name) => quota[name] !== undefined);
  return limits.length === 0
    ? "none"
    : limits.map((name) => `${name} ${formatLimit(name, quota[name])}`).join("\n");
}

function formatLimit(name: keyof TenantQuota, limit: number | undefined): string {
  if (limit === undefined) return "none";
  return name.endsWith("Bytes") ? formatBytes(limit) : limit.toLocaleString("en-US");
}
