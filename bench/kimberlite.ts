/** The embedded library, as built: what a user of the package runs. */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Dataset, newNote, patient, RANGE_ROWS } from "./dataset.ts";
import type { Subject } from "./subject.ts";

type Library = typeof import("../src/index.ts");
type Database = import("../src/index.ts").Kimberlite;
type OpenOptions = import("../src/index.ts").OpenOptions;
type Quota = import("../src/index.ts").TenantQuota;

const TABLE =
  "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL, dob TEXT NOT NULL, note TEXT NOT NULL)";
const INSERT = "INSERT INTO patients VALUES (?, ?, ?, ?)";
const POINT = "SELECT id, name, dob, note FROM patients WHERE id = ?";
const RANGE = "SELECT id, name, dob, note FROM patients WHERE id BETWEEN ? AND ?";
const UPDATE = "UPDATE patients SET note = ? WHERE id = ?";
const ROWS_A_TRANSACTION = 500;
const AT_ONCE = 32;

/** A module of the build that is measured. */
export async function loadBuilt<T>(build: string, module: string): Promise<T> {
  return (await import(pathToFileURL(join(build, module)).href)) as T;
}

export interface NodeOptions {
  readonly build: string;
  /** Scratch folder; master key and data go into it. */
  readonly folder: string;
  readonly open?: Partial<OpenOptions>;
}

/** Opens a database in a scratch folder, with a new master key if the folder has none. */
export async function openNode(
  options: NodeOptions,
): Promise<{ readonly db: Database; readonly library: Library }> {
  const library = await loadBuilt<Library>(options.build, "index.js");
  const keyPath = join(options.folder, "master.key");
  try {
    library.createMasterKeyFile(keyPath);
  } catch (error) {
    if (!(error instanceof library.KimberliteError) || error.code !== "master_key_exists") throw error;
  }
  const masterKey = library.masterKeyFile(keyPath);
  const db = await library.Kimberlite.open({
    dataDir: join(options.folder, "data"),
    masterKey,
    ...options.open,
  });
  return { db, library };
}

/** Runs `work` for 1 … count, some at a time. */
export async function forEachTenant(
  count: number,
  work: (tenant: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      await work(next);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, worker));
}

export interface Prepared {
  readonly db: Database;
  readonly library: Library;
  readonly subject: Subject;
}

/** A new database with tenants and rows; every tenant is open and was read once when it resolves. */
export async function prepareKimberlite(
  options: NodeOptions,
  dataset: Dataset,
  quota?: Quota,
): Promise<Prepared> {
  const open = { maxOpenTenants: dataset.tenants + 16, ...options.open };
  const { db, library } = await openNode({ ...options, open });
  await forEachTenant(dataset.tenants, async (tenant) => {
    const id = library.TenantId(tenant);
    await db.createTenant({ id, name: `Tenant ${tenant}`, ...(quota === undefined ? {} : { quota }) });
    await db.execute(id, TABLE);
    await fill(db, id, dataset.rowsEach);
    await db.query(id, POINT, [1]);
  });
  return { db, library, subject: subjectOf(db, library, dataset) };
}

async function fill(db: Database, id: ReturnType<Library["TenantId"]>, rows: number): Promise<void> {
  for (let first = 1; first <= rows; first += ROWS_A_TRANSACTION) {
    const count = Math.min(ROWS_A_TRANSACTION, rows - first + 1);
    await db.insert(
      id,
      "patients",
      Array.from({ length: count }, (_, index) => ({ id: first + index, ...patient(first + index) })),
    );
  }
}

function subjectOf(db: Database, library: Library, dataset: Dataset): Subject {
  const ids = Array.from({ length: dataset.tenants + 1 }, (_, tenant) =>
    tenant === 0 ? undefined : library.TenantId(tenant),
  );
  const idOf = (tenant: number): ReturnType<Library["TenantId"]> =>
    ids[tenant] as ReturnType<Library["TenantId"]>;
  return {
    name: "Kimberlite",
    blocking: false,
    insert(tenant, id) {
      const { name, dob, note } = patient(id);
      return db.execute(idOf(tenant), INSERT, [id, name, dob, note]);
    },
    point: (tenant, id) => db.query(idOf(tenant), POINT, [id]),
    range: (tenant, from) => db.query(idOf(tenant), RANGE, [from, from + RANGE_ROWS - 1]),
    update: (tenant, id, turn) => db.execute(idOf(tenant), UPDATE, [newNote(turn), id]),
    close: () => db.close(),
  };
}
