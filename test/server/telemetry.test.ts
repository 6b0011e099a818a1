/**
 * What a node says of itself: secrets that were planted through every route are in no line of its log, no number and no
 * span; tenants' numbers are an operator's; labels are bounded; the dashboard asks for numbers that there are.
 */
import { readFileSync } from "node:fs";
import { trace } from "@opentelemetry/api";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import type { Logger } from "pino";
import { expect, it } from "vitest";
import { WebSocket } from "ws";
import { registerHrana } from "../../src/hrana/register.ts";
import { TenantId } from "../../src/index.ts";
import { createLog } from "../../src/server/log.ts";
import { OPERATIONS } from "../../src/server/operations.ts";
import type { MetricsSettings } from "../../src/server/settings.ts";
import { Scratch } from "../isolation/scratch.ts";
import { startServed } from "./served.ts";

const A = TenantId(1);
const MARK = "planted-4f1c";

class Lines {
  text = "";
  write(line: string): void {
    this.text += line;
  }
}

/** A server whose tokens are real. */
async function startReal(
  metrics: Partial<MetricsSettings>,
  log?: Logger,
): Promise<
  Awaited<ReturnType<typeof startServed>> & {
    readonly tokens: { readonly admin: string; readonly operator: string };
  }
> {
  const scratch = new Scratch();
  const db = await scratch.open();
  await db.createTenant({ id: A, name: `name-${MARK}` });
  await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
  await db.insert(A, "t", { id: 1, v: `row-${MARK}` });
  const admin = await db.createApiKey(A, { role: "admin" });
  const operator = await db.createOperatorKey();
  const served = await startServed({
    authenticator: db.authenticator(),
    db,
    settings: { metrics },
    ...(log === undefined ? {} : { log }),
    register: (app, host) => {
      registerHrana(app, host);
      app.get("/bug", async () => {
        throw new TypeError(`no such column in SELECT 'bug-${MARK}'`);
      });
    },
  });
  return {
    ...served,
    db,
    tokens: { admin: admin.token, operator: operator.token },
    async [Symbol.asyncDispose]() {
      await served[Symbol.asyncDispose]();
      await db.close();
      await scratch[Symbol.asyncDispose]();
    },
  };
}

it("keeps what was planted through every route out of log, numbers and traces", async () => {
  const exporter = new InMemorySpanExporter();
  trace.setGlobalTracerProvider(
    new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }),
  );
  const lines = new Lines();
  await using served = await startReal({ open: true, tenantLabels: 5 }, createLog("info", lines));
  const { admin, operator } = served.tokens;
  const forged = `kmb_${"a".repeat(16)}_${MARK}${"b".repeat(60)}`;
  const body = JSON.stringify({
    sql: `SELECT '${MARK}'`,
    reason: `why-${MARK}`,
    name: `n-${MARK}`,
    token: MARK,
    params: [MARK],
  });
  let asked = 0;
  for (const { method, path } of [
    ...OPERATIONS,
    { method: "GET", path: `/nothing/${MARK}` },
    { method: "POST", path: "/v2/pipeline" },
    { method: "POST", path: "/v3/pipeline" },
    { method: "GET", path: "/bug" },
    { method: "GET", path: "/metrics" },
  ]) {
    const url = `${path.replace("{tenant}", "1").replaceAll(/\{\w+\}/g, MARK)}?q=${MARK}&cursor=${MARK}`;
    // What streams on is left to go on; it has been logged by its end.
    const signal = AbortSignal.timeout(3_000);
    for (const bearer of [admin, operator, forged]) {
      if (path.endsWith("/v1/tenants/{tenant}") && method === "DELETE") continue;
      const headers = {
        authorization: `Bearer ${bearer}`,
        cookie: `c=${MARK}`,
        "user-agent": MARK,
        traceparent: `00-${"1".repeat(32)}-${"2".repeat(16)}-01`,
        tracestate: `x=${MARK}`,
        "x-request-id": `${MARK} not harmless`,
        ...(method === "GET" || method === "DELETE" ? {} : { "content-type": "application/json" }),
      };
      const sent = method === "GET" || method === "DELETE" ? {} : { body };
      const response = await fetch(`${served.url}${url}`, { method, headers, signal, ...sent }).catch(
        () => undefined,
      );
      await response?.text().catch(() => undefined);
      asked += 1;
    }
  }
  for (const jwt of [admin, operator, forged]) {
    await speakOver(served.url, jwt);
    asked += 1;
  }
  const metrics = await (
    await fetch(`${served.url}/metrics`, { headers: { authorization: `Bearer ${operator}` } })
  ).text();
  await served.server.close();
  const spans = JSON.stringify(
    exporter
      .getFinishedSpans()
      .map(({ name, attributes, events, links, status }) => [name, attributes, events, links, status]),
  );
  expect(lines.text.split("\n").length).toBeGreaterThan(asked - 10);
  expect(lines.text).toContain('"method":"WS"');
  expect(exporter.getFinishedSpans().length).toBeGreaterThan(asked - 10);
  expect(metrics).toContain('kimberlite_tenant_requests_total{tenant="1"}');
  for (const [where, text] of Object.entries({ log: lines.text, metrics, spans })) {
    for (const secret of [MARK, admin.slice(21), operator.slice(21), "b".repeat(20), "SELECT"]) {
      const at = text.indexOf(secret);
      expect(at === -1 ? "" : `${where}: ${text.slice(Math.max(0, at - 200), at + 50)}`).toBe("");
    }
  }
  const bug = lines.text.split("\n").find((line) => line.includes('"/bug"'));
  expect(JSON.parse(bug ?? "{}")).toMatchObject({
    level: "error",
    status: 500,
    code: "internal",
    bug: { name: "TypeError" },
  });
  // The net beneath: what is logged by mistake goes all the same.
  const net = new Lines();
  createLog("info", net).info({ headers: { authorization: MARK }, token: MARK, sql: MARK, kept: 1 });
  expect(JSON.parse(net.text)).toEqual({
    level: "info",
    time: expect.any(String),
    kept: 1,
    headers: {},
  });
});

