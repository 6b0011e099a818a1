/**
 * `kimberlite demo --serve`: the two hospitals as a network service on a scratch directory, with what to paste into
 * Node.js to use it, until it is told to end.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KimberliteError } from "../errors.ts";
import { registerHrana } from "../hrana/register.ts";
import type { Kimberlite } from "../kimberlite.ts";
import { Server } from "../server/server.ts";
import { Region } from "../tenant/region.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions } from "./arguments.ts";
import { initialise, installationPaths, openInstallation } from "./installation.ts";
import { bold, dim } from "./render.ts";

export interface DemoServeOptions extends GlobalOptions {
  readonly keep?: boolean;
  readonly port?: number;
}

const DEFAULT_PORT = 8080;
const HOSPITALS = [
  {
    id: TenantId(1),
    name: "Hospital A",
    region: Region.UsEast,
    patient: ["Alice Smith", "1985-03-15"],
  },
  { id: TenantId(2), name: "Hospital B", region: Region.EuWest, patient: ["Bob Johnson", "1990-07-22"] },
] as const;

export async function demoServe(options: DemoServeOptions): Promise<undefined> {
  const scratch = mkdtempSync(join(tmpdir(), "kimberlite-demo-"));
  if (options.keep !== true) process.once("exit", () => rmSync(scratch, { recursive: true, force: true }));
  const asked = endAsked();
  const paths = installationPaths(join(scratch, "kimberlite"));
  await initialise(paths);
  const db = await openInstallation(paths);
  try {
    const tokens = [...(await makeHospitals(db)), (await db.createOperatorKey({ name: "demo" })).token];
    await using server = await listen(db, options.port);
    show(server.address.url, tokens);
    if (options.keep === true) console.log(dim(`kept: ${paths.dir} (use it with --dir)`));
    await asked;
  } finally {
    await db.close();
  }
}

/** @returns a token for each, in their order */
async function makeHospitals(db: Kimberlite): Promise<string[]> {
  const tokens: string[] = [];
  for (const { id, name, region, patient } of HOSPITALS) {
    await db.createTenant({ id, name, region });
    await db.execute(id, "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL, dob TEXT)");
    await db.execute(id, "INSERT INTO patients VALUES (123, ?, ?)", patient);
    tokens.push((await db.createApiKey(id, { role: "admin", name: "demo" })).token);
  }
  return tokens;
}

/** On the port that is asked for; if none is, on the usual one, or any that is free. */
async function listen(db: Kimberlite, port: number | undefined): Promise<Server> {
  const start = (on: number): Promise<Server> =>
    Server.start({
      db,
      authenticator: db.authenticator(),
      settings: { port: on },
      register: (app, host) => registerHrana(app, host),
    });
  try {
    return await start(port ?? DEFAULT_PORT);
  } catch (error) {
    const taken = error instanceof KimberliteError && error.code === "address_unavailable";
    if (port !== undefined || !taken) throw error;
    return start(0);
  }
}

function show(url: string, tokens: readonly string[]): void {
  console.log(`\n${bold(`Kimberlite serves two hospitals at ${url}`)}\n`);
  for (const [index, { name }] of HOSPITALS.entries()) {
    console.log(`${name}  token ${tokens[index]}`);
  }
  console.log(`Operator    token ${tokens.at(-1)}`);
  const lines = [
    `const { createClient } = await import("@libsql/client");`,
    `const db = createClient({ url: "${url}", authToken: "${tokens[0]}" });`,
    `console.log((await db.execute("SELECT * FROM patients")).rows);`,
  ];
  console.log(`\n${dim("To use Hospital A from Node.js, paste this into `node` in this folder:")}\n`);
  console.log(lines.join("\n"));
  const notes = [
    "With the other hospital's token the same lines see Hospital B, and nothing of A. The operator makes and",
    "limits tenants (docs/admin-api.md), and reads nothing of theirs. Ctrl+C ends it.",
  ];
  console.log(`\n${dim(notes.join("\n"))}`);
}

/** Resolves at the first signal to end. */
function endAsked(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve());
  });
}
