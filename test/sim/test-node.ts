/**
 * A real node on a scratch directory, with what a test needs beside the public API: the projection as it is on the
 * disk, and the same projection built again from the log.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  createMasterKeyFile,
  Kimberlite,
  masterKeyFile,
  type OpenOptions,
  TenantId,
} from "../../src/index.ts";
import { NodeState } from "../../src/node-state.ts";
import { projectionFolder } from "../../src/pipeline/projection-base.ts";
import { removeProjection } from "../../src/pipeline/recovery.ts";
import { replayInto } from "../../src/pipeline/replay-into.ts";
import type { TenantEngine } from "../../src/pipeline/tenant-engine.ts";
import { DEFAULT_LIMITS, openConnection } from "../../src/projection/connection.ts";
import type { SqliteDatabase } from "../../src/projection/sqlite.ts";
import { type DatabaseImage, differences, imageOf } from "./compare-databases.ts";

export type NodeOptions = Partial<Omit<OpenOptions, "dataDir" | "masterKey">>;

export class TestNode implements AsyncDisposable {
  db: Kimberlite;
  readonly #folder: string;
  readonly #options: NodeOptions;
  #node: NodeState;
  #lastTenant = 0n;

  private constructor(folder: string, options: NodeOptions, node: NodeState) {
    this.#folder = folder;
    this.#options = options;
    this.#node = node;
    this.db = facadeOf(node);
  }

  static async open(options: NodeOptions = {}): Promise<TestNode> {
    const folder = mkdtempSync(join(tmpdir(), "kimberlite-sim-"));
    createMasterKeyFile(join(folder, "master.key"));
    return new TestNode(folder, options, await openNode(folder, options));
  }

  async createTenant(): Promise<TenantId> {
    this.#lastTenant += 1n;
    const id = TenantId(this.#lastTenant);
    await this.db.createTenant({ id, name: `tenant ${id}` });
    return id;
  }

  async reopen(): Promise<void> {
    await this.db.close();
    this.#node = await openNode(this.#folder, this.#options);
    this.db = facadeOf(this.#node);
  }

  /** The projection as it is. A read comes first: until one wants it, what is acknowledged may be in the log alone. */
  async liveImage(tenant: TenantId): Promise<DatabaseImage> {
    await this.db.query(tenant, "SELECT 1");
    return this.inspect(tenant, (engine) => openImage(engine, engine.projectionPath));
  }

  /** The projection that the first `untilOffset` records make, built beside the live one. */
  rebuiltImage(tenant: TenantId, untilOffset?: bigint): Promise<DatabaseImage> {
    return this.rebuilt(tenant, imageOf, untilOffset);
  }

  /** Runs work on a projection built anew from the log. */
  async rebuilt<T>(tenant: TenantId, work: (db: SqliteDatabase) => T, untilOffset?: bigint): Promise<T> {
    const node = this.#node;
    return this.inspect(tenant, async (engine) => {
      const path = join(projectionFolder(node.root, tenant), "at-rebuilt.db");
      const { key } = engine.keys.projectionKey();
      const until = untilOffset ?? engine.log.nextOffset;
      removeProjection(node.disk, path);
      await replayInto({ ...node, ...engine, tenant, limits: DEFAULT_LIMITS } as never, {
        log: engine.log,
        path,
        key,
        untilOffset: until,
      });
      try {
        return withDatabase(engine, path, work);
      } finally {
        removeProjection(node.disk, path);
      }
    });
  }

  /** What differs between the live projection and one that is built from the log. */
  async rebuildDifferences(tenant: TenantId): Promise<string[]> {
    const live = await this.liveImage(tenant);
    return differences(live, await this.rebuiltImage(tenant));
  }

  /** Closes the node, deletes the tenant's projection and opens the node again. */
  async loseProjection(tenant: TenantId): Promise<void> {
    await this.leaveWithout(tenant);
    await this.reopen();
  }

  /** Closes the node and deletes the tenant's projection. @returns the folder of `data` and `master.key` */
  async leaveWithout(tenant: TenantId): Promise<string> {
    await this.db.close();
    rmSync(projectionFolder(join(this.#folder, "data"), tenant), { recursive: true });
    return this.#folder;
  }

  /** Names in the tenant's folder. */
  filesOf(tenant: TenantId): string[] {
    return this.#node.disk.list(join(this.#node.root, "tenants", tenant.toString()));
  }

  inspect<T>(tenant: TenantId, work: (engine: TenantEngine) => T | Promise<T>): Promise<T> {
    return this.#node.tenants.use(tenant, work);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.db.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function openNode(folder: string, options: NodeOptions): Promise<NodeState> {
  const masterKey = masterKeyFile(join(folder, "master.key"));
  // Small: most tests write little, and each new directory and each opening would write or read all of it.
  return NodeState.open({
    journalFileBytes: 1024 * 1024,
    ...options,
    dataDir: join(folder, "data"),
    masterKey,
  });
}

/** Opening a node is its façade's; here both are wanted on one node. */
function facadeOf(node: NodeState): Kimberlite {
  return new (Kimberlite as unknown as new (node: NodeState) => Kimberlite)(node);
}

function openImage(engine: TenantEngine, path: string): DatabaseImage {
  return withDatabase(engine, path, imageOf);
}

function withDatabase<T>(engine: TenantEngine, path: string, work: (db: SqliteDatabase) => T): T {
  const { key } = engine.keys.projectionKey();
  const { db } = openConnection({ path, key, role: "read", limits: DEFAULT_LIMITS });
  try {
    return work(db);
  } finally {
    db.close();
  }
}