/** A WebSocket with what was planted in its address, its headers and each message. */
async function speakOver(url: string, jwt: string): Promise<void> {
  const socket = new WebSocket(`${url.replace("http", "ws")}/?q=${MARK}&jwt=${MARK}`, ["hrana3"], {
    headers: { cookie: `c=${MARK}`, "user-agent": MARK, tracestate: `x=${MARK}` },
  });
  const statement = (sql: string, id: number): string =>
    JSON.stringify({
      type: "request",
      request_id: id,
      request: { type: "execute", stream_id: 1, stmt: { sql, args: [{ type: "text", value: MARK }] } },
    });
  await new Promise<void>((resolve) => {
    let answers = 0;
    socket.on("open", () => {
      socket.send(JSON.stringify({ type: "hello", jwt }));
      socket.send(
        JSON.stringify({ type: "request", request_id: 0, request: { type: "open_stream", stream_id: 1 } }),
      );
      socket.send(statement(`SELECT '${MARK}', ? FROM t`, 1));
      socket.send(statement(`SELECT "${MARK}" FROM nothing_${MARK}`, 2));
      socket.send(statement(`INSERT INTO t VALUES (1, ?)`, 3));
    });
    socket.on("message", () => {
      answers += 1;
      // The hello and four requests; then what is no message at all.
      if (answers === 5) socket.send(`{"${MARK}":`);
    });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve());
  });
}

it("shows numbers of tenants to operators alone, and to nobody without a credential unless told to", async () => {
  await using served = await startReal({ tenantLabels: 2 });
  const get = async (token?: string): Promise<{ status: number; text: string }> => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const response = await fetch(`${served.url}/metrics`, { headers });
    return { status: response.status, text: await response.text() };
  };
  expect((await get()).status).toBe(401);
  expect((await get(served.tokens.admin)).status).toBe(403);
  const asTenant = { headers: { authorization: `Bearer ${served.tokens.admin}` } };
  await fetch(`${served.url}/v1/tenants/1`, asTenant);
  const seen = await get(served.tokens.operator);
  expect(seen.status).toBe(200);
  expect(seen.text).toMatch(/kimberlite_tenant_requests_total\{tenant="1"\} \d/);
  expect(seen.text).toMatch(/kimberlite_errors_total\{code="unauthenticated"\} 1/);
  expect(seen.text).not.toContain(MARK);
});

it("bounds the labels of tenants, methods and routes", async () => {
  const { ServerMetrics } = await import("../../src/server/metrics.ts");
  const db = { stats: () => ({ tenants: 1, openTenants: 1, installation: "x" }) };
  const metrics = new ServerMetrics({ db: db as never, connections: () => 0, maxTenants: 3 });
  for (let n = 1; n <= 1_000; n += 1) {
    metrics.begin();
    metrics.end({
      method: `M${n}`,
      route: "r",
      status: 200,
      seconds: 0.1,
      tenant: BigInt(n),
      code: undefined,
    });
  }
  const text = await metrics.text(true);
  expect(text.match(/kimberlite_tenant_requests_total\{/g)).toHaveLength(4);
  expect(text).toContain('kimberlite_tenant_requests_total{tenant="other"} 997');
  expect(text.match(/_count\{/g)).toHaveLength(1);
  expect(await metrics.text(false)).not.toContain("tenant=");
});

it("has every number that the dashboard asks for", async () => {
  await using served = await startReal({ tenantLabels: 2 });
  const headers = { authorization: `Bearer ${served.tokens.operator}` };
  await fetch(`${served.url}/metrics`, { headers });
  await fetch(`${served.url}/v1/tenants/1`, { headers: { authorization: `Bearer ${served.tokens.admin}` } });
  const text = await (await fetch(`${served.url}/metrics`, { headers })).text();
  const dashboard = readFileSync(new URL("../../deploy/grafana-dashboard.json", import.meta.url), "utf8");
  const asked = new Set(dashboard.match(/\b(?:kimberlite|process|nodejs)_\w+/g));
  expect(asked.size).toBeGreaterThan(8);
  const there = new Set(text.match(/\b(?:kimberlite|process|nodejs)_\w+/g));
  expect([...asked].filter((name) => !there.has(name))).toEqual([]);
  expect(() => JSON.parse(dashboard)).not.toThrow();
});
