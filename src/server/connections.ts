/**
 * Connections: how many there are in all and for each tenant, and how many requests one has had.
 *
 * A connection is its tenant's from the first request that was authenticated on it; one that speaks for several tenants
 * in turn, as a proxy does, counts for each.
 */
import { kimberliteError } from "../errors.ts";
import type { ConnectionSocket } from "../hrana/served-host.ts";

export interface ConnectionLimits {
  readonly maxConnections: number;
  readonly maxConnectionsPerTenant: number;
  readonly maxRequestsPerConnection: number;
}

type Closing = Pick<ConnectionSocket, "once">;

interface Connection {
  requests: number;
  underWay: number;
  readonly tenants: Set<bigint>;
}

export class Connections {
  readonly #limits: ConnectionLimits;
  readonly #open = new Map<ConnectionSocket, Connection>();
  readonly #ofTenant = new Map<bigint, number>();

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  get count(): number {
    return this.#open.size;
  }

  /** True when there are more than the node serves. */
  get overfull(): boolean {
    return this.#open.size > this.#limits.maxConnections;
  }

  /** Counts a connection from now on until it closes. */
  add(socket: ConnectionSocket): void {
    if (this.#open.has(socket)) return;
    this.#open.set(socket, { requests: 0, underWay: 0, tenants: new Set() });
    socket.once("close", () => this.#remove(socket));
  }

  /** Counts a request until its answer closes. @returns true if it is the last that its connection may have */
  countRequest(socket: ConnectionSocket, answer: Closing): boolean {
    this.add(socket);
    const connection = this.#open.get(socket);
    if (connection === undefined) return true;
    connection.requests += 1;
    connection.underWay += 1;
    answer.once("close", () => {
      connection.underWay -= 1;
    });
    return connection.requests >= this.#limits.maxRequestsPerConnection;
  }

  /** Counts a connection as a tenant's. @throws `quota_exceeded` (policy `maxConcurrentConnections`) */
  hold(tenant: bigint, socket: ConnectionSocket): void {
    this.add(socket);
    const tenants = this.#open.get(socket)?.tenants;
    if (tenants === undefined || tenants.has(tenant)) return;
    const held = this.#ofTenant.get(tenant) ?? 0;
    const limit = this.#limits.maxConnectionsPerTenant;
    if (held >= limit) {
      throw kimberliteError("quota_exceeded", "the tenant has too many connections", {
        detail: { tenant, policy: "maxConcurrentConnections", limit },
      });
    }
    tenants.add(tenant);
    this.#ofTenant.set(tenant, held + 1);
  }

  /** Ends every connection, also those that have become WebSockets. */
  destroyAll(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }

  /** Ends the connections that wait for nothing; WebSockets, which are held without a request, are left. */
  destroyIdle(): void {
    for (const [socket, { requests, underWay, tenants }] of this.#open) {
      const webSocket = requests === 0 && tenants.size > 0;
      if (underWay === 0 && !webSocket) socket.destroy();
    }
  }

  #remove(socket: ConnectionSocket): void {
    const connection = this.#open.get(socket);
    this.#open.delete(socket);
    for (const tenant of connection?.tenants ?? []) {
      const left = (this.#ofTenant.get(tenant) ?? 1) - 1;
      if (left === 0) this.#ofTenant.delete(tenant);
      else this.#ofTenant.set(tenant, left);
    }
  }
}
