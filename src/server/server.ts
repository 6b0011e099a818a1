/**
 * The node as a network service: one HTTP server for Hrana, the admin API and health checks.
 *
 * Going down it stops accepting, tells clients to come again elsewhere, lets what is under way end within a bounded time,
 * and only then closes its connections. The database belongs to the caller, who closes it afterwards.
 */
import type { AddressInfo } from "node:net";
import type { Server as SecureServer } from "node:tls";
import type { FastifyInstance } from "fastify";
import type { Logger } from "pino";
import type { Authenticator } from "../auth/authenticator.ts";
import { kimberliteError } from "../errors.ts";
import { type Clock, systemClock } from "../host/clock.ts";
import { type Disk, systemDisk } from "../host/disk.ts";
import { type Randomness, systemRandomness } from "../host/randomness.ts";
import type { ServedHost } from "../hrana/served-host.ts";
import type { Kimberlite } from "../kimberlite.ts";
import { registerAdminApi } from "./admin-api.ts";
import { AdminGate } from "./admin-gate.ts";
import { createApp } from "./app.ts";
import { parseServerConfig } from "./config.ts";
import { Connections } from "./connections.ts";
import { registerHealth } from "./health.ts";
import { Jobs } from "./jobs.ts";
import { LoadShedding } from "./load-shedding.ts";
import { ServerMetrics } from "./metrics.ts";
import { Folders, type Services } from "./services.ts";
import { sessionTelemetry } from "./session-telemetry.ts";
import type { ServerConfig, ServerSettings } from "./settings.ts";
import { registerTelemetry } from "./telemetry.ts";
import { loadTls, TlsReloader, type TlsSettings } from "./tls.ts";
import { boundUnread } from "./unread.ts";

export interface ServerOptions {
  readonly db: Kimberlite;
  readonly authenticator: Authenticator;
  readonly settings?: ServerSettings;
  /** Adds routes of its own, in a scope of its own. */
  readonly register?: (app: FastifyInstance, host: ServedHost) => void | Promise<void>;
  /** Moves the node to the master key that the settings have under a name. @returns the key's id */
  readonly rotateMasterKey?: Services["rotateMasterKey"];
  /** Told of what the server survived and an operator should know. */
  readonly onWarning?: (error: unknown) => void;
  /** Where a line for each request goes; nowhere unless given. */
  readonly log?: Logger;
  readonly disk?: Disk;
  readonly clock?: Clock;
  readonly randomness?: Randomness;
}

/** Where a server listens. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  /** Such as `http://127.0.0.1:8080`. */
  readonly url: string;
}

const CLOSE_IDLE_EVERY_MS = 100;

export class Server implements AsyncDisposable {
  readonly #app: FastifyInstance;
  readonly #config: ServerConfig;
  readonly #connections: Connections;
  readonly #drain: AbortController;
  readonly #jobs: Jobs;
  readonly #reloader: TlsReloader | undefined;
  readonly address: ServerAddress;
  #closed: Promise<void> | undefined;

  private constructor(parts: {
    readonly app: FastifyInstance;
    readonly config: ServerConfig;
    readonly connections: Connections;
    readonly drain: AbortController;
    readonly jobs: Jobs;
    readonly reloader: TlsReloader | undefined;
    readonly address: ServerAddress;
  }) {
    this.#app = parts.app;
    this.#config = parts.config;
    this.#connections = parts.connections;
    this.#drain = parts.drain;
    this.#jobs = parts.jobs;
    this.#reloader = parts.reloader;
    this.address = parts.address;
  }

  /** Resolves when it listens. @throws `invalid_argument`, `address_unavailable` */
  static async start(options: ServerOptions): Promise<Server> {
    const config = parseServerConfig(options.settings);
    const drain = new AbortController();
    const connections = new Connections(config.limits);
    const isDraining = (): boolean => drain.signal.aborted;
    const randomness = options.randomness ?? systemRandomness();
    const disk = options.disk ?? systemDisk;
    const tls = config.tls === undefined ? undefined : loadTls(disk, config.tls);
    const app = createApp({ config, connections, randomness, isDraining, tls });
    const { db, authenticator, log } = options;
    const { open, tenantLabels: maxTenants } = config.metrics;
    const metrics = new ServerMetrics({ db, connections: () => connections.count, maxTenants });
    registerTelemetry(app, { authenticator, metrics, openMetrics: open, log });
    const shedding = new LoadShedding(config.limits, options.clock ?? systemClock);
    shedding.register(app);
    boundUnread(app, connections, config.limits);
    const host: ServedHost = {
      ...makeHost(options, { config, connections, randomness, draining: drain.signal }),
      ...sessionTelemetry({ authenticator, metrics, log }),
      isOverloaded: () => shedding.pressed,
      isFull: () => connections.overfull,
    };
    registerHealth(app, isDraining);
    const jobs = new Jobs({
      clock: host.clock,
      randomness,
      gate: new AdminGate("maxConcurrentJobs", config.limits.maxAdminRequestsPerTenant),
    });
    const services = makeServices(config, options, jobs);
    await app.register(async (scope) => registerAdminApi(scope, { host, config, services }));
    const { register } = options;
    if (register !== undefined) await app.register(async (scope) => register(scope, host));
    const reloader = config.tls === undefined ? undefined : watchTls(app, config.tls, { ...options, disk });
    await listen(app, config);
    return new Server({
      app,
      config,
      connections,
      drain,
      jobs,
      reloader,
      address: addressOf(app, tls !== undefined),
    });
  }

