/** `kimberlite serve` as a user runs it, and `@libsql/client` as its client. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type Client, createClient } from "@libsql/client";
import { type Dataset, newNote, patient, RANGE_ROWS } from "./dataset.ts";
import { type NodeOptions, openNode, prepareKimberlite } from "./kimberlite.ts";
import { median } from "./load.ts";
import type { Subject } from "./subject.ts";

const MAX_CONNECTIONS = 64;
/** Clock ticks a second in /proc (man 5 proc; 100 on every Linux that Node.js runs on). */
const TICK_US = 10_000;

export type Protocol = "http" | "ws";

export interface ServedNode {
  readonly url: string;
  /** Token of the tenant of that number; it may read and write. */
  token(tenant: number): string;
  subject(protocol: Protocol): Subject;
  /** CPU time of the server so far, all threads. */
  cpuUs(): number;
  /** Of so many requests, in this process. */
  admission(count: number): Promise<Admission>;
  stop(): Promise<void>;
}

type Quota = import("../src/index.ts").TenantQuota;

/** Makes tenants with rows and a token each, some with a quota, and serves them. */
export async function serveDataset(
  options: NodeOptions,
  dataset: Dataset,
  quotas: ReadonlyMap<number, Quota> = new Map(),
): Promise<ServedNode> {
  const { db, library } = await prepareKimberlite(options, dataset);
  for (const [tenant, quota] of quotas) await db.setQuota(library.TenantId(tenant), quota);
  const tokens: string[] = [];
  for (let tenant = 1; tenant <= dataset.tenants; tenant += 1) {
    const { token } = await db.createApiKey(library.TenantId(tenant), { role: "writer" });
    tokens.push(token);
  }
  await db.close();
  const server = await startServer(options, dataset.tenants);
  const token = (tenant: number): string => tokens[tenant - 1] as string;
  const freshId = idsOf();
  return {
    url: server.url,
    token,
    subject: (protocol) => subjectOf(protocol, { url: server.url, token, freshId }),
    cpuUs: () => cpuUsOf(server.child),
    admission: (count) => timeAdmission(options, token(1), count, server.stop),
    stop: server.stop,
  };
}

interface RunningServer {
  readonly child: ChildProcess;
  readonly url: string;
  readonly stop: () => Promise<void>;
}

async function startServer({ build, folder }: NodeOptions, tenants: number): Promise<RunningServer> {
  // As many as in the library's own measurements: all tenants, and room.
  const open = `database.maxOpenTenants=${tenants + 16}`;
  const args = [
    join(build, "cli", "main.js"),
    "serve",
    "--dir",
    folder,
    "--port",
    "0",
    "--json",
    "--set",
    open,
  ];
  const log = openSync(join(folder, "serve.log"), "a");
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", log] });
  closeSync(log);
  const lines = createInterface({ input: child.stdout as NonNullable<typeof child.stdout> });
  const [line] = (await Promise.race([
    once(lines, "line"),
    once(child, "exit").then(([code]) => Promise.reject(new Error(`kimberlite serve ended with ${code}`))),
  ])) as [string];
  const { url } = JSON.parse(line) as { readonly url: string };
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null) return;
    child.kill("SIGTERM");
    await once(child, "exit");
  };
  return { child, url, stop };
}

/** utime and stime of `/proc/PID/stat`. */
function cpuUsOf(child: ChildProcess): number {
  const text = readFileSync(`/proc/${child.pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_US;
}

/** The same clients against a server that costs nothing: the most that they can ask. */
export async function serveFixed(): Promise<Pick<ServedNode, "subject" | "stop">> {
  const child = spawn(process.execPath, [fileURLToPath(new URL("fixed-child.ts", import.meta.url))], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [port] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  const token = (): string => "none";
  const freshId = idsOf();
  return {
    subject: (protocol) => subjectOf(protocol, { url: `http://127.0.0.1:${port}`, token, freshId }),
    async stop() {
      child.kill("SIGKILL");
      await once(child, "exit");
    },
  };
}

/** µs of one request's admission. A request that reads or writes rows leaves no audit record. */
export interface Admission {
  readonly authenticationUs: number;
  /** Of all four limits, for a read. */
  readonly quotaUs: number;
}

const ROUNDS = 5;

