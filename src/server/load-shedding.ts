/**
 * Turning requests away before the node falls over: while the event loop lags or the heap is nearly full, whoever asks is
 * told to come again, and health checks alone are answered.
 *
 * One long turn is no overload: it takes three samples in a row. *Not* the mean of a histogram, as libraries for it take:
 * a single collection of garbage, or the start itself, turned everybody away.
 */
import type { FastifyInstance } from "fastify";
import { kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import { isHealthCheck } from "./health.ts";
import type { ServerLimits } from "./settings.ts";

const SAMPLE_EVERY_MS = 250;
const SAMPLES = 3;
const RETRY_AFTER_MS = 1_000;

export class LoadShedding {
  readonly #timer: NodeJS.Timeout;
  #pressed = 0;

  constructor(limits: ServerLimits, clock: Clock) {
    let expectedMs = clock.monotonicMs() + SAMPLE_EVERY_MS;
    this.#timer = setInterval(() => {
      const nowMs = clock.monotonicMs();
      const late = nowMs - expectedMs > limits.maxEventLoopDelayMs;
      const full = process.memoryUsage().heapUsed > limits.maxHeapBytes;
      this.#pressed = late || full ? this.#pressed + 1 : 0;
      expectedMs = nowMs + SAMPLE_EVERY_MS;
    }, SAMPLE_EVERY_MS);
    this.#timer.unref();
  }

  /** True while the node is past its limits. */
  get pressed(): boolean {
    return this.#pressed >= SAMPLES;
  }

  /** Refuses requests with `overloaded` (503, with `Retry-After`) meanwhile. */
  register(app: FastifyInstance): void {
    app.addHook("onClose", async () => clearInterval(this.#timer));
    app.addHook("onRequest", async (request) => {
      if (!this.pressed || isHealthCheck(request)) return;
      throw kimberliteError("overloaded", "the node is past what it can serve", {
        retryAfterMs: RETRY_AFTER_MS,
      });
    });
  }
}