  /**
   * Looks at the files of the TLS certificate now, which it does by itself every few seconds, and puts them into force for
   * new connections if they changed.
   *
   * @returns true if they did
   * @throws `invalid_argument` for files that are not usable together; what was in force stays
   */
  reloadTls(): boolean {
    return this.#reloader?.reload() ?? false;
  }

  /** Finishes what is under way, for at most `limits.drainTimeoutMs`, then closes every connection. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#drain.abort();
    const { server } = this.#app;
    const jobs = this.#jobs.settled();
    let late: NodeJS.Timeout | undefined;
    const timeUp = new Promise<void>((resolve) => {
      late = setTimeout(() => {
        this.#connections.destroyAll();
        resolve();
      }, this.#config.limits.drainTimeoutMs);
    });
    // A connection may become idle at any time until then.
    const idle = setInterval(() => {
      server.closeIdleConnections();
      this.#connections.destroyIdle();
    }, CLOSE_IDLE_EVERY_MS);
    try {
      server.closeIdleConnections();
      await this.#app.close();
      // What nobody waits for has the same time to end.
      await Promise.race([jobs, timeUp]);
    } finally {
      clearTimeout(late);
      clearInterval(idle);
    }
  }
}

function makeHost(
  { db, authenticator, clock = systemClock }: ServerOptions,
  parts: {
    readonly config: ServerConfig;
    readonly connections: Connections;
    readonly randomness: Randomness;
    readonly draining: AbortSignal;
  },
): Omit<ServedHost, "beginRequest" | "noteFailure" | "isOverloaded" | "isFull"> {
  const { config, connections, randomness, draining } = parts;
  return {
    db,
    clock,
    randomness,
    limits: config.limits,
    draining,
    authenticate: (bearer, origin) => authenticator.authenticate(bearer, origin),
    recheck: (principal) => authenticator.recheck(principal),
    noteRefusal: (principal, action, origin) => authenticator.noteRefusal(principal, action, origin),
    holdConnection: (principal, socket) => {
      if (principal.kind === "tenant") connections.hold(principal.tenant, socket);
    },
  };
}

function makeServices(config: ServerConfig, { rotateMasterKey }: ServerOptions, jobs: Jobs): Services {
  return {
    jobs,
    folders: new Folders(config.folders),
    backupPlaces: new Map(Object.entries(config.backupPlaces)),
    masterKeySchemes: config.tenantMasterKeySchemes,
    rotateMasterKey,
  };
}

const LOOK_AT_TLS_EVERY_MS = 5_000;

function watchTls(
  app: FastifyInstance,
  settings: TlsSettings,
  { disk, onWarning = () => undefined }: ServerOptions & { readonly disk: Disk },
): TlsReloader {
  const server = app.server as unknown as SecureServer;
  const reloader = new TlsReloader(disk, settings, (material) => server.setSecureContext(material));
  const timer = setInterval(() => {
    try {
      reloader.reload();
    } catch (error) {
      onWarning(error);
    }
  }, LOOK_AT_TLS_EVERY_MS);
  timer.unref();
  app.addHook("onClose", async () => clearInterval(timer));
  return reloader;
}

function addressOf(app: FastifyInstance, secure: boolean): ServerAddress {
  const { address, port, family } = app.server.address() as AddressInfo;
  const host = family === "IPv6" ? `[${address}]` : address;
  return { host: address, port, url: `${secure ? "https" : "http"}://${host}:${port}` };
}

/** @throws `address_unavailable` */
async function listen(app: FastifyInstance, { host, port }: ServerConfig): Promise<void> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    await app.close();
    const cause = (error as NodeJS.ErrnoException).code ?? "unknown";
    const why =
      cause === "EADDRINUSE" ? "something listens there already; --port 0 takes a free port" : cause;
    throw kimberliteError(
      "address_unavailable",
      `the server cannot listen at ${host}, port ${port}: ${why}`,
      {
        detail: { port, cause },
        cause: error,
      },
    );
  }
}
