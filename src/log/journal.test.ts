import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { VolatileDisk } from "../../test/crash/volatile-disk.ts";
import { type Disk, systemDisk } from "../host/disk.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { faultyDisk, type Judge, refusing } from "../testing/faulty-disk.ts";
import { seeded } from "../testing/seeded.ts";
import { Journal } from "./journal.ts";
import { type FileFrames, type JournalEntry, readFrames, refuseLostFrames } from "./journal-frame.ts";
import { logFolder, segmentPath } from "./segment.ts";

const FILE_BYTES = 8 * 1024;

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "kimberlite-journal-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** Tenants that append to segments through a journal, as the pipeline does. */
class Writers {
  readonly contents: Map<bigint, Buffer> = new Map();
  readonly #disk: Disk;
  readonly #at: string;
  journal: Journal;

  private constructor(at: string, disk: Disk, journal: Journal) {
    this.#at = at;
    this.#disk = disk;
    this.journal = journal;
  }

  static async open(at: string = root, disk: Disk = systemDisk): Promise<Writers> {
    return new Writers(at, disk, await Journal.open(at, disk, FILE_BYTES));
  }

  entry(tenant: number, bytes: Buffer): JournalEntry {
    const id = TenantId(tenant);
    const folder = logFolder(this.#at, id);
    if (!this.#disk.has(folder)) {
      this.#disk.makeFolder(folder);
      // As the pipeline does before a tenant's first block.
      for (const path of [folder, join(folder, ".."), join(folder, "../.."), this.#at])
        this.#disk.syncFolder(path);
    }
    return { tenant: id, segment: 0n, position: this.contents.get(id)?.length ?? 0, bytes };
  }

  /** Commits without writing the segment. */
  commit(entry: JournalEntry): Promise<void> {
    return new Promise((resolve, reject) => {
      this.journal.commit(entry, (error) => (error === undefined ? resolve() : reject(error as Error)));
    });
  }

  async append(tenant: number, bytes: Buffer): Promise<void> {
    const entry = this.entry(tenant, bytes);
    await this.commit(entry);
    this.contents.set(
      entry.tenant,
      Buffer.concat([this.contents.get(entry.tenant) ?? Buffer.alloc(0), bytes]),
    );
    const file = this.#disk.open(segmentPath(logFolder(this.#at, entry.tenant), 0n), "create");
    file.write(bytes, entry.position);
    file.close();
  }
}

function content(at: string, tenant: number): Buffer {
  return readFileSync(segmentPath(logFolder(at, TenantId(tenant)), 0n));
}

function sealed(size: number, fill: number): Buffer {
  return Buffer.alloc(size, fill);
}

function journalPath(index: number): string {
  return join(root, "journal", `${index}.jnl`);
}

/** Leaves the process's state behind, as a kill does. */
async function reopen(disk: Disk = systemDisk): Promise<Journal> {
  return Journal.open(root, disk, FILE_BYTES);
}

describe("a journal that is opened again", () => {
  it("writes into segments what never got there, and does so again and again", async () => {
    const writers = await Writers.open();
    const bytes = [sealed(300, 1), sealed(2_000, 2), sealed(40, 3)];
    for (const part of bytes) {
      const entry = writers.entry(1, part);
      await writers.commit(entry);
      writers.contents.set(
        entry.tenant,
        Buffer.concat([writers.contents.get(entry.tenant) ?? Buffer.alloc(0), part]),
      );
    }
    expect(readdirSync(logFolder(root, TenantId(1)))).toEqual([]);
    for (let time = 0; time < 3; time += 1) {
      await reopen();
      expect(content(root, 1)).toEqual(Buffer.concat(bytes));
    }
  });

  it("mends a segment that is short, and one whose middle was lost", async () => {
    const writers = await Writers.open();
    for (let index = 1; index <= 5; index += 1) await writers.append(1, sealed(500, index));
    const path = segmentPath(logFolder(root, TenantId(1)), 0n);
    truncateSync(path, 700);
    await reopen();
    expect(content(root, 1)).toEqual(writers.contents.get(TenantId(1)));
    writeFileSync(path, Buffer.concat([content(root, 1).subarray(0, 600), Buffer.alloc(1_900)]));
    await reopen();
    expect(content(root, 1)).toEqual(writers.contents.get(TenantId(1)));
  });

  it("leaves an erased tenant erased", async () => {
    const writers = await Writers.open();
    await writers.append(1, sealed(500, 1));
    await writers.append(2, sealed(500, 2));
    rmSync(join(root, "tenants", "1"), { recursive: true });
    await reopen();
    expect(readdirSync(join(root, "tenants"))).toEqual(["2"]);
  });

  it("does without a torn last frame, wherever it is torn", async () => {
    const writers = await Writers.open();
    await writers.append(1, sealed(700, 1));
    await writers.append(1, sealed(1_500, 2));
    const whole = readFileSync(journalPath(0));
    const lastFrame = 1_024;
    for (let at = lastFrame; at < lastFrame + 1_596; at += 97) {
      const torn = Buffer.from(whole);
      torn.fill(0, at);
      writeFileSync(journalPath(0), torn);
      writeFileSync(journalPath(1), Buffer.alloc(FILE_BYTES));
      rmSync(segmentPath(logFolder(root, TenantId(1)), 0n));
      await reopen();
      expect(content(root, 1)).toEqual(sealed(700, 1));
    }
  });

  it("refuses to open when a frame before others is damaged, in either file, whichever bit it is", async () => {
    const writers = await Writers.open();
    while (readFileSync(journalPath(1)).every((byte) => byte === 0)) await writers.append(1, sealed(400, 7));
    await writers.append(1, sealed(400, 7));
    await writers.append(1, sealed(400, 8));
    const [first, second] = [readFileSync(journalPath(0)), readFileSync(journalPath(1))];
    const headerAndEntry = 64 + 32 + 400;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(0, 1),
        fc.nat(headerAndEntry - 1),
        fc.nat(7),
        async (file, at, bit) => {
          const damaged = Buffer.from(file === 0 ? first : second);
          // The second frame of each file: there are others behind it, and one before.
          const place = 512 + at;
          damaged.writeUInt8(damaged.readUInt8(place) ^ (1 << bit), place);
          writeFileSync(journalPath(0), file === 0 ? damaged : first);
          writeFileSync(journalPath(1), file === 1 ? damaged : second);
          await expect(reopen()).rejects.toMatchObject({
            code: expect.stringMatching(/^(journal_damaged|format_too_new)$/),
          });
        },
      ),
      { numRuns: 150 },
    );
  });

  it("refuses a newest file whose first frame is damaged", async () => {
    const writers = await Writers.open();
    for (let index = 0; index < 3; index += 1) await writers.append(1, sealed(400, index + 1));
    const damaged = readFileSync(journalPath(0));
    damaged.writeUInt8(damaged.readUInt8(100) ^ 1, 100);
    writeFileSync(journalPath(0), damaged);
    await expect(reopen()).rejects.toMatchObject({ code: "journal_damaged" });
  });

  it("opens whatever turns and reopenings left stale, with a first frame torn at any sector", async () => {
    const chance = seeded(11);
    const writers = await Writers.open();
    for (let time = 0; time < 12; time += 1) {
      const frames = 1 + chance.below(time % 4 === 3 ? 40 : 5);
      for (let index = 0; index < frames; index += 1)
        await writers.append(1, sealed(100 + chance.below(900), index + 1));
      const newest = segmentPath(logFolder(root, TenantId(1)), 0n);
      const before = readFileSync(newest);
      // The next first frame goes to the file that reopening begins anew: torn there, it was never acknowledged.
      writers.journal = await reopen();
      const files = [0, 1].map((index) => readFileSync(journalPath(index)));
      const begun = files.findIndex((file) => file.subarray(0, 512).every((byte) => byte === 0));
      const torn = Buffer.from(files[begun] as Buffer);
      torn.fill(0xee, 512 * chance.below(3), 512 * 3);
      writeFileSync(journalPath(begun), torn);
      writers.journal = await reopen();
      expect(readFileSync(newest)).toEqual(before);
    }
  });

  it("has nothing to replay after a close", async () => {
    const writers = await Writers.open();
    for (let index = 0; index < 30; index += 1) await writers.append(1, sealed(600, index + 1));
    await writers.journal.close();
    const path = segmentPath(logFolder(root, TenantId(1)), 0n);
    writeFileSync(path, "as it was left");
    await (await reopen()).close();
    expect(readFileSync(path, "utf8")).toBe("as it was left");
  });
});

describe("a running journal", () => {
  it("carries entries larger than its files, and goes on", async () => {
    const writers = await Writers.open();
    await writers.append(1, sealed(3 * FILE_BYTES, 1));
    await writers.append(1, sealed(FILE_BYTES, 2));
    await writers.append(2, sealed(5 * FILE_BYTES, 3));
    await writers.append(1, sealed(10, 4));
    for (const tenant of [1, 2]) rmSync(segmentPath(logFolder(root, TenantId(tenant)), 0n));
    // Only what the two files still hold comes back; the rest was durable in its segment before.
    await reopen();
    expect(content(root, 2)).toEqual(sealed(5 * FILE_BYTES, 3));
  });

  it("takes thousands of entries of many tenants at once", async () => {
    const writers = await Writers.open();
    const waiting: Promise<void>[] = [];
    for (let round = 0; round < 20; round += 1) {
      for (let tenant = 1; tenant <= 150; tenant += 1) {
        const entry = { ...writers.entry(tenant, sealed(64, tenant)), position: round * 64 };
        waiting.push(writers.commit(entry));
      }
    }
    await Promise.all(waiting);
    await reopen();
    for (const tenant of [1, 75, 150]) expect(content(root, tenant)).toEqual(sealed(20 * 64, tenant));
  });

  it("holds no byte of any tenant once it is recycled, also with commits all the while", async () => {
    const writers = await Writers.open();
    const secret = Buffer.from("sealed block of the tenant that is erased");
    for (let index = 0; index < 40; index += 1)
      await writers.append(1, Buffer.concat([secret, sealed(400, index + 1)]));
    const more = Array.from({ length: 20 }, () =>
      writers.commit({ ...writers.entry(2, sealed(300, 9)), position: 0 }),
    );
    await writers.journal.recycle();
    for (const index of [0, 1]) {
      expect(readFileSync(journalPath(index)).includes(secret)).toBe(false);
      expect(readFileSync(journalPath(index)).indexOf("KJNL")).toBeLessThanOrEqual(0);
    }
    await Promise.all(more);
    await writers.append(2, sealed(300, 9));
    const third = await reopen();
    expect(content(root, 2)).toEqual(sealed(300, 9));
    await third.close();
  });

  it("is whole at every instant while it is recycled for several at once, with commits all the while", async () => {
    const instants: (readonly [Buffer, Buffer])[] = [];
    const look = (): void => void instants.push([readFileSync(journalPath(0)), readFileSync(journalPath(1))]);
    let open = false;
    const judge: Judge = (call) => {
      if (open && call.path.endsWith(".jnl") && call.operation === "write") look();
      return undefined;
    };
    const writers = await Writers.open(root, faultyDisk(systemDisk, judge));
    open = true;
    for (let round = 0; round < 3; round += 1) {
      for (let index = 0; index < 20; index += 1) await writers.append(1, sealed(700, index + 1));
      const { journal } = writers;
      const more = writers.append(1, sealed(700, 99));
      await Promise.all([journal.recycle(), journal.recycle(), journal.recycle(), more]);
      look();
    }
    const framesOf = (bytes: Buffer): FileFrames => readFrames({ ...systemDisk, readFile: () => bytes }, "");
    for (const [first, second] of instants)
      expect(() => refuseLostFrames(framesOf(first), framesOf(second))).not.toThrow();
    const crashed = await reopen();
    expect(content(root, 1)).toEqual(writers.contents.get(TenantId(1)));
    await crashed.close();
  });

  it("is open to the next commit, and to the next process, when a recycle failed anywhere on its way", async () => {
    for (let nth = 1; nth <= 8; nth += 1) {
      rmSync(root, { recursive: true, force: true });
      let left = Number.POSITIVE_INFINITY;
      const judge: Judge = (call) => {
        if (!call.path.endsWith(".jnl") || call.operation !== "write") return undefined;
        left -= 1;
        return left === 0 ? refusing("EIO", Math.floor((call.bytes ?? 0) / 3)) : undefined;
      };
      const writers = await Writers.open(root, faultyDisk(systemDisk, judge));
      for (let index = 0; index < 30; index += 1) await writers.append(1, sealed(700, index + 1));
      left = nth;
      const failed = await writers.journal.recycle().then(
        () => false,
        () => true,
      );
      expect(failed).toBe(nth <= 5);
      left = Number.POSITIVE_INFINITY;
      const crashed = await reopen();
      expect(content(root, 1)).toEqual(writers.contents.get(TenantId(1)));
      await crashed.close();
    }
  });
});

describe("a disk that refuses", () => {
  it("fails the commits of that frame alone, and they are not there after a restart", async () => {
    for (const [errno, code] of [
      ["EIO", "disk_failed"],
      ["ENOSPC", "disk_full"],
    ] as const) {
      for (const share of [0, 1]) {
        rmSync(root, { recursive: true, force: true });
        let refuse = false;
        const judge: Judge = (call) => {
          if (!refuse || call.operation !== "write" || !call.path.endsWith(".jnl")) return undefined;
          refuse = false;
          return refusing(errno, (call.bytes ?? 0) * share);
        };
        const writers = await Writers.open(root, faultyDisk(systemDisk, judge));
        await writers.append(1, sealed(200, 1));
        refuse = true;
        await expect(writers.append(1, sealed(200, 2))).rejects.toMatchObject({ code });
        const crashed = await reopen();
        expect(content(root, 1)).toEqual(sealed(200, 1));
        await crashed.close();
      }
    }
  });

  it("keeps a durable entry until its segment takes it, over turns, and lets nothing take its place", async () => {
    let refuse = true;
    const judge: Judge = (call) =>
      refuse && call.path.includes("/tenants/1/") && call.operation === "open" ? refusing("EIO") : undefined;
    const disk = faultyDisk(systemDisk, judge);
    const writers = await Writers.open(root, disk);
    const entry = writers.entry(1, sealed(500, 1));
    await writers.commit(entry);
    writers.journal.retain(entry);
    for (let count = 0; count < 200; count += 1) await writers.append(2, sealed(500, 2));
    await expect(writers.journal.settle(TenantId(1))).rejects.toMatchObject({ code: "disk_failed" });
    const next = { ...entry, position: 500 };
    await expect(writers.commit(next)).rejects.toMatchObject({ code: "disk_failed" });
    // A kill, and a start at which the segment still refuses.
    for (let restarts = 0; restarts < 3; restarts += 1) {
      const crashed = await Journal.open(root, disk, FILE_BYTES);
      await expect(crashed.settle(TenantId(1))).rejects.toMatchObject({ code: "disk_failed" });
      if (restarts === 1) await crashed.close();
    }
    refuse = false;
    const mended = await Journal.open(root, disk, FILE_BYTES);
    await mended.settle(TenantId(1));
    expect(content(root, 1)).toEqual(sealed(500, 1));
    expect(content(root, 2)).toEqual(writers.contents.get(TenantId(2)));
    await mended.close();
  });

  it("serves a tenant again as soon as its segment can be synced, without a restart", async () => {
    let refuse = true;
    const judge: Judge = (call) =>
      refuse && call.path.includes("/tenants/1/") && call.operation === "sync" ? refusing("EIO") : undefined;
    const writers = await Writers.open(root, faultyDisk(systemDisk, judge));
    await writers.append(1, sealed(500, 1));
    for (let count = 0; count < 100; count += 1) await writers.append(2, sealed(500, 2));
    await expect(writers.append(1, sealed(500, 3))).rejects.toMatchObject({ code: "disk_failed" });
    refuse = false;
    await writers.append(1, sealed(500, 4));
    await writers.journal.close();
    expect(content(root, 1)).toEqual(Buffer.concat([sealed(500, 1), sealed(500, 4)]));
  });

  it("empties itself for one tenant and keeps what another still needs", async () => {
    let refuse = true;
    const judge: Judge = (call) =>
      refuse && call.path.includes("/tenants/1/") && call.operation === "sync" ? refusing("EIO") : undefined;
    const writers = await Writers.open(root, faultyDisk(systemDisk, judge));
    await writers.append(1, sealed(500, 0x41));
    await writers.append(2, sealed(500, 0x42));
    await writers.journal.recycle();
    const held = Buffer.concat([0, 1].map((index) => readFileSync(journalPath(index))));
    expect(held.includes(sealed(500, 0x42))).toBe(false);
    expect(held.includes(sealed(500, 0x41))).toBe(true);
    truncateSync(segmentPath(logFolder(root, TenantId(1)), 0n), 0);
    refuse = false;
    const crashed = await reopen();
    expect(content(root, 1)).toEqual(sealed(500, 0x41));
    await crashed.close();
  });

  it("writes segments again after a sync of theirs failed, instead of trusting the next one", async () => {
    for (let seed = 1; seed <= 6; seed += 1) {
      rmSync(root, { recursive: true, force: true });
      const chance = seeded(seed);
      let failing = false;
      const power = new VolatileDisk(systemDisk, root, {
        failsSync: (path) => failing && path.endsWith(".seg"),
      });
      mkdirSync(root);
      const writers = await Writers.open(root, power.disk);
      const acknowledged = new Map<number, number>();
      for (let step = 0; step < 120; step += 1) {
        failing = chance.oneIn(3);
        const tenant = 1 + chance.below(3);
        const there = await writers.append(tenant, sealed(50 + chance.below(900), step + 1)).then(
          () => true,
          () => false,
        );
        if (there) acknowledged.set(tenant, writers.contents.get(TenantId(tenant))?.length ?? 0);
        if (chance.oneIn(25)) {
          failing = false;
          const target = mkdtempSync(join(tmpdir(), "kimberlite-journal-lost-"));
          power.losePower(target, chance);
          const after = await Journal.open(target, systemDisk, FILE_BYTES);
          for (const [of, length] of acknowledged) {
            const wanted = writers.contents.get(TenantId(of))?.subarray(0, length);
            expect(content(target, of).subarray(0, length), `seed ${seed}`).toEqual(wanted);
          }
          await after.close();
          rmSync(target, { recursive: true });
        }
      }
    }
  });
});
