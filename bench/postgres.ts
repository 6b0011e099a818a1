/**
 * PostgreSQL as a multi-tenant SaaS uses it: one table with a `tenant_id` column, row-level security that is forced on
 * a role without privileges, prepared statements, at most 64 connections.
 *
 * In its favour: a unix socket; `app.tenant` is set only when a connection changes its tenant, and a caller gets a
 * connection that is set to its tenant already if one is free.
 */
import pg from "pg";
import { type PostgresCluster, startPostgres } from "../scripts/postgres.mjs";
import { type Dataset, newNote, patient, RANGE_ROWS } from "./dataset.ts";
import type { Subject } from "./subject.ts";

const MAX_CONNECTIONS = 64;
const ROWS_A_STATEMENT = 20_000;

const STATEMENTS = {
  tenant: "SELECT set_config('app.tenant', $1, false)",
  insert: "INSERT INTO patients (tenant_id, id, name, dob, note) VALUES ($1, $2, $3, $4, $5)",
  point: "SELECT id, name, dob, note FROM patients WHERE id = $1",
  range: "SELECT id, name, dob, note FROM patients WHERE id BETWEEN $1 AND $2",
  update: "UPDATE patients SET note = $1 WHERE id = $2",
} as const;

const SCHEMA = `
  CREATE TABLE patients (tenant_id bigint NOT NULL, id bigint NOT NULL, name text NOT NULL, dob text NOT NULL,
                         note text NOT NULL, PRIMARY KEY (tenant_id, id));
  ALTER TABLE patients ENABLE ROW LEVEL SECURITY;
  ALTER TABLE patients FORCE ROW LEVEL SECURITY;
  CREATE POLICY of_tenant ON patients USING (tenant_id = current_setting('app.tenant')::bigint);
  GRANT SELECT, INSERT, UPDATE, DELETE ON patients TO app;`;

/** A running cluster; each data set is a database of its own in it. */
export class PostgresServer {
  readonly #cluster: PostgresCluster;

  private constructor(cluster: PostgresCluster) {
    this.#cluster = cluster;
  }

  /** On a unix socket, or with `tcp` on a port of the loopback interface. */
  static async start(options: { readonly tcp?: boolean } = {}): Promise<PostgresServer> {
    const server = new PostgresServer(await startPostgres(options));
    await server.#asSuperuser("postgres", (client) =>
      client.query("CREATE ROLE app LOGIN NOSUPERUSER NOBYPASSRLS"),
    );
    return server;
  }

  get version(): string {
    return this.#cluster.version;
  }

  get settings(): Readonly<Record<string, string>> {
    return this.#cluster.settings;
  }

  get #address(): { readonly host: string; readonly port?: number } {
    const { host, port } = this.#cluster;
    return port === undefined ? { host } : { host: "127.0.0.1", port };
  }

  async prepare(dataset: Dataset): Promise<Subject> {
    const database = `tenants_${dataset.tenants}`;
    await this.#asSuperuser("postgres", async (client) => {
      await client.query(`DROP DATABASE IF EXISTS ${database}`);
      await client.query(`CREATE DATABASE ${database}`);
    });
    await this.#asSuperuser(database, async (client) => {
      await client.query(SCHEMA);
      await fill(client, dataset);
      await client.query("VACUUM (ANALYZE) patients");
      await client.query("CHECKPOINT");
    });
    return subjectOf(new Connections({ ...this.#address, user: "app", database }));
  }

  stop(): Promise<void> {
    return this.#cluster.stop();
  }

  async #asSuperuser(database: string, work: (client: pg.Client) => Promise<unknown>): Promise<void> {
    const client = new pg.Client({ ...this.#address, user: this.#cluster.user, database });
    await client.connect();
    try {
      await work(client);
    } finally {
      await client.end();
    }
  }
}

async function fill(client: pg.Client, dataset: Dataset): Promise<void> {
  const total = dataset.tenants * dataset.rowsEach;
  for (let first = 0; first < total; first += ROWS_A_STATEMENT) {
    const columns: [number[], number[], string[], string[], string[]] = [[], [], [], [], []];
    for (let row = first; row < Math.min(total, first + ROWS_A_STATEMENT); row += 1) {
      const id = 1 + (row % dataset.rowsEach);
      const { name, dob, note } = patient(id);
      columns[0].push(1 + Math.floor(row / dataset.rowsEach));
      columns[1].push(id);
      columns[2].push(name);
      columns[3].push(dob);
      columns[4].push(note);
    }
    const rows = "SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[])";
    await client.query(`INSERT INTO patients ${rows}`, columns);
  }
}

interface Connection {
  readonly client: pg.Client;
  tenant: number;
}

/** Up to 64 connections; who finds none free waits for the next. */
class Connections {
  readonly #config: pg.ClientConfig;
  readonly #idle: Connection[] = [];
  readonly #waiting: ((connection: Connection) => void)[] = [];
  readonly #all: Promise<Connection>[] = [];

  constructor(config: pg.ClientConfig) {
    this.#config = config;
  }

  async run(tenant: number, name: keyof typeof STATEMENTS, values: unknown[]): Promise<pg.QueryResult> {
    const connection = await this.#take(tenant);
    try {
      if (connection.tenant !== tenant) {
        await connection.client.query({ name: "tenant", text: STATEMENTS.tenant, values: [String(tenant)] });
        connection.tenant = tenant;
      }
      return await connection.client.query({ name, text: STATEMENTS[name], values });
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#idle.push(connection);
      else next(connection);
    }
  }

  async close(): Promise<void> {
    for (const connection of await Promise.all(this.#all)) await connection.client.end();
  }

  async #take(tenant: number): Promise<Connection> {
    const fitting = this.#idle.findIndex((connection) => connection.tenant === tenant);
    if (fitting >= 0) return this.#idle.splice(fitting, 1)[0] as Connection;
    const any = this.#idle.pop();
    if (any !== undefined) return any;
    if (this.#all.length >= MAX_CONNECTIONS) return new Promise((resolve) => this.#waiting.push(resolve));
    const opening = this.#connect();
    this.#all.push(opening);
    return opening;
  }

  async #connect(): Promise<Connection> {
    const client = new pg.Client(this.#config);
    // A connection that is lost fails the query that runs on it; between queries nobody needs to know.
    client.on("error", () => undefined);
    await client.connect();
    return { client, tenant: 0 };
  }
}

function subjectOf(connections: Connections): Subject {
  return {
    name: "PostgreSQL",
    blocking: false,
    insert(tenant, id) {
      const { name, dob, note } = patient(id);
      return connections.run(tenant, "insert", [tenant, id, name, dob, note]);
    },
    point: (tenant, id) => connections.run(tenant, "point", [id]),
    range: (tenant, from) => connections.run(tenant, "range", [from, from + RANGE_ROWS - 1]),
    update: (tenant, id, turn) => connections.run(tenant, "update", [newNote(turn), id]),
    close: () => connections.close(),
  };
}
