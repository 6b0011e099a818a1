/**
 * The catalogue's tables in the system tenant, and their rows. Tables are added, never altered: a reader of the log that
 * knows an earlier version still finds `tenants` as it was.
 */
import { kimberliteError } from "../errors.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import type { WriteSession } from "../projection/writer.ts";
import type { RecordedTime } from "../retention/trusted-clock.ts";
import { GRANTS_TABLE } from "../sharing/grant-rows.ts";
import { Region } from "../tenant/region.ts";
import type {
  LegalHold,
  RetentionMode,
  TenantEntry,
  TenantQuota,
  TenantState,
} from "../tenant/tenant-config.ts";
import { TenantId } from "../tenant/tenant-id.ts";

export interface DirectoryEntry extends TenantEntry {
  /** True once the tenant's log has a record: from then on a missing log is damage, not emptiness. */
  readonly hasLog: boolean;
  /** The master key that the tenant held before, while its KEK moves from that to another. */
  readonly formerMasterKey?: string;
}

/** What of an entry is for whoever asks about a tenant. */
export function toTenantEntry(entry: TenantEntry & Partial<DirectoryEntry>): TenantEntry {
  const { hasLog: _log, formerMasterKey: _key, ...known } = entry;
  return known;
}

/** An erasure that has begun, and its certificate once it has ended. */
export interface ErasureRow {
  readonly tenant: TenantId;
  readonly beganAtUs: bigint;
  readonly actor: string;
  readonly reason: string;
  /** What the certificate says of the tenant, gathered before the keys were destroyed. */
  readonly facts: string;
  readonly certificate: string | undefined;
}

/** An erasure that was asked for and refused: offered again when what forbade it has ended. */
export interface RefusedErasure {
  readonly tenant: TenantId;
  readonly refusedAtUs: bigint;
  readonly actor: string;
  readonly reason: string;
  /** `legal_hold`, `retention_not_over` or `retention_locked`. */
  readonly code: string;
}

const TABLES: Readonly<Record<string, string>> = {
  tenants: `CREATE TABLE tenants (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, region TEXT NOT NULL, retention_ms INTEGER NOT NULL,
  quota TEXT NOT NULL, state TEXT NOT NULL, created_at_us INTEGER NOT NULL, has_log INTEGER NOT NULL) STRICT`,
  tenant_policies: `CREATE TABLE tenant_policies (
  tenant INTEGER PRIMARY KEY, retention_mode TEXT NOT NULL, master_key TEXT) STRICT`,
  legal_holds: `CREATE TABLE legal_holds (
  tenant INTEGER NOT NULL, name TEXT NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL,
  placed_at_us INTEGER NOT NULL, PRIMARY KEY (tenant, name)) STRICT`,
  erasures: `CREATE TABLE erasures (
  tenant INTEGER PRIMARY KEY, began_at_us INTEGER NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
  facts TEXT NOT NULL, certificate TEXT) STRICT`,
  refused_erasures: `CREATE TABLE refused_erasures (
  tenant INTEGER NOT NULL, refused_at_us INTEGER NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
  code TEXT NOT NULL) STRICT`,
  api_keys: `CREATE TABLE api_keys (
  id TEXT PRIMARY KEY, tenant INTEGER NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL,
  grant_id TEXT, enrolment INTEGER NOT NULL, created_at_us INTEGER NOT NULL, created_by TEXT NOT NULL,
  expires_at_us INTEGER, revoked_at_us INTEGER) STRICT`,
  api_key_uses: `CREATE TABLE api_key_uses (id TEXT PRIMARY KEY, last_used_at_us INTEGER NOT NULL) STRICT`,
  issuers: `CREATE TABLE issuers (
  tenant INTEGER NOT NULL, issuer TEXT NOT NULL, config TEXT NOT NULL, created_at_us INTEGER NOT NULL,
  created_by TEXT NOT NULL, PRIMARY KEY (tenant, issuer)) STRICT`,
  grants: GRANTS_TABLE,
  trusted_time: `CREATE TABLE trusted_time (
  id INTEGER PRIMARY KEY CHECK (id = 1), trusted_us INTEGER NOT NULL, wall_us INTEGER NOT NULL) STRICT`,
};

const ACTOR = { actor: "system", unmetered: true };

export type SqlRow = Record<string, number | bigint | string | null>;

/** Everything that the catalogue holds, read once at the start. */
export interface LoadedCatalogue {
  readonly entries: readonly DirectoryEntry[];
  readonly recordedTime: RecordedTime | undefined;
  readonly refused: readonly RefusedErasure[];
}

