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

/** SQLite's own limit of a statement's parameters. */
const MAX_ARGUMENTS = 32_766;

/** @throws `invalid_argument`, naming the place */
export function invalid(message: string): Error {
  return kimberliteError("invalid_argument", message);
}

/** Counts what a message holds, so that no small message stands for much work. */
export class MessageBudget {
  #arguments = 0;
  #conditions = 0;
  readonly #limits: HranaLimits;
  #exceeded = false;

  constructor(limits: HranaLimits) {
    this.#limits = limits;
  }

  /** True once it was more than may be: the message is one of the protocol all the same. */
  get exceeded(): boolean {
    return this.#exceeded;
  }

  requireSteps(count: number): void {
    const { maxSteps } = this.#limits;
    if (count > maxSteps) throw this.#past(`more than ${maxSteps} steps or requests`);
  }

  /** Of one statement. */
  requireArguments(count: number, place: string): void {
    if (count > MAX_ARGUMENTS) throw this.#past(`${place} has more than ${MAX_ARGUMENTS} arguments`);
  }

  takeArguments(count: number): void {
    this.#arguments += count;
    const { maxArguments } = this.#limits;
    if (this.#arguments > maxArguments) throw this.#past(`more than ${maxArguments} arguments`);
  }

  /** Before each part of a condition. */
  takeCondition(depth: number): void {
    this.#conditions += 1;
    const { maxConditions, maxConditionDepth } = this.#limits;
    if (this.#conditions > maxConditions) throw this.#past(`more than ${maxConditions} parts of conditions`);
    if (depth > maxConditionDepth) throw this.#past(`a condition nested deeper than ${maxConditionDepth}`);
  }

  #past(message: string): Error {
    this.#exceeded = true;
    return invalid(message);
  }
}
