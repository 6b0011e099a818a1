/**
 * The node as a network service: one HTTP server for Hrana, the admin API and health checks.
 *
 * Going down it stops accepting, tells clients to come again elsewhere, lets what is under way end within a bounded time,
 * and only then closes its connections. The database belongs to the caller, who closes it afterwards.
 */
import type { AddressInfo } from "node:net";
import type { FastifyInstance } from "fastify";
import type { Authenticator } from "../auth/authenticator.ts";
import { type Clock, systemClock } from "../host/clock.ts";
import { type Randomness, systemRandomness } from "../host/randomness.ts";
import type { ServedHost } from "../hrana/served-host.ts";
import type { Kimberlite } from "../kimberlite.ts";
import { registerAdminApi } from "./admin-api.ts";
import { createApp } from "./app.ts";
import { parseServerConfig, type ServerConfig, type ServerSettings } from "./config.ts";
import { Connections } from "./connections.ts";
import { registerHealth } from "./health.ts";
import { Folders, type ServiceSettings, type Services } from "./services.ts";

export interface ServerOptions {
  readonly db: Kimberlite;
  readonly authenticator: Authenticator;
  readonly settings?: ServerSettings;
  /** Adds routes of its own, in a scope of its own. */
  readonly register?: (app: FastifyInstance, host: ServedHost) => void | Promise<void>;
  /** What the admin API can reach beside the database. */
  readonly services?: ServiceSettings;
  readonly clock?: Clock;
  readonly randomness?: Randomness;
}

/** A tenant may move its keys to a service that is reached with the node's own credentials; to no file of the node's. */
const DEFAULT_MASTER_KEY_SCHEMES = ["awskms"];

/** Where a server listens. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  /** Such as `http://127.0.0.1:8080`. */
  readonly url: string;
}

export class Server implements AsyncDisposable {
  readonly #app: FastifyInstance;
  readonly #config: ServerConfig;
  readonly #connections: Connections;
  readonly #drain: AbortController;
  readonly address: ServerAddress;
  #closed: Promise<void> | undefined;

  private constructor(parts: {
    readonly app: FastifyInstance;
    readonly config: ServerConfig;
    readonly connections: Connections;
    readonly drain: AbortController;
    readonly address: ServerAddress;
  }) {
    this.#app = parts.app;
    this.#config = parts.config;
    this.#connections = parts.connections;
    this.#drain = parts.drain;
    this.address = parts.address;
  }

  /** Resolves when it listens. @throws `invalid_argument`; Node's own error if the address cannot be had */
  static async start(options: ServerOptions): Promise<Server> {
    const config = parseServerConfig(options.settings);
    const drain = new AbortController();
    const connections = new Connections(config.limits);
    const isDraining = (): boolean => drain.signal.aborted;
    const randomness = options.randomness ?? systemRandomness();
    const host = makeHost(options, { config, connections, randomness, draining: drain.signal });
    const app = createApp({ config, connections, randomness, isDraining });
    registerHealth(app, isDraining);
    const services = makeServices(options);
    await app.register(async (scope) => registerAdminApi(scope, { host, config, services }));
    const { register } = options;
    if (register !== undefined) await app.register(async (scope) => register(scope, host));
    await app.listen({ host: config.host, port: config.port });
    return new Server({ app, config, connections, drain, address: addressOf(app) });
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
    const late = setTimeout(() => this.#connections.destroyAll(), this.#config.limits.drainTimeoutMs);
    try {
      server.closeIdleConnections();
      await this.#app.close();
    } finally {
      clearTimeout(late);
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
): ServedHost {
  const { config, connections, randomness, draining } = parts;
  return {
    db,
    clock,
    randomness,
    limits: config.limits,
    draining,
    authenticate: (bearer, origin) => authenticator.authenticate(bearer, origin),
    recheck: (principal) => authenticator.recheck(principal),
    holdConnection: (principal, socket) => {
      if (principal.kind === "tenant") connections.hold(principal.tenant, socket);
    },
  };
}

function makeServices({ services = {} }: ServerOptions): Services {
  return {
    folders: new Folders(services.folders ?? {}),
    backupPlaces: new Map(Object.entries(services.backupPlaces ?? {})),
    masterKeySchemes: services.masterKeySchemes ?? DEFAULT_MASTER_KEY_SCHEMES,
    ...(services.rotateMasterKey === undefined ? {} : { rotateMasterKey: services.rotateMasterKey }),
  };
}

function addressOf(app: FastifyInstance): ServerAddress {
  const { address, port, family } = app.server.address() as AddressInfo;
  const host = family === "IPv6" ? `[${address}]` : address;
  return { host: address, port, url: `http://${host}:${port}` };
}
