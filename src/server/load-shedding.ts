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

/** Refuses requests with `overloaded` (503, with `Retry-After`) while the node is past its limits. */
export function registerLoadShedding(app: FastifyInstance, limits: ServerLimits, clock: Clock): void {
  let pressed = 0;
  let expectedMs = clock.monotonicMs() + SAMPLE_EVERY_MS;
  const timer = setInterval(() => {
    const nowMs = clock.monotonicMs();
    const late = nowMs - expectedMs > limits.maxEventLoopDelayMs;
    const full = process.memoryUsage().heapUsed > limits.maxHeapBytes;
    pressed = late || full ? pressed + 1 : 0;
    expectedMs = nowMs + SAMPLE_EVERY_MS;
  }, SAMPLE_EVERY_MS);
  timer.unref();
  app.addHook("onClose", async () => clearInterval(timer));
  app.addHook("onRequest", async (request) => {
    if (pressed < SAMPLES || isHealthCheck(request)) return;
    throw kimberliteError("overloaded", "the node is past what it can serve", {
      retryAfterMs: RETRY_AFTER_MS,
    });
  });
}