/** Makes the tables that are absent, then reads all of them. @throws `catalog_damaged` */
export async function loadCatalogue(engine: TenantEngine): Promise<LoadedCatalogue> {
  const present = (await select(engine, "SELECT name FROM sqlite_master WHERE type = 'table'")).map(
    (row) => row["name"],
  );
  const absent = Object.entries(TABLES).filter(([name]) => !present.includes(name));
  if (absent.length > 0) {
    await engine.pipeline.submit(ACTOR, (session) => {
      for (const [, sql] of absent) session.run({ sql });
    });
  }
  const holds = Map.groupBy(await select(engine, "SELECT * FROM legal_holds ORDER BY name"), (row) =>
    BigInt(row["tenant"] ?? 0),
  );
  const policies = new Map(
    (await select(engine, "SELECT * FROM tenant_policies")).map((row) => [BigInt(row["tenant"] ?? 0), row]),
  );
  const entries = (await select(engine, "SELECT * FROM tenants")).map((row) => {
    const id = BigInt(row["id"] ?? 0);
    return parseEntry(row, { policy: policies.get(id), holds: holds.get(id) ?? [] });
  });
  const [time] = await select(engine, "SELECT * FROM trusted_time");
  return {
    entries,
    recordedTime:
      time === undefined
        ? undefined
        : { trustedUs: integer(time, "trusted_us"), wallUs: integer(time, "wall_us") },
    refused: (await select(engine, "SELECT * FROM refused_erasures ORDER BY refused_at_us")).map(
      parseRefused,
    ),
  };
}

/** @throws `catalog_damaged` */
export async function readErasure(engine: TenantEngine, tenant: TenantId): Promise<ErasureRow | undefined> {
  const [row] = await select(engine, "SELECT * FROM erasures WHERE tenant = ?", [tenant]);
  if (row === undefined) return undefined;
  return {
    tenant,
    beganAtUs: integer(row, "began_at_us"),
    actor: text(row, "actor"),
    reason: text(row, "reason"),
    facts: text(row, "facts"),
    certificate: row["certificate"] === null ? undefined : text(row, "certificate"),
  };
}

export function insertEntry(session: WriteSession, entry: DirectoryEntry): void {
  const { id, name, region, retentionMs, quota, state, createdAtUs, hasLog } = entry;
  const params = [id, name, region, retentionMs, JSON.stringify(quota), state, createdAtUs, hasLog ? 1 : 0];
  session.run({ sql: "INSERT INTO tenants VALUES (?, ?, ?, ?, ?, ?, ?, ?)", params });
  putPolicy(session, entry);
}

/** Only what differs from what an absent row says is written: most tenants have none. */
function putPolicy(session: WriteSession, entry: DirectoryEntry): void {
  const { id, retentionMode, masterKey, formerMasterKey } = entry;
  const held = [masterKey, formerMasterKey].filter((uri) => uri !== undefined).join(" ");
  const sql =
    retentionMode === "governance" && held === ""
      ? { sql: "DELETE FROM tenant_policies WHERE tenant = ?", params: [id] }
      : {
          sql: "INSERT OR REPLACE INTO tenant_policies VALUES (?, ?, ?)",
          params: [id, retentionMode, held === "" ? null : held],
        };
  session.run(sql);
}

const COLUMNS = { quota: "quota", state: "state", retentionMs: "retention_ms", hasLog: "has_log" } as const;

const POLICY_FIELDS = ["retentionMode", "masterKey", "formerMasterKey"] as const;

export function updateEntry(session: WriteSession, entry: DirectoryEntry, fields: readonly string[]): void {
  for (const [field, column] of Object.entries(COLUMNS)) {
    if (!fields.includes(field)) continue;
    const value = entry[field as keyof typeof COLUMNS];
    const stored = typeof value === "object" ? JSON.stringify(value) : value;
    session.run({ sql: `UPDATE tenants SET ${column} = ? WHERE id = ?`, params: [stored, entry.id] });
  }
  if (POLICY_FIELDS.some((field) => fields.includes(field))) putPolicy(session, entry);
}

export function insertHold(session: WriteSession, tenant: TenantId, hold: LegalHold): void {
  const params = [tenant, hold.name, hold.reason, hold.actor, hold.placedAtUs];
  session.run({ sql: "INSERT INTO legal_holds VALUES (?, ?, ?, ?, ?)", params });
}

export function deleteHold(session: WriteSession, tenant: TenantId, name: string): void {
  session.run({ sql: "DELETE FROM legal_holds WHERE tenant = ? AND name = ?", params: [tenant, name] });
}

