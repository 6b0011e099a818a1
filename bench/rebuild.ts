/** How fast a projection is rebuilt from its log: the files are deleted, and the tenant is opened again. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { patient } from "./dataset.ts";
import { openNode } from "./kimberlite.ts";

export interface RebuildTask {
  readonly build: string;
  readonly folder: string;
  /** Row changes in the log. */
  readonly changes: number;
  /** Rows that each transaction of the log changed. */
  readonly rowsEach: number;
  readonly measured?: <T>(stretch: () => Promise<T>) => Promise<T>;
}

export interface Rebuilt {
  readonly changes: number;
  readonly seconds: number;
  readonly changesPerSecond: number;
}

const CALLERS = 64;
const TABLE =
  "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL, dob TEXT NOT NULL, note TEXT NOT NULL)";

export async function measureRebuild(task: RebuildTask): Promise<Rebuilt> {
  await writeLog(task);
  rmSync(join(task.folder, "data", "tenants", "1", "projection"), { recursive: true });
  let changes = 0;
  const open = {
    onProgress: (progress: { readonly changes: number }): void => {
      changes = progress.changes;
    },
  };
  const { db, library } = await openNode({ ...task, open });
  try {
    const rebuild = async (): Promise<number> => {
      const startedMs = performance.now();
      await db.describeTenant(library.TenantId(1));
      return (performance.now() - startedMs) / 1_000;
    };
    const seconds = await (task.measured ?? ((stretch) => stretch()))(rebuild);
    if (changes < task.changes) throw new Error(`only ${changes} of ${task.changes} changes were replayed`);
    return { changes, seconds, changesPerSecond: changes / seconds };
  } finally {
    await db.close();
  }
}

async function writeLog(task: RebuildTask): Promise<void> {
  const { db, library } = await openNode(task);
  const id = library.TenantId(1);
  await db.createTenant({ id, name: "Rebuilt" });
  await db.execute(id, TABLE);
  let next = 1;
  const caller = async (): Promise<void> => {
    while (next <= task.changes) {
      const first = next;
      next += task.rowsEach;
      const rows = Array.from({ length: task.rowsEach }, (_, index) => ({
        id: first + index,
        ...patient(first + index),
      }));
      await db.insert(id, "patients", rows);
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
  await db.close();
}
