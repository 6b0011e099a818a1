/**
 * What waits for clients that do not read is bounded, for each tenant and for the node: past that their connections are
 * closed, those first that take nothing. Each connection alone may have a large answer waiting for it; thousands of them
 * would otherwise fill the memory of the node, which a limit on its heap does not see, for it lies outside.
 */
import type { FastifyInstance } from "fastify";
import type { Connections } from "./connections.ts";
import type { ServerLimits } from "./settings.ts";

const LOOK_EVERY_MS = 250;

export function boundUnread(app: FastifyInstance, connections: Connections, limits: ServerLimits): void {
  const bounds = { perTenant: limits.maxUnreadBytesPerTenant, inAll: limits.maxUnreadBytesInAll };
  const timer = setInterval(() => connections.cutUnread(bounds), LOOK_EVERY_MS);
  timer.unref();
  app.addHook("onClose", async () => clearInterval(timer));
}