/** The server is stopped first, for the directory is open in one process at a time. */
async function timeAdmission(
  options: NodeOptions,
  token: string,
  count: number,
  stop: () => Promise<void>,
): Promise<Admission> {
  await stop();
  const { db, library } = await openNode(options);
  const authenticator = db.authenticator();
  const origin = { remoteAddress: "127.0.0.1", requestId: "bench" };
  const tenant = library.TenantId(1);
  const limits = {
    maxOpsPerSec: 1e9,
    maxLogBytes: 2 ** 40,
    maxProjectionBytes: 2 ** 40,
    maxConcurrentOps: 1_000,
  };
  const usEach = async (work: () => Promise<unknown>): Promise<number> => {
    const startedMs = performance.now();
    for (let index = 0; index < count; index += 1) await work();
    return ((performance.now() - startedMs) * 1_000) / count;
  };
  const authenticate = async (): Promise<void> =>
    authenticator.recheck(await authenticator.authenticate(token, origin));
  const read = (): Promise<unknown> => db.query(tenant, POINT, [1]);
  const authentications: number[] = [];
  const quotas: number[] = [];
  for (let round = 0; round <= ROUNDS; round += 1) {
    const authenticationUs = await usEach(authenticate);
    await db.setQuota(tenant, {});
    const without = await usEach(read);
    await db.setQuota(tenant, limits);
    const withAll = await usEach(read);
    if (round === 0) continue;
    authentications.push(authenticationUs);
    quotas.push(withAll - without);
  }
  await db.close();
  return { authenticationUs: median(authentications), quotaUs: Math.max(0, median(quotas)) };
}

const INSERT = "INSERT INTO patients VALUES (?, ?, ?, ?)";
const POINT = "SELECT id, name, dob, note FROM patients WHERE id = ?";
const RANGE = "SELECT id, name, dob, note FROM patients WHERE id BETWEEN ? AND ?";
const UPDATE = "UPDATE patients SET note = ? WHERE id = ?";

/** What the ways to one server share. */
interface Shared {
  readonly url: string;
  readonly token: (tenant: number) => string;
  /** An id that no row has: each way counts from where the data set ends. */
  readonly freshId: (tenant: number, id: number) => number;
}

function idsOf(): Shared["freshId"] {
  const last = new Map<number, number>();
  return (tenant, id) => {
    const fresh = Math.max(id, (last.get(tenant) ?? 0) + 1);
    last.set(tenant, fresh);
    return fresh;
  };
}

function subjectOf(protocol: Protocol, { url, token, freshId }: Shared): Subject {
  const clients = new Clients(protocol === "ws" ? url.replace(/^http/, "ws") : url, token);
  const run = (tenant: number, sql: string, args: (string | number)[]): Promise<unknown> =>
    clients.run(tenant, (client) => client.execute({ sql, args }));
  return {
    name: protocol === "ws" ? "WebSocket" : "HTTP",
    blocking: false,
    insert(tenant, id) {
      const fresh = freshId(tenant, id);
      const { name, dob, note } = patient(fresh);
      return run(tenant, INSERT, [fresh, name, dob, note]);
    },
    point: (tenant, id) => run(tenant, POINT, [id]),
    range: (tenant, from) => run(tenant, RANGE, [from, from + RANGE_ROWS - 1]),
    update: (tenant, id, turn) => run(tenant, UPDATE, [newNote(turn), id]),
    close: () => clients.close(),
  };
}

/** A connection serves one caller at a time, as PostgreSQL's do; a tenant has as many as it has callers at once. */
class Clients {
  readonly #url: string;
  readonly #token: (tenant: number) => string;
  readonly #idle = new Map<number, Client[]>();
  readonly #all: Client[] = [];

  constructor(url: string, token: (tenant: number) => string) {
    this.#url = url;
    this.#token = token;
  }

  async run(tenant: number, work: (client: Client) => Promise<unknown>): Promise<unknown> {
    const idle = this.#idleOf(tenant);
    const client = idle.pop() ?? this.#connect(tenant);
    try {
      return await work(client);
    } finally {
      idle.push(client);
    }
  }

  async close(): Promise<void> {
    for (const client of this.#all) client.close();
  }

  #idleOf(tenant: number): Client[] {
    let idle = this.#idle.get(tenant);
    if (idle === undefined) {
      idle = [];
      this.#idle.set(tenant, idle);
    }
    return idle;
  }

  #connect(tenant: number): Client {
    const client = createClient({
      url: this.#url,
      authToken: this.#token(tenant),
      concurrency: MAX_CONNECTIONS,
    });
    this.#all.push(client);
    return client;
  }
}
