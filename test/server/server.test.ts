/** The server as a whole: it listens, says how it is, refuses with problems, and goes down in order. */
import { expect, it } from "vitest";
import { Server } from "../../src/server/server.ts";
import type { ServerSettings } from "../../src/server/settings.ts";
import { startServed, tokensThatSay } from "./served.ts";

it("answers health checks to anyone, and says nothing else", async () => {
  await using served = await startServed();
  const health = await fetch(`${served.url}/healthz`);
  expect(health.status).toBe(200);
  expect(await health.json()).toEqual({ status: "ok" });
  const ready = await fetch(`${served.url}/readyz`);
  expect(ready.status).toBe(200);
  expect(await ready.json()).toEqual({ status: "ready" });
});

it("does not start where something listens already, and says so", async () => {
  await using served = await startServed();
  const { port } = new URL(served.url);
  const start = (settings: ServerSettings): Promise<Server> =>
    Server.start({ db: served.db, authenticator: tokensThatSay, settings });
  await expect(start({ port: Number(port) })).rejects.toMatchObject({
    code: "address_unavailable",
    message: expect.stringContaining(`port ${port}: something listens there already`),
  });
  await expect(start({ port: 0, host: "192.0.2.1" })).rejects.toMatchObject({
    code: "address_unavailable",
    detail: { cause: "EADDRNOTAVAIL" },
  });
});

it("refuses with problem details that name the code and the request", async () => {
  await using served = await startServed();
  const response = await fetch(`${served.url}/nothing`, { headers: { "x-request-id": "mine-1" } });
  expect(response.status).toBe(404);
  expect(response.headers.get("content-type")).toMatch(/^application\/problem\+json/);
  expect(await response.json()).toEqual({
    type: "urn:kimberlite:error:route_not_found",
    title: "The server has nothing at this path.",
    status: 404,
    detail: "there is nothing at this path",
    code: "route_not_found",
    instance: "mine-1",
  });
});

it("hands a plugin the host, and serves its routes", async () => {
  await using served = await startServed({
    register: (app, host) => {
      app.get("/who", async (request) => {
        const bearer = request.headers.authorization?.replace(/^Bearer /, "");
        const origin = { remoteAddress: request.ip, requestId: request.id };
        const principal = await host.authenticate(bearer, origin);
        host.holdConnection(principal, request.raw.socket);
        return { actor: principal.actor, tenants: host.db.stats().tenants };
      });
    },
  });
  const authorization = "Bearer 1:reader";
  const known = await fetch(`${served.url}/who`, { headers: { authorization } });
  expect(await known.json()).toEqual({ actor: "reader of 1", tenants: 0 });
  const unknown = await fetch(`${served.url}/who`);
  expect(unknown.status).toBe(401);
  expect(unknown.headers.get("www-authenticate")).toMatch(/^Bearer/);
});

it("lets what is under way end when it goes down, and refuses what comes then", async () => {
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let arrived: () => void = () => undefined;
  const arrival = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  const served = await startServed({
    register: (app) => {
      app.get("/slow", async () => {
        arrived();
        await held;
        return { done: true };
      });
    },
  });
  const slow = fetch(`${served.url}/slow`);
  await arrival;
  const closing = served.server.close();
  await expect(fetch(`${served.url}/healthz`)).rejects.toThrow();
  release();
  const response = await slow;
  expect(await response.json()).toEqual({ done: true });
  await closing;
  await served[Symbol.asyncDispose]();
});

it("ends what does not end by itself, within its limit", async () => {
  let arrived: () => void = () => undefined;
  const arrival = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  const served = await startServed({
    settings: { port: 0, limits: { drainTimeoutMs: 200 } },
    register: (app) => {
      app.get("/never", async () => {
        arrived();
        await new Promise(() => undefined);
      });
    },
  });
  const never = fetch(`${served.url}/never`);
  never.catch(() => undefined);
  await arrival;
  await served.server.close();
  await expect(never).rejects.toThrow();
  await served[Symbol.asyncDispose]();
});
