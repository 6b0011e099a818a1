/** `/healthz`: the process answers. `/readyz`: it takes requests. Both are open to anyone and say nothing else. */
import type { FastifyInstance, FastifyRequest } from "fastify";

export function registerHealth(app: FastifyInstance, isDraining: () => boolean): void {
  app.get("/healthz", async () => ({ status: "ok" }));
  app.get("/readyz", async (_request, reply) => {
    if (!isDraining()) return { status: "ready" };
    return reply
      .code(503)
      .header("retry-after", "1")
      .header("connection", "close")
      .send({ status: "draining" });
  });
}

/** True for what is answered however busy the node is. */
export function isHealthCheck(request: FastifyRequest): boolean {
  return request.routeOptions.url === "/healthz" || request.routeOptions.url === "/readyz";
}
