/**
 * Reading a tenant as it was: a projection built from the log up to an offset, read-only, exact.
 *
 * It is a file beside the live projection, encrypted under the same key, kept for a few offsets and removed when the
 * tenant is closed or opened. Cost: one replay up to the offset at the first query for it; a tenant's are built one
 * after the other.
 */
import { join } from "node:path";
import { kimberliteError } from "../errors.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import type { TenantLog } from "../log/tenant-log.ts";
import { openConnection } from "../projection/connection.ts";
import type { LaneTarget } from "../projection/lane-protocol.ts";
import { ProjectionReader } from "../projection/reader.ts";
import type { StatementRequest, StatementResult } from "../projection/writer.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { projectionFolder } from "./projection-base.ts";
import { removeProjection } from "./recovery.ts";
import { type ReplayParts, replayInto } from "./replay-into.ts";
import type { SlowReads } from "./slow-reads.ts";

/** A moment of a tenant: after the record at that offset, or the last one committed at or before that time. */
export type Moment = bigint | number | Date;

/** The open tenant, as far as time travel needs it. */
export interface TimeTravelled {
  readonly tenant: TenantId;
  readonly log: TenantLog;
  readonly keys: TenantKeys;
  readonly slowReads: SlowReads;
  laneTarget(path: string): LaneTarget;
  requireOpen(): void;
}

interface Snapshot {
  readonly path: string;
  readonly building: Promise<ProjectionReader>;
  users: number;
}

const MAX_SNAPSHOTS = 4;
/** Moments that are asked for at a time: each is a file as large as the projection. */
const MAX_MOMENTS = 16;
const RETRY_AFTER_MS = 100;

export class TimeTravel {
  readonly #engine: TimeTravelled;
  readonly #parts: ReplayParts;
  readonly #snapshots: Map<bigint, Snapshot> = new Map();
  #lastBuild: Promise<unknown> = Promise.resolve();

  constructor(engine: TimeTravelled, parts: ReplayParts) {
    this.#engine = engine;
    const requireGoingOn = (): void => {
      parts.requireGoingOn?.();
      engine.requireOpen();
    };
    this.#parts = { ...parts, requireGoingOn };
  }

  /**
   * @throws `offset_out_of_range` for an offset past the log's end, or a time before its first record; `overloaded` if too
   * many moments are asked for at a time
   */
  async query(moment: Moment, request: StatementRequest): Promise<StatementResult> {
    const untilOffset = this.#resolve(moment);
    const snapshot = this.#snapshots.get(untilOffset) ?? this.#build(untilOffset);
    snapshot.users += 1;
    try {
      const reader = await snapshot.building;
      return await this.#engine.slowReads.run(request, {
        inline: (bounded) => reader.query(bounded),
        target: () => this.#engine.laneTarget(snapshot.path),
      });
    } finally {
      snapshot.users -= 1;
      await this.#trim();
    }
  }

  async close(): Promise<void> {
    for (const [offset, snapshot] of this.#snapshots) await this.#remove(offset, snapshot);
  }

  /** Number of records that the moment has behind it. */
  #resolve(moment: Moment): bigint {
    const { log } = this.#engine;
    if (moment instanceof Date) return this.#resolveTime(moment);
    const offset = typeof moment === "number" && Number.isSafeInteger(moment) ? BigInt(moment) : moment;
    if (typeof offset !== "bigint") throw kimberliteError("invalid_argument", "`at` is an offset or a Date");
    if (offset < 0n || offset >= log.nextOffset) {
      throw kimberliteError("offset_out_of_range", "the log has no such offset", {
        detail: { tenant: this.#engine.tenant, offset, size: log.nextOffset },
      });
    }
    return offset + 1n;
  }

  #resolveTime(moment: Date): bigint {
    const time = moment.getTime();
    if (Number.isNaN(time)) throw kimberliteError("invalid_argument", "`at` is an invalid Date");
    const timeUs = BigInt(time) * 1000n + 999n;
    let until = 0n;
    for (const { header } of this.#engine.log.blocks()) {
      if (header.timeUs > timeUs) break;
      until = header.firstOffset + BigInt(header.count);
    }
    if (until === 0n) {
      throw kimberliteError("offset_out_of_range", "the log has nothing from that time", {
        detail: { tenant: this.#engine.tenant },
      });
    }
    return until;
  }

  #build(untilOffset: bigint): Snapshot {
    if (this.#snapshots.size >= MAX_MOMENTS) {
      throw kimberliteError("overloaded", "too many moments of the tenant are asked for at a time", {
        detail: { limit: MAX_MOMENTS },
        retryAfterMs: RETRY_AFTER_MS,
      });
    }
    const { version, key } = this.#engine.keys.projectionKey();
    const path = join(
      projectionFolder(this.#parts.root, this.#parts.tenant),
      `at-${untilOffset}-${version}.db`,
    );
    removeProjection(this.#parts.disk, path);
    const { limits } = this.#parts;
    const building = this.#lastBuild.then(async () => {
      await replayInto(this.#parts, { log: this.#engine.log, path, key, version, untilOffset });
      return new ProjectionReader(openConnection({ path, key, role: "read", limits, inline: true }), limits);
    });
    this.#lastBuild = building.catch(() => undefined);
    const snapshot = { path, building, users: 0 };
    this.#snapshots.set(untilOffset, snapshot);
    building.catch(() => this.#snapshots.delete(untilOffset));
    return snapshot;
  }

  async #trim(): Promise<void> {
    for (const [offset, snapshot] of this.#snapshots) {
      if (this.#snapshots.size <= MAX_SNAPSHOTS) return;
      if (snapshot.users === 0) await this.#remove(offset, snapshot);
    }
  }

  async #remove(offset: bigint, snapshot: Snapshot): Promise<void> {
    this.#snapshots.delete(offset);
    const reader = await snapshot.building.catch(() => undefined);
    reader?.close();
    await this.#parts.lanes.forget(snapshot.path);
    removeProjection(this.#parts.disk, snapshot.path);
  }
}
