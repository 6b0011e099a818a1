/** What bounds a stream, a connection and a tenant, whoever speaks. */
import { kimberliteError } from "../errors.ts";

export interface HranaLimits {
  /** Requests in a pipeline, and steps in a batch. */
  readonly maxSteps: number;
  /** Arguments of all statements of a message. */
  readonly maxArguments: number;
  /** Parts of all conditions of a batch. */
  readonly maxConditions: number;
  /** How deep a condition is nested. */
  readonly maxConditionDepth: number;
  /** Texts that a stream (over HTTP) or a connection stores, and their characters in all. */
  readonly maxStoredTexts: number;
  readonly maxStoredCharacters: number;
  /** Streams of HTTP that one tenant has open, and all tenants. */
  readonly maxStreamsPerTenant: number;
  readonly maxStreams: number;
  /** Streams, and cursors, of one WebSocket. */
  readonly maxStreamsPerConnection: number;
  /** Requests of a WebSocket that wait for their answer; then nothing more is read from it. */
  readonly maxOutstanding: number;
  /** Requests of a WebSocket that run at once. */
  readonly maxRunning: number;
  /** How long a stream of HTTP lives without a request. */
  readonly streamIdleMs: number;
  /** How long a transaction may be open, and BEGIN may wait for another. */
  readonly transactionTimeLimitMs: number;
  readonly busyTimeoutMs: number;
  /** How long a WebSocket may be open before its hello. */
  readonly helloTimeoutMs: number;
  /** Bytes of the results of one request; of a pipeline, when no more is run. Cursors are not bound by it. */
  readonly maxResultBytes: number;
}

export const HRANA_LIMITS: HranaLimits = {
  maxSteps: 10_000,
  maxArguments: 250_000,
  maxConditions: 100_000,
  maxConditionDepth: 16,
  maxStoredTexts: 1_000,
  maxStoredCharacters: 4 * 1024 * 1024,
  maxStreamsPerTenant: 256,
  maxStreams: 16_384,
  maxStreamsPerConnection: 256,
  maxOutstanding: 512,
  maxRunning: 16,
  streamIdleMs: 10_000,
  transactionTimeLimitMs: 5_000,
  busyTimeoutMs: 5_000,
  helloTimeoutMs: 10_000,
  maxResultBytes: 10 * 1024 * 1024,
};

/** @throws `invalid_argument`, naming the place */
export function invalid(message: string): Error {
  return kimberliteError("invalid_argument", message);
}

/** Counts what a message holds, so that no small message stands for much work. */
export class MessageBudget {
  #arguments = 0;
  #conditions = 0;
  readonly #limits: HranaLimits;

  constructor(limits: HranaLimits) {
    this.#limits = limits;
  }

  requireSteps(count: number): void {
    if (count > this.#limits.maxSteps) throw invalid(`more than ${this.#limits.maxSteps} steps or requests`);
  }

  takeArguments(count: number): void {
    this.#arguments += count;
    const { maxArguments } = this.#limits;
    if (this.#arguments > maxArguments) throw invalid(`more than ${maxArguments} arguments`);
  }

  /** Before each part of a condition. */
  takeCondition(depth: number): void {
    this.#conditions += 1;
    const { maxConditions, maxConditionDepth } = this.#limits;
    if (this.#conditions > maxConditions) throw invalid(`more than ${maxConditions} parts of conditions`);
    if (depth > maxConditionDepth) throw invalid(`a condition nested deeper than ${maxConditionDepth}`);
  }
}
