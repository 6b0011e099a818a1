/** What callers of one batch are told when its block does not reach the disk. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { KimberliteError } from "../errors.ts";
import { systemDisk } from "../host/disk.ts";
import { createMasterKeyFile, masterKeyFile } from "../keys/master-key-file.ts";
import { Kimberlite } from "../kimberlite.ts";
import { type StreamId, TenantId } from "../tenant/tenant-id.ts";
import { faultyDisk, refusing } from "../testing/faulty-disk.ts";

const TENANT = TenantId(1);

let folder: string;
let db: Kimberlite;
let stream: StreamId;
let refuseNextFrame = false;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "kimberlite-append-"));
  createMasterKeyFile(join(folder, "master.key"));
  const disk = faultyDisk(systemDisk, ({ operation, path }) => {
    if (!refuseNextFrame || operation !== "write" || !path.endsWith(".jnl")) return undefined;
    refuseNextFrame = false;
    return refusing("EIO");
  });
  db = await Kimberlite.open({
    dataDir: join(folder, "data"),
    masterKey: masterKeyFile(join(folder, "master.key")),
    disk,
  });
  await db.createTenant({ id: TENANT, name: "Hospital A" });
  await db.execute(TENANT, "CREATE TABLE notes (body)");
  stream = await db.createStream(TENANT, "vitals");
});

afterEach(async () => {
  await db.close();
  rmSync(folder, { recursive: true });
});

describe("a batch whose block does not reach the disk", () => {
  it("fails every caller who wrote in it, or may have seen what was written", async () => {
    refuseNextFrame = true;
    const outcomes = await Promise.allSettled([
      db.execute(TENANT, "SELECT count(*) AS notes FROM notes"),
      db.execute(TENANT, "INSERT INTO notes VALUES ('lost')"),
      db.execute(TENANT, "SELECT count(*) AS notes FROM notes"),
      db.append(TENANT, stream, ["lost"], { idempotencyKey: "once" }),
      db.append(TENANT, stream, ["lost"], { idempotencyKey: "once" }),
    ]);
    const told = outcomes.map((outcome) =>
      outcome.status === "fulfilled" ? "done" : (outcome.reason as KimberliteError).code,
    );
    expect(told).toEqual(["done", "disk_failed", "disk_failed", "disk_failed", "disk_failed"]);
  });

  it("leaves nothing behind, and the next batch is committed", async () => {
    refuseNextFrame = true;
    await expect(db.append(TENANT, stream, ["lost"], { idempotencyKey: "once" })).rejects.toThrow();
    const { offset } = await db.append(TENANT, stream, ["kept"], { idempotencyKey: "once" });
    const events = [];
    for await (const item of db.read(TENANT, stream)) if (item.kind === "event") events.push(item.data);
    expect({ offset, events }).toEqual({ offset: 0n, events: ["kept"] });
    expect((await db.verifyTenant(TENANT)).ok).toBe(true);
  });
});
