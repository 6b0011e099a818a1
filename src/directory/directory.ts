/**
 * The directory: which tenants there are, and what is known of each without opening it.
 *
 * It is a table of the system tenant, written through the same pipeline, log and projection as any tenant's data; the
 * whole of it is held in memory (O(tenants)), so that nothing is routed by a query. Changes are in memory only after
 * they are durable.
 */
import { kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import { Region } from "../tenant/region.ts";
import type { TenantEntry, TenantQuota, TenantState } from "../tenant/tenant-config.ts";
import { TenantId } from "../tenant/tenant-id.ts";

export interface DirectoryEntry extends TenantEntry {
  /** True once the tenant's log has a record: from then on a missing log is damage, not emptiness. */
  readonly hasLog: boolean;
}

const SCHEMA = `CREATE TABLE tenants (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, region TEXT NOT NULL, retention_ms INTEGER NOT NULL,
  quota TEXT NOT NULL, state TEXT NOT NULL, created_at_us INTEGER NOT NULL, has_log INTEGER NOT NULL) STRICT`;

const ACTOR = { actor: "system" };

interface CatalogRow {
  readonly id: number | bigint;
  readonly name: string;
  readonly region: string;
  readonly retention_ms: number;
  readonly quota: string;
  readonly state: string;
  readonly created_at_us: number | bigint;
  readonly has_log: number;
}

export class Directory {
  readonly #system: () => Promise<TenantEngine>;
  readonly #clock: Clock;
  readonly #entries: Map<TenantId, DirectoryEntry> = new Map();
  /** Ids whose creation is under way. */
  readonly #creating: Set<TenantId> = new Set();
  #sorted: TenantId[] | undefined;

  private constructor(system: () => Promise<TenantEngine>, clock: Clock) {
    this.#system = system;
    this.#clock = clock;
  }

  /**
   * Loads the catalogue from the system tenant, creating it in a new installation.
   *
   * @param system gives the system tenant's engine, as it is then: it may be opened anew between two changes.
   * @throws `catalog_damaged`
   */
  static async load(system: () => Promise<TenantEngine>, clock: Clock): Promise<Directory> {
    const directory = new Directory(system, clock);
    const engine = await system();
    const tables = (await engine.settledReader()).query({
      sql: "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'tenants'",
    });
    if (tables.rows.length === 0)
      await engine.pipeline.submit(ACTOR, (session) => void session.run({ sql: SCHEMA }));
    const { rows } = (await engine.settledReader()).query({ sql: "SELECT * FROM tenants" });
    for (const row of rows) directory.#remember(parseRow(row as unknown as CatalogRow));
    return directory;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** @throws `tenant_not_found` */
  get(id: TenantId): DirectoryEntry {
    const entry = this.#entries.get(id);
    if (entry === undefined) {
      throw kimberliteError("tenant_not_found", `tenant ${id} does not exist`, { detail: { tenant: id } });
    }
    return entry;
  }

  /** Entries in order of id, after `after`, at most `limit`. */
  list(page: { readonly after?: TenantId | undefined; readonly limit: number }): DirectoryEntry[] {
    this.#sorted ??= [...this.#entries.keys()].sort((a, b) => (a < b ? -1 : 1));
    const start = page.after === undefined ? 0 : firstAbove(this.#sorted, page.after);
    return this.#sorted.slice(start, start + page.limit).map((id) => this.#entries.get(id) as DirectoryEntry);
  }

  /**
   * Adds a tenant. `prepare` makes what must be durable before the tenant exists (its keys).
   *
   * @throws `tenant_exists`; whatever `prepare` throws
   */
  async create(
    config: Omit<TenantEntry, "state" | "createdAtUs">,
    prepare: () => Promise<void>,
  ): Promise<DirectoryEntry> {
    const { id } = config;
    if (this.#entries.has(id) || this.#creating.has(id)) {
      throw kimberliteError("tenant_exists", `tenant ${id} exists already`, { detail: { tenant: id } });
    }
    this.#creating.add(id);
    try {
      const entry: DirectoryEntry = {
        ...config,
        state: "active",
        createdAtUs: this.#clock.wallTimeUs(),
        hasLog: false,
      };
      await prepare();
      await this.#insert(entry);
      this.#remember(entry);
      return entry;
    } finally {
      this.#creating.delete(id);
    }
  }

  async setState(id: TenantId, state: TenantState): Promise<DirectoryEntry> {
    return this.#change(id, { state });
  }

  async setQuota(id: TenantId, quota: TenantQuota): Promise<DirectoryEntry> {
    return this.#change(id, { quota });
  }

  async setRetention(id: TenantId, retentionMs: number): Promise<DirectoryEntry> {
    return this.#change(id, { retentionMs });
  }

  async noteFirstWrite(id: TenantId): Promise<void> {
    if (!this.get(id).hasLog) await this.#change(id, { hasLog: true });
  }

  async #insert(entry: DirectoryEntry): Promise<void> {
    const { id, name, region, retentionMs, quota, state, createdAtUs } = entry;
    const params = [id, name, region, retentionMs, JSON.stringify(quota), state, createdAtUs];
    const { pipeline } = await this.#system();
    await pipeline.submit(ACTOR, (session) => {
      session.run({ sql: "INSERT INTO tenants VALUES (?, ?, ?, ?, ?, ?, ?, 0)", params });
    });
  }

  async #change(id: TenantId, change: Partial<DirectoryEntry>): Promise<DirectoryEntry> {
    this.get(id);
    const columns = {
      quota: "quota",
      state: "state",
      retentionMs: "retention_ms",
      hasLog: "has_log",
    } as const;
    const { pipeline } = await this.#system();
    await pipeline.submit(ACTOR, (session) => {
      for (const [field, column] of Object.entries(columns)) {
        const value = change[field as keyof typeof columns];
        if (value === undefined) continue;
        const stored = typeof value === "object" ? JSON.stringify(value) : value;
        session.run({ sql: `UPDATE tenants SET ${column} = ? WHERE id = ?`, params: [stored, id] });
      }
    });
    const entry = { ...this.get(id), ...change };
    this.#remember(entry);
    return entry;
  }

  #remember(entry: DirectoryEntry): void {
    if (!this.#entries.has(entry.id)) this.#sorted = undefined;
    this.#entries.set(entry.id, Object.freeze(entry));
  }
}

function parseRow(row: CatalogRow): DirectoryEntry {
  try {
    return {
      id: TenantId(row.id),
      name: row.name,
      region: Region.of(row.region),
      retentionMs: row.retention_ms,
      quota: Object.freeze(JSON.parse(row.quota) as TenantQuota),
      state: row.state as TenantState,
      createdAtUs: BigInt(row.created_at_us),
      hasLog: row.has_log === 1,
    };
  } catch (cause) {
    throw kimberliteError("catalog_damaged", "the catalogue holds a row that is no tenant", { cause });
  }
}

/** Index of the first id above `id` in an ascending list. */
function firstAbove(ids: readonly TenantId[], id: TenantId): number {
  let low = 0;
  let high = ids.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ids[middle] as TenantId) <= id) low = middle + 1;
    else high = middle;
  }
  return low;
}
