/**
 * Numbers of the node for Prometheus.
 *
 * Kept: a label has few values, whatever clients send: methods and routes that there are, statuses, error codes, and of
 * tenants the first so many that asked, the rest together. Never a name, a path, a text or a value of anybody's.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Kimberlite } from "../kimberlite.ts";

export interface MetricsParts {
  readonly db: Kimberlite;
  readonly connections: () => number;
  /** Most tenants that have a label of their own; 0 for none. */
  readonly maxTenants: number;
}

/** A request that was answered. */
export interface AnsweredRequest {
  readonly method: string;
  /** As it was registered, with names in the place of values. */
  readonly route: string;
  readonly status: number;
  readonly seconds: number;
  readonly tenant: bigint | undefined;
  /** Of what it was refused with. */
  readonly code: string | undefined;
}

/** `WS` is a request on a WebSocket. */
const METHODS: ReadonlySet<string> = new Set([
  "GET",
  "POST",
  "PUT",
  "DELETE",
  "PATCH",
  "HEAD",
  "OPTIONS",
  "WS",
]);
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export class ServerMetrics {
  readonly #node: Registry = new Registry();
  readonly #tenants: Registry = new Registry();
  readonly #maxTenants: number;
  readonly #known: Set<bigint> = new Set();
  readonly #inFlight: Gauge;
  readonly #duration: Histogram<"method" | "route" | "status">;
  readonly #errors: Counter<"code">;
  readonly #tenantRequests: Counter<"tenant">;
  readonly #tenantSeconds: Counter<"tenant">;

  constructor({ db, connections, maxTenants }: MetricsParts) {
    this.#maxTenants = maxTenants;
    const node = { registers: [this.#node] };
    const tenants = { registers: [this.#tenants] };
    this.#inFlight = new Gauge({
      name: "kimberlite_http_requests_in_flight",
      help: "Requests under way.",
      ...node,
    });
    this.#duration = new Histogram({
      name: "kimberlite_http_request_duration_seconds",
      help: "Time from a request's headers to the end of its answer.",
      labelNames: ["method", "route", "status"],
      buckets: BUCKETS,
      ...node,
    });
    this.#errors = new Counter({
      name: "kimberlite_errors_total",
      help: "Requests and statements refused or failed, by the code of docs/errors.md.",
      labelNames: ["code"],
      ...node,
    });
    this.#tenantRequests = new Counter({
      name: "kimberlite_tenant_requests_total",
      help: "Requests of a tenant; beyond the bound of labels, of the others together.",
      labelNames: ["tenant"],
      ...tenants,
    });
    this.#tenantSeconds = new Counter({
      name: "kimberlite_tenant_request_seconds_total",
      help: "Time that requests of a tenant took.",
      labelNames: ["tenant"],
      ...tenants,
    });
    this.#gauge("kimberlite_connections", "Open connections.", connections);
    this.#gauge("kimberlite_tenants", "Tenants in the catalogue.", () => db.stats().tenants);
    this.#gauge("kimberlite_open_tenants", "Tenants that are open.", () => db.stats().openTenants);
    this.#gauge("process_resident_memory_bytes", "Memory of the process.", () => process.memoryUsage.rss());
    this.#gauge("nodejs_heap_used_bytes", "Heap of JavaScript.", () => process.memoryUsage().heapUsed);
    this.#gauge("process_cpu_seconds_total", "Time of processors.", () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    });
    this.#gauge(
      "nodejs_eventloop_utilization",
      "Share of time that the event loop was busy, since the start.",
      () => performance.eventLoopUtilization().utilization,
    );
  }

  begin(): void {
    this.#inFlight.inc();
  }

  end(request: AnsweredRequest): void {
    const { route, status, seconds, tenant, code } = request;
    const method = METHODS.has(request.method) ? request.method : "other";
    this.#inFlight.dec();
    this.#duration.observe({ method, route, status: String(status) }, seconds);
    if (code !== undefined) this.#errors.inc({ code });
    if (tenant === undefined || this.#maxTenants === 0) return;
    const label = { tenant: this.#label(tenant) };
    this.#tenantRequests.inc(label);
    this.#tenantSeconds.inc(label, seconds);
  }

  /** Counts a failure that was told within an answer that was none itself, as of one statement of several. */
  fail(code: string): void {
    this.#errors.inc({ code });
  }

  get contentType(): string {
    return this.#node.contentType;
  }

  /** In the text format; with `tenants` also their numbers, by id. */
  async text(tenants: boolean): Promise<string> {
    const node = await this.#node.metrics();
    return tenants && this.#maxTenants > 0 ? `${node}\n${await this.#tenants.metrics()}` : node;
  }

  #label(tenant: bigint): string {
    if (!this.#known.has(tenant) && this.#known.size >= this.#maxTenants) return "other";
    this.#known.add(tenant);
    return tenant.toString();
  }

  #gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.#node],
      collect() {
        this.set(read());
      },
    });
  }
}
