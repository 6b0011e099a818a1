/**
 * Admission of one tenant's operations: how many at once, how many a second, how many bytes.
 *
 * Storage is checked inside the write's own savepoint with the exact growth, so it is never exceeded and needs no
 * counter that could drift: what is used is what the log and the projection measure, also right after a restart.
 * A tenant over a storage quota can still read, export and erase.
 */
import { kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import type { TenantQuota } from "../tenant/tenant-config.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { type BucketRate, fullBucket, refill, type TokenBucket, takeToken } from "./token-bucket.ts";

export interface StorageUse {
  readonly logBytes: number;
  readonly projectionBytes: number;
}

export class QuotaGate {
  readonly #tenant: TenantId;
  readonly #clock: Clock;
  #quota: TenantQuota;
  #rate: BucketRate | undefined;
  #bucket: TokenBucket | undefined;
  #running = 0;

  constructor(tenant: TenantId, quota: TenantQuota, clock: Clock) {
    this.#tenant = tenant;
    this.#clock = clock;
    this.#quota = quota;
    this.change(quota);
  }

  get quota(): TenantQuota {
    return this.#quota;
  }

  get running(): number {
    return this.#running;
  }

  /**
   * Puts another quota into force; a bucket that was there keeps the tokens that it has by the rate until now, up to
   * the new burst.
   */
  change(quota: TenantQuota): void {
    const nowMs = this.#clock.monotonicMs();
    const rate = rateOf(quota);
    if (rate === undefined) this.#bucket = undefined;
    else if (this.#rate === undefined || this.#bucket === undefined) this.#bucket = fullBucket(rate, nowMs);
    else {
      const held = refill(this.#bucket, this.#rate, nowMs);
      this.#bucket = { ...held, tokens: Math.min(held.tokens, rate.burst) };
    }
    this.#quota = quota;
    this.#rate = rate;
  }

  /**
   * Admits one operation; call `leave` when it ends, whatever its outcome.
   *
   * @throws `quota_exceeded` (policy `maxConcurrentOps`), `rate_limited` (policy `maxOpsPerSec`, with `retryAfterMs`).
   */
  enter(): void {
    const { maxConcurrentOps } = this.#quota;
    if (maxConcurrentOps !== undefined && this.#running >= maxConcurrentOps) {
      throw this.#exceeded("maxConcurrentOps", maxConcurrentOps);
    }
    if (this.#rate !== undefined && this.#bucket !== undefined) this.#takeToken(this.#rate, this.#bucket);
    this.#running += 1;
  }

  /** Takes one operation from the rate for a step of one that was admitted already. @throws `rate_limited` */
  charge(): void {
    if (this.#rate !== undefined && this.#bucket !== undefined) this.#takeToken(this.#rate, this.#bucket);
  }

  leave(): void {
    this.#running -= 1;
  }

  /**
   * Checks what a write would leave behind.
   *
   * @throws `quota_exceeded` (policy `maxLogBytes` or `maxProjectionBytes`).
   */
  checkStorage(after: StorageUse): void {
    const { maxLogBytes, maxProjectionBytes } = this.#quota;
    if (maxLogBytes !== undefined && after.logBytes > maxLogBytes)
      throw this.#exceeded("maxLogBytes", maxLogBytes);
    if (maxProjectionBytes !== undefined && after.projectionBytes > maxProjectionBytes) {
      throw this.#exceeded("maxProjectionBytes", maxProjectionBytes);
    }
  }

  #takeToken(rate: BucketRate, bucket: TokenBucket): void {
    const taken = takeToken(bucket, rate, this.#clock.monotonicMs());
    this.#bucket = taken.bucket;
    if (taken.retryAfterMs === undefined) return;
    throw kimberliteError("rate_limited", "the tenant's rate of operations is exhausted", {
      detail: { tenant: this.#tenant, policy: "maxOpsPerSec", limit: rate.ratePerSec },
      retryAfterMs: taken.retryAfterMs,
    });
  }

  #exceeded(policy: keyof TenantQuota, limit: number): Error {
    return kimberliteError("quota_exceeded", `the operation would exceed the tenant's ${policy}`, {
      detail: { tenant: this.#tenant, policy, limit },
    });
  }
}

function rateOf(quota: TenantQuota): BucketRate | undefined {
  if (quota.maxOpsPerSec === undefined) return undefined;
  return { ratePerSec: quota.maxOpsPerSec, burst: Math.max(1, quota.burstOps ?? quota.maxOpsPerSec) };
}
