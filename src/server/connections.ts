/**
 * Connections: how many there are in all and for each tenant, and which requests one has under way.
 *
 * A connection is its tenant's from the first request that was authenticated on it; one that speaks for several tenants
 * in turn, as a proxy does, counts for each. Kept: what has ended is counted no more, also where it ended before it was
 * known whose it is, or while its request stood in line behind another's answer; and whoever only holds connections, without
 * a credential, keeps out nobody: when there is no room, the one of nobody's that has waited longest is closed.
 */
import { kimberliteError } from "../errors.ts";
import type { ConnectionSocket } from "../hrana/served-host.ts";

export interface ConnectionLimits {
  readonly maxConnections: number;
  readonly maxConnectionsPerTenant: number;
  readonly maxRequestsPerConnection: number;
}

/** What is looked at of a request and its answer. */
export interface Exchanged {
  readonly request: { readonly complete: boolean };
  readonly answer: Pick<ConnectionSocket, "once"> & { readonly headersSent: boolean };
}

/** One request, until its answer is closed or its connection is. */
export class Exchange {
  readonly #exchanged: Exchanged;
  readonly #whenOver: (() => void)[] = [];
  /** True if it is the last that its connection may have. */
  readonly isLast: boolean;
  #over = false;

  constructor(exchanged: Exchanged, isLast: boolean) {
    this.#exchanged = exchanged;
    this.isLast = isLast;
  }

  /** True once all of the request has arrived. */
  get isWhole(): boolean {
    return this.#exchanged.request.complete;
  }

  /** True once its answer has begun. */
  get isAnswered(): boolean {
    return this.#exchanged.answer.headersSent;
  }

  /** Calls back once it is over; at once if it is. */
  whenOver(work: () => void): void {
    if (this.#over) work();
    else this.#whenOver.push(work);
  }

  end(): void {
    this.#over = true;
    for (const work of this.#whenOver.splice(0)) work();
  }
}

interface Connection {
  requests: number;
  /** Bytes that waited at the last look. */
  unread: number;
  readonly underWay: Set<Exchange>;
  readonly tenants: Set<bigint>;
}

export class Connections {
  readonly #limits: ConnectionLimits;
  readonly #open = new Map<ConnectionSocket, Connection>();
  readonly #ofTenant = new Map<bigint, number>();
  /** Those of nobody's on which no request is under way, the longest so first. */
  readonly #nobodys = new Set<ConnectionSocket>();

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

  /** Counts a connection from now on until it closes; one that has closed is not. */
  add(socket: ConnectionSocket): void {
    if (socket.destroyed || this.#open.has(socket)) return;
    if (this.#open.size >= this.#limits.maxConnections) this.#makeRoom();
    this.#nobodys.add(socket);
    this.#open.set(socket, {
      requests: 0,
      unread: Number.POSITIVE_INFINITY,
      underWay: new Set(),
      tenants: new Set(),
    });
    socket.once("close", () => this.#remove(socket));
  }

  /** Counts a request until it is over. */
  begin(socket: ConnectionSocket, exchanged: Exchanged): Exchange {
    this.add(socket);
    const connection = this.#open.get(socket);
    const isLast = (connection?.requests ?? 0) + 1 >= this.#limits.maxRequestsPerConnection;
    const exchange = new Exchange(exchanged, isLast);
    if (connection === undefined) {
      exchange.end();
      return exchange;
    }
    connection.requests += 1;
    connection.underWay.add(exchange);
    this.#nobodys.delete(socket);
    // An answer that stands in line behind another's says nothing when its connection closes.
    exchanged.answer.once("close", () => {
      connection.underWay.delete(exchange);
      const waits = connection.underWay.size === 0 && this.#open.has(socket);
      if (waits && connection.tenants.size === 0) this.#nobodys.add(socket);
      exchange.end();
    });
    return exchange;
  }

  /** The requests of a connection that are under way, in order. */
  underWay(socket: ConnectionSocket): readonly Exchange[] {
    return [...(this.#open.get(socket)?.underWay ?? [])];
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
    this.#nobodys.delete(socket);
    this.#ofTenant.set(tenant, held + 1);
  }

  /**
   * Looks at what waits for clients that do not read, and ends connections until it is within the bounds again: those
   * first that took nothing since the last look, and of them those for which the most waits.
   *
   * @returns how many were ended
   */
  cutUnread(bounds: { readonly perTenant: number; readonly inAll: number }): number {
    const { perTenant, inAll } = bounds;
    const waiting: Waiting[] = [];
    for (const [socket, connection] of this.#open) {
      const bytes = socket.writableLength;
      if (bytes > 0)
        waiting.push({ socket, bytes, stalled: bytes >= connection.unread, of: connection.tenants });
      connection.unread = bytes === 0 ? Number.POSITIVE_INFINITY : bytes;
    }
    return decideCuts(waiting, { perTenant, inAll }).map((socket) => socket.destroy()).length;
  }

  /** Ends every connection, also those that have become WebSockets. */
  destroyAll(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }

  /** Ends the connections that wait for nothing; WebSockets, which are held without a request, are left. */
  destroyIdle(): void {
    for (const [socket, { requests, underWay, tenants }] of this.#open) {
      const webSocket = requests === 0 && tenants.size > 0;
      if (underWay.size === 0 && !webSocket) socket.destroy();
    }
  }

  #makeRoom(): void {
    const [longest] = this.#nobodys;
    if (longest === undefined) return;
    this.#nobodys.delete(longest);
    longest.destroy();
  }

  #remove(socket: ConnectionSocket): void {
    const connection = this.#open.get(socket);
    this.#open.delete(socket);
    this.#nobodys.delete(socket);
    for (const exchange of connection?.underWay ?? []) exchange.end();
    for (const tenant of connection?.tenants ?? []) {
      const left = (this.#ofTenant.get(tenant) ?? 1) - 1;
      if (left === 0) this.#ofTenant.delete(tenant);
      else this.#ofTenant.set(tenant, left);
    }
  }
}

/** A connection on which something waits. */
export interface Waiting {
  readonly socket: ConnectionSocket;
  readonly bytes: number;
  /** True if its client took nothing since the last look. */
  readonly stalled: boolean;
  readonly of: ReadonlySet<bigint>;
}

/** Which of them have to end so that what waits is within the bounds. */
export function decideCuts(
  waiting: readonly Waiting[],
  bounds: { readonly perTenant: number; readonly inAll: number },
): ConnectionSocket[] {
  const ofTenant = new Map<bigint, number>();
  let all = 0;
  for (const { bytes, of } of waiting) {
    all += bytes;
    for (const tenant of of) ofTenant.set(tenant, (ofTenant.get(tenant) ?? 0) + bytes);
  }
  const isOver = (tenant: bigint): boolean => (ofTenant.get(tenant) ?? 0) > bounds.perTenant;
  if (all <= bounds.inAll && ![...ofTenant.keys()].some(isOver)) return [];
  const worstFirst = waiting.toSorted((a, b) => Number(b.stalled) - Number(a.stalled) || b.bytes - a.bytes);
  const cut: ConnectionSocket[] = [];
  for (const { socket, bytes, of } of worstFirst) {
    if (all <= bounds.inAll && ![...of].some(isOver)) continue;
    cut.push(socket);
    all -= bytes;
    for (const tenant of of) ofTenant.set(tenant, (ofTenant.get(tenant) ?? 0) - bytes);
  }
  return cut;
}
