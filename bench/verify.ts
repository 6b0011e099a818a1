/**
 * How fast a log is verified. The log is written with the library's own log, without a projection, so that hundreds of
 * megabytes are there in seconds: blocks of as many records as asked for, each record one inserted row.
 */
import { createSecretKey, type KeyObject, randomBytes } from "node:crypto";
import { patient } from "./dataset.ts";
import { loadBuilt } from "./kimberlite.ts";

export interface VerifyTask {
  readonly build: string;
  readonly folder: string;
  readonly megabytes: number;
  /** Records in each block: 64 is a group commit, 1 a lone caller. */
  readonly recordsEach: number;
  /** True to open every seal and decode every record as well. */
  readonly withKeys: boolean;
  readonly measured?: <T>(stretch: () => Promise<T>) => Promise<T>;
}

export interface Verified {
  readonly bytes: number;
  readonly blocks: number;
  readonly seconds: number;
  readonly megabytesPerSecond: number;
}

type LogModule = typeof import("../src/log/tenant-log.ts");
type RecordModule = typeof import("../src/log/record.ts");
type SegmentModule = typeof import("../src/log/segment.ts");
type VerifyModule = typeof import("../src/log/verify.ts");
type DiskModule = typeof import("../src/host/disk.ts");
type RandomModule = typeof import("../src/host/randomness.ts");

const MEGABYTE = 1_000_000;

/** Writes the log if the folder has none yet, and verifies it. */
export async function measureVerify(task: VerifyTask): Promise<Verified> {
  const { build, folder } = task;
  const { TenantId } = await loadBuilt<typeof import("../src/index.ts")>(build, "index.js");
  const { systemDisk } = await loadBuilt<DiskModule>(build, "host/disk.js");
  const { logFolder } = await loadBuilt<SegmentModule>(build, "log/segment.js");
  const { verifyLog } = await loadBuilt<VerifyModule>(build, "log/verify.js");
  const tenant = TenantId(1);
  const logPath = logFolder(folder, tenant);
  const key = keyOf(folder);
  if (!systemDisk.has(logPath)) await writeLog(task, key);
  const keys = task.withKeys ? { keyOf: () => key } : {};
  const verify = async (): Promise<Verified> => {
    const startedMs = performance.now();
    const report = await verifyLog({ disk: systemDisk, folder: logPath, tenant, ...keys });
    const seconds = (performance.now() - startedMs) / 1_000;
    if (!report.ok) throw new Error(`the log does not verify: ${report.reason}`);
    return { ...report, seconds, megabytesPerSecond: report.bytes / MEGABYTE / seconds };
  };
  return (task.measured ?? ((stretch) => stretch()))(verify);
}

const keysByFolder = new Map<string, KeyObject>();

function keyOf(folder: string): KeyObject {
  const key = keysByFolder.get(folder) ?? createSecretKey(randomBytes(32));
  keysByFolder.set(folder, key);
  return key;
}

async function writeLog(task: VerifyTask, key: KeyObject): Promise<void> {
  const { build, folder, megabytes, recordsEach } = task;
  const { TenantId } = await loadBuilt<typeof import("../src/index.ts")>(build, "index.js");
  const { TenantLog } = await loadBuilt<LogModule>(build, "log/tenant-log.js");
  const { encodeRecord } = await loadBuilt<RecordModule>(build, "log/record.js");
  const { systemDisk } = await loadBuilt<DiskModule>(build, "host/disk.js");
  const { systemRandomness } = await loadBuilt<RandomModule>(build, "host/randomness.js");
  const { logFolder } = await loadBuilt<SegmentModule>(build, "log/segment.js");
  const tenant = TenantId(1);
  systemDisk.makeFolder(logFolder(folder, tenant));
  const log = TenantLog.open({ tenant, root: folder, disk: systemDisk, randomness: systemRandomness() });
  const after = imageOf(patient(1));
  for (let timeUs = 1n; log.head.totalBytes < megabytes * MEGABYTE; timeUs += 1n) {
    const records = Array.from({ length: recordsEach }, (_, index) => {
      const offset = log.nextOffset + BigInt(index);
      return encodeRecord({
        offset,
        timeUs,
        actor: "local",
        changes: [{ kind: "row", stream: 1, key: offset, before: null, after }],
      });
    });
    log.advance(log.prepare({ records, key, dekVersion: 1, epoch: 0n, timeUs }));
  }
  log.close();
}

/** As large as a row image of the table; its content is read by nobody. */
function imageOf(row: object): Buffer {
  return Buffer.from(JSON.stringify(row));
}
