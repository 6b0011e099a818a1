/** Mounts Hrana on a server: HTTP in scopes of its own, and WebSockets. */
import type { FastifyInstance } from "fastify";
import { registerHttp } from "./http.ts";
import { HttpStreams } from "./http-streams.ts";
import { jsonEncoding } from "./json-encoding.ts";
import { HRANA_LIMITS, type HranaLimits } from "./limits.ts";
import type { ServedHost } from "./served-host.ts";

/** @param limits replaces some of Hrana's own limits */
export function registerHrana(
  app: FastifyInstance,
  host: ServedHost,
  limits: Partial<HranaLimits> = {},
): void {
  const bounds = { ...HRANA_LIMITS, ...limits };
  const { clock, randomness, draining } = host;
  const streams = new HttpStreams({ limits: bounds, clock, randomness });
  const close = (): Promise<void> => streams.close();
  draining.addEventListener("abort", () => void close(), { once: true });
  app.addHook("onClose", close);
  const parts = { host, limits: bounds, streams };
  for (const version of ["v2", "v3"])
    registerHttp(app, { ...parts, version, encoding: jsonEncoding(bounds) });
}