export function insertRefused(session: WriteSession, refused: RefusedErasure): void {
  const params = [refused.tenant, refused.refusedAtUs, refused.actor, refused.reason, refused.code];
  session.run({ sql: "INSERT INTO refused_erasures VALUES (?, ?, ?, ?, ?)", params });
}

export function deleteRefused(session: WriteSession, tenant: TenantId): void {
  session.run({ sql: "DELETE FROM refused_erasures WHERE tenant = ?", params: [tenant] });
}

/** Asked inside the transaction that begins an erasure: a hold that was acknowledged is seen there. @throws `legal_hold` */
export function requireNoHold(session: WriteSession, tenant: TenantId): void {
  const { rows } = session.run({ sql: "SELECT name FROM legal_holds WHERE tenant = ?", params: [tenant] });
  if (rows.length === 0) return;
  throw kimberliteError("legal_hold", `a legal hold forbids it for tenant ${tenant}`, {
    detail: { tenant, holds: rows.length },
  });
}

/** @throws `tenant_erasing` */
export function requireNoErasure(session: WriteSession, tenant: TenantId): void {
  const { rows } = session.run({ sql: "SELECT tenant FROM erasures WHERE tenant = ?", params: [tenant] });
  if (rows.length === 0) return;
  throw kimberliteError("tenant_erasing", `tenant ${tenant} is being erased`, { detail: { tenant } });
}

export function insertErasure(session: WriteSession, row: ErasureRow): void {
  const params = [row.tenant, row.beganAtUs, row.actor, row.reason, row.facts];
  session.run({ sql: "INSERT INTO erasures VALUES (?, ?, ?, ?, ?, NULL)", params });
}

export function putErasureFacts(session: WriteSession, tenant: TenantId, facts: string): void {
  session.run({ sql: "UPDATE erasures SET facts = ? WHERE tenant = ?", params: [facts, tenant] });
}

export function putCertificate(session: WriteSession, tenant: TenantId, certificate: string): void {
  session.run({ sql: "UPDATE erasures SET certificate = ? WHERE tenant = ?", params: [certificate, tenant] });
}

export function putTime(session: WriteSession, time: RecordedTime): void {
  session.run({
    sql: "INSERT OR REPLACE INTO trusted_time VALUES (1, ?, ?)",
    params: [time.trustedUs, time.wallUs],
  });
}

export async function select(
  engine: TenantEngine,
  sql: string,
  params: readonly bigint[] = [],
): Promise<SqlRow[]> {
  const reader = await engine.settledReader();
  return reader.query({ sql, params }).rows as unknown as SqlRow[];
}

function parseEntry(
  row: SqlRow,
  beside: { readonly policy: SqlRow | undefined; readonly holds: readonly SqlRow[] },
): DirectoryEntry {
  try {
    const { policy } = beside;
    const [masterKey, formerMasterKey] = String(policy?.["master_key"] ?? "").split(" ");
    return {
      id: TenantId(row["id"] as bigint),
      name: text(row, "name"),
      region: Region.of(text(row, "region")),
      retentionMs: Number(row["retention_ms"]),
      retentionMode: (policy?.["retention_mode"] ?? "governance") as RetentionMode,
      legalHolds: beside.holds.map(parseHold),
      quota: Object.freeze(JSON.parse(text(row, "quota")) as TenantQuota),
      ...(masterKey ? { masterKey } : {}),
      ...(formerMasterKey === undefined ? {} : { formerMasterKey }),
      state: text(row, "state") as TenantState,
      createdAtUs: integer(row, "created_at_us"),
      hasLog: Number(row["has_log"]) === 1,
    };
  } catch (cause) {
    throw damaged(cause);
  }
}

function parseHold(row: SqlRow): LegalHold {
  return {
    name: text(row, "name"),
    reason: text(row, "reason"),
    actor: text(row, "actor"),
    placedAtUs: integer(row, "placed_at_us"),
  };
}

function parseRefused(row: SqlRow): RefusedErasure {
  return {
    tenant: TenantId(integer(row, "tenant")),
    refusedAtUs: integer(row, "refused_at_us"),
    actor: text(row, "actor"),
    reason: text(row, "reason"),
    code: text(row, "code"),
  };
}

export function text(row: SqlRow, column: string): string {
  const value = row[column];
  if (typeof value === "string") return value;
  throw damaged();
}

export function integer(row: SqlRow, column: string): bigint {
  const value = row[column];
  if (typeof value === "bigint" || Number.isSafeInteger(value)) return BigInt(value as bigint | number);
  throw damaged();
}

export function damaged(cause?: unknown): Error {
  const message = "the catalogue holds a row that is not what it should be";
  return kimberliteError("catalog_damaged", message, cause === undefined ? {} : { cause });
}
