/** A journal that was interrupted while it closed opens again, with what was committed. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { systemDisk } from "../host/disk.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { faultyDisk, refusing } from "../testing/faulty-disk.ts";
import { Journal } from "./journal.ts";
import { logFolder, segmentPath } from "./segment.ts";

const TENANT = TenantId(1);
let root: string;
let committed: string[];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "kimberlite-journal-"));
  committed = [];
  mkdirSync(logFolder(root, TENANT), { recursive: true });
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

/** Opens, commits, and closes until the write of that number, which the disk and all after it refuse. */
async function session(commits: number, writesBeforeEnd: number): Promise<boolean> {
  let closing = false;
  let writes = 0;
  const disk = faultyDisk(systemDisk, ({ operation }) => {
    if (!closing || operation !== "write") return undefined;
    writes += 1;
    return writes > writesBeforeEnd ? refusing("EIO") : undefined;
  });
  const journal = await Journal.open(root, disk, 64 * 1024);
  expect(systemDisk.readFile(segmentPath(logFolder(root, TENANT), 0n))?.toString() ?? "").toBe(
    committed.join(""),
  );
  for (let left = commits; left > 0; left -= 1) await commit(journal);
  closing = true;
  return journal.close().then(
    () => true,
    () => false,
  );
}

async function commit(journal: Journal): Promise<void> {
  const bytes = Buffer.from(`block ${committed.length};`);
  const position = Buffer.byteLength(committed.join(""));
  await new Promise<void>((resolve, reject) => {
    journal.commit({ tenant: TENANT, segment: 0n, position, bytes }, (error) =>
      error === undefined ? resolve() : reject(error as Error),
    );
  });
  committed.push(bytes.toString());
  // As the tenant's log does; a clean end leaves nothing to replay.
  const segment = systemDisk.open(segmentPath(logFolder(root, TENANT), 0n), "create");
  segment.write(bytes, position);
  segment.close();
}

it.each([
  { name: "without a commit", plan: [2, 0, 0, 0, 1, 0, 0] },
  { name: "after commits", plan: [2, 3, 1, 2, 1] },
])("opens after an end at any write of closing, $name", async ({ plan }) => {
  for (let end = 0; end < 6; end += 1) {
    for (const commits of plan) await session(commits, end);
    // A clean end, so that the next round begins from it.
    expect(await session(1, Number.POSITIVE_INFINITY)).toBe(true);
  }
});
