/**
 * Closed-loop load: so many callers, each of which begins its next operation when its last one has ended, for a given
 * time. Which tenant and row comes next is drawn from a seeded generator, so that every subject meets the same sequence.
 */
import { type Dataset, RANGE_ROWS } from "./dataset.ts";
import type { Subject } from "./subject.ts";

export type Workload = "inserts" | "points" | "ranges" | "updates" | "mixed";
export const WORKLOADS: readonly Workload[] = ["inserts", "points", "ranges", "updates", "mixed"];

/** What one stretch of load gave. */
export interface Stretch {
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

export interface LoadOptions {
  readonly workload: Workload;
  readonly dataset: Dataset;
  readonly callers: number;
  readonly seconds: number;
  /** Only this tenant is addressed. */
  readonly tenant?: number;
}

/** A subject with what is known of its rows: which ids are taken. */
export class Driver {
  readonly subject: Subject;
  readonly #nextId: number[];
  #seed = 0x9e3779b9;
  #turn = 0;

  constructor(subject: Subject, dataset: Dataset) {
    this.subject = subject;
    this.#nextId = new Array<number>(dataset.tenants + 1).fill(dataset.rowsEach + 1);
  }

  async run(options: LoadOptions): Promise<Stretch> {
    const samples: number[] = [];
    const startedMs = performance.now();
    const endMs = startedMs + options.seconds * 1_000;
    const operations = this.subject.blocking
      ? this.#runBlocking(options, endMs, samples)
      : await this.#runCallers(options, endMs, samples);
    const elapsedMs = performance.now() - startedMs;
    samples.sort((a, b) => a - b);
    return {
      perSecond: (operations * 1_000) / elapsedMs,
      p50Us: quantile(samples, 0.5) * 1_000,
      p99Us: quantile(samples, 0.99) * 1_000,
    };
  }

  async #runCallers(options: LoadOptions, endMs: number, samples: number[]): Promise<number> {
    let operations = 0;
    const caller = async (index: number): Promise<void> => {
      let nowMs = performance.now();
      while (nowMs < endMs) {
        await this.#operate(options, index);
        const doneMs = performance.now();
        if ((operations & 7) === 0) samples.push(doneMs - nowMs);
        nowMs = doneMs;
        operations += 1;
      }
    };
    await Promise.all(Array.from({ length: options.callers }, (_, index) => caller(index)));
    return operations;
  }

  #runBlocking(options: LoadOptions, endMs: number, samples: number[]): number {
    let operations = 0;
    let nowMs = performance.now();
    while (nowMs < endMs) {
      this.#operate(options, operations % options.callers);
      const doneMs = performance.now();
      if ((operations & 7) === 0) samples.push(doneMs - nowMs);
      nowMs = doneMs;
      operations += 1;
    }
    return operations;
  }

  #operate(options: LoadOptions, caller: number): unknown {
    const { subject } = this;
    const { rowsEach } = options.dataset;
    const tenant = this.#pickTenant(options, caller);
    this.#turn += 1;
    switch (options.workload) {
      case "inserts":
        return subject.insert(tenant, this.#takeId(tenant));
      case "points":
        return subject.point(tenant, 1 + this.#below(rowsEach));
      case "ranges":
        return subject.range(tenant, 1 + this.#below(rowsEach - RANGE_ROWS));
      case "updates":
        return subject.update(tenant, 1 + this.#below(rowsEach), this.#turn);
      case "mixed":
        if (this.#below(10) < 8) return subject.point(tenant, 1 + this.#below(rowsEach));
        return subject.update(tenant, 1 + this.#below(rowsEach), this.#turn);
    }
  }

  /** As many callers as tenants: one each. Otherwise a caller's operations go to any tenant. */
  #pickTenant(options: LoadOptions, caller: number): number {
    const { tenants } = options.dataset;
    if (options.tenant !== undefined) return options.tenant;
    if (tenants === 1) return 1;
    return options.callers === tenants ? caller + 1 : 1 + this.#below(tenants);
  }

  #takeId(tenant: number): number {
    const id = this.#nextId[tenant] as number;
    this.#nextId[tenant] = id + 1;
    return id;
  }

  /** xorshift32: an integer from 0 to `limit` − 1. */
  #below(limit: number): number {
    let seed = this.#seed;
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    this.#seed = seed;
    return (seed >>> 0) % limit;
  }
}

/** The value below which that share of an ascending list lies; 0 of an empty list. */
export function quantile(ascending: readonly number[], share: number): number {
  return ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))] ?? 0;
}

export function median(values: readonly number[]): number {
  return quantile(
    values.toSorted((a, b) => a - b),
    0.5,
  );
}
