/**
 * Traces to a collector: OTLP over HTTP in JSON, by the official exporter, if the settings or the standard variables of the
 * environment name a place (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`). `OTEL_EXPORTER_OTLP_HEADERS`,
 * `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and `OTEL_SDK_DISABLED` are what OpenTelemetry says that they are.
 *
 * Kept: what is in a span is chosen in `telemetry.ts`; a collector that is away holds nothing up: spans wait in a bounded
 * number, and are dropped.
 */
import { DiagLogLevel, diag, propagation, trace } from "@opentelemetry/api";
import { kimberliteError } from "../errors.ts";
import { PRODUCT_VERSION } from "../host/product.ts";
import type { TelemetrySettings } from "./settings.ts";

export interface TracingParts {
  readonly settings: TelemetrySettings;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Told, at most once a minute, that spans could not be sent. */
  readonly onWarning: (error: unknown) => void;
}

/** Sends what waits, for a bounded time, and ends it. */
export type StopTracing = () => Promise<void>;

const SEND_TIMEOUT_MS = 5_000;
const WARN_EVERY_MS = 60_000;

/** @returns what ends it; undefined if no place is named @throws `invalid_argument` for a place that is no address */
export async function startTracing(parts: TracingParts): Promise<StopTracing | undefined> {
  const { settings, environment } = parts;
  const url = tracesUrl(settings, environment);
  if (url === undefined || environment["OTEL_SDK_DISABLED"]?.toLowerCase() === "true") return undefined;
  const [{ OTLPTraceExporter }, { BasicTracerProvider, BatchSpanProcessor }, resources, core] =
    await Promise.all([
      import("@opentelemetry/exporter-trace-otlp-http"),
      import("@opentelemetry/sdk-trace-base"),
      import("@opentelemetry/resources"),
      import("@opentelemetry/core"),
    ]);
  const exporter = new OTLPTraceExporter({ url, timeoutMillis: SEND_TIMEOUT_MS });
  const provider = new BasicTracerProvider({
    resource: resources.resourceFromAttributes({
      "service.name": environment["OTEL_SERVICE_NAME"] ?? settings.serviceName,
      "service.version": PRODUCT_VERSION,
    }),
    spanProcessors: [new BatchSpanProcessor(exporter)],
  });
  if (!trace.setGlobalTracerProvider(provider)) {
    // An SDK that was loaded before the command has its own exporters.
    await provider.shutdown();
    return undefined;
  }
  const warn = warning(parts.onWarning);
  const quiet = (): void => undefined;
  // The exporter's own words may repeat what a collector answered.
  diag.setLogger({ error: warn, warn: quiet, info: quiet, debug: quiet, verbose: quiet }, DiagLogLevel.ERROR);
  propagation.setGlobalPropagator(new core.W3CTraceContextPropagator());
  return async () => {
    await provider.shutdown().catch(warn);
    trace.disable();
    propagation.disable();
    diag.disable();
  };
}

function tracesUrl(
  { tracesUrl: given }: TelemetrySettings,
  environment: TracingParts["environment"],
): string | undefined {
  const own = given ?? environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
  const base = environment["OTEL_EXPORTER_OTLP_ENDPOINT"];
  const url = own || (base ? `${base.replace(/\/+$/, "")}/v1/traces` : undefined);
  if (url === undefined || (URL.canParse(url) && /^https?:$/.test(new URL(url).protocol))) return url;
  throw kimberliteError("invalid_argument", "traces go to an address of a collector, by http or https");
}

function warning(onWarning: (error: unknown) => void): () => void {
  let lastMs = Number.NEGATIVE_INFINITY;
  return () => {
    if (performance.now() - lastMs < WARN_EVERY_MS) return;
    lastMs = performance.now();
    onWarning(kimberliteError("overloaded", "traces could not be sent to their collector"));
  };
}
