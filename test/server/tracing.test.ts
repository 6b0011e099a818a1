/** Traces by configuration: a collector that is named gets the spans of requests, and nothing that a client sent. */
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { trace } from "@opentelemetry/api";
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";
import { afterEach, expect, it } from "vitest";
import { type StopTracing, startTracing } from "../../src/server/tracing.ts";
import { apiOf } from "./api.ts";
import { startServed } from "./served.ts";

const SECRET = "planted-7c2d";
const SETTINGS = { serviceName: "kimberlite" };
const TRACE = "0af7651916cd43dd8448eb211c80319c";
const PARENT = "b7ad6b7169203331";

interface Received {
  readonly path: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

interface Spans {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly Attribute[] };
    readonly scopeSpans: readonly { readonly spans: readonly Span[] }[];
  }[];
}
interface Attribute {
  readonly key: string;
  readonly value: { readonly stringValue?: string; readonly intValue?: number };
}
interface Span {
  readonly name: string;
  readonly traceId: string;
  readonly parentSpanId?: string;
  readonly attributes: readonly Attribute[];
}

/** A collector that takes OTLP over HTTP and keeps it, or answers with a status of its own. */
async function startCollector(status = 200) {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("end", () => {
      received.push({
        path: request.url,
        headers: request.headers,
        text: Buffer.concat(pieces).toString("utf8"),
      });
      response.writeHead(status, { "content-type": "application/json" }).end("{}");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url, received, close: () => void server.close(), server };
}

let stop: StopTracing | undefined;
afterEach(async () => {
  await stop?.();
  stop = undefined;
});

const quiet = (): void => undefined;

it("sends the spans of requests to where the standard variable says, as part of the client's trace", async () => {
  const collector = await startCollector();
  const environment = { OTEL_EXPORTER_OTLP_ENDPOINT: `${collector.url}/`, OTEL_SERVICE_NAME: "db-7" };
  stop = await startTracing({ settings: SETTINGS, environment, onWarning: quiet });
  await using served = await startServed();
  await apiOf(served, "operator")("POST", "/v1/tenants", { id: "1", name: SECRET });
  const headers = { traceparent: `00-${TRACE}-${PARENT}-01` };
  await apiOf(served, "1:reader")("GET", "/v1/tenants/1", undefined, headers);
  await apiOf(served, "1:reader")("GET", `/v1/tenants/1/streams?from=${SECRET}`);
  await stop?.();
  expect(collector.received.map(({ path }) => path)).toEqual(["/v1/traces"]);
  const text = collector.received[0]?.text ?? "";
  const [sent] = (JSON.parse(text) as Spans).resourceSpans;
  const named = (attributes: readonly Attribute[], key: string) =>
    attributes.find((one) => one.key === key)?.value;
  expect(named(sent?.resource.attributes ?? [], "service.name")).toEqual({ stringValue: "db-7" });
  const spans = sent?.scopeSpans.flatMap((scope) => scope.spans) ?? [];
  expect(spans.map(({ name }) => name)).toEqual([
    "POST /v1/tenants",
    "GET /v1/tenants/:tenant",
    "GET /v1/tenants/:tenant/streams",
  ]);
  expect(spans[1]).toMatchObject({ traceId: TRACE, parentSpanId: PARENT });
  expect(spans[0]?.traceId).not.toBe(TRACE);
  expect(named(spans[2]?.attributes ?? [], "error.type")).toEqual({ stringValue: "invalid_argument" });
  expect(text).not.toContain(SECRET);
  collector.close();
});

it("the setting stands before the environment, and without either nothing is sent", async () => {
  const [collector, other] = [await startCollector(), await startCollector()];
  const environment = { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${other.url}/elsewhere` };
  const settings = { ...SETTINGS, tracesUrl: `${collector.url}/own` };
  stop = await startTracing({ settings, environment, onWarning: quiet });
  await using served = await startServed();
  await fetch(`${served.url}/v1/whoami`);
  await stop?.();
  expect(collector.received.map(({ path }) => path)).toEqual(["/own"]);
  expect(other.received).toEqual([]);
  const none = { settings: SETTINGS, environment: {}, onWarning: quiet };
  expect(await startTracing(none)).toBeUndefined();
  expect(
    await startTracing({ ...none, environment: { ...environment, OTEL_SDK_DISABLED: "true" } }),
  ).toBeUndefined();
  for (const tracesUrl of ["collector:4317", "file:///etc/passwd", "nonsense"]) {
    const wrong = startTracing({ ...none, settings: { ...SETTINGS, tracesUrl } });
    await expect(wrong).rejects.toMatchObject({ code: "invalid_argument" });
  }
  collector.close();
  other.close();
});

it("leaves an SDK that is there as it is", async () => {
  const own = new BasicTracerProvider();
  expect(trace.setGlobalTracerProvider(own)).toBe(true);
  const settings = { ...SETTINGS, tracesUrl: "http://127.0.0.1:9" };
  expect(await startTracing({ settings, environment: {}, onWarning: quiet })).toBeUndefined();
  expect(trace.setGlobalTracerProvider(own)).toBe(false);
  trace.disable();
});

it("a collector that refuses holds nothing up, and is told of once", async () => {
  const collector = await startCollector(400);
  const warnings: unknown[] = [];
  const settings = { ...SETTINGS, tracesUrl: collector.url };
  stop = await startTracing({ settings, environment: {}, onWarning: (error) => warnings.push(error) });
  await using served = await startServed();
  for (let asked = 0; asked < 3; asked += 1) {
    expect((await fetch(`${served.url}/healthz`)).status).toBe(200);
  }
  await stop?.();
  expect(collector.received.length).toBeGreaterThan(0);
  expect(warnings).toEqual([expect.objectContaining({ code: "overloaded" })]);
  collector.close();
});
