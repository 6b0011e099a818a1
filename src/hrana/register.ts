/** Mounts Hrana on a server: HTTP in scopes of its own, and WebSockets. */
import type { FastifyInstance } from "fastify";
import { registerHttp } from "./http.ts";
import { HttpStreams } from "./http-streams.ts";
import { jsonEncoding } from "./json-encoding.ts";
import { HRANA_LIMITS, type HranaLimits } from "./limits.ts";
import { protobufEncoding } from "./protobuf-write.ts";
import type { ServedHost } from "./served-host.ts";
import { registerSockets } from "./sockets.ts";

/** @param limits replaces some of Hrana's own limits */
export function registerHrana(
  app: FastifyInstance,
  host: ServedHost,
  limits: Partial<HranaLimits> = {},
): void {
  const bounds = { ...HRANA_LIMITS, ...limits };
  const { clock, randomness, draining } = host;
  const streams = new HttpStreams({
    limits: bounds,
    clock,
    randomness,
    recheck: (principal) => host.recheck(principal),
  });
  const json = jsonEncoding(bounds);
  const protobuf = protobufEncoding(bounds);
  const closeSockets = registerSockets(app, { host, limits: bounds, json, protobuf });
  const close = async (): Promise<void> => {
    closeSockets();
    await streams.close();
  };
  draining.addEventListener("abort", () => void close(), { once: true });
  app.addHook("onClose", close);
  const parts = { host, limits: bounds, streams };
  for (const version of ["v2", "v3"]) registerHttp(app, { ...parts, version, encoding: json });
  registerHttp(app, { ...parts, version: "v3-protobuf", encoding: protobuf });
}
