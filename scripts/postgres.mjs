/**
 * A private PostgreSQL cluster for as long as a program runs: in a temporary folder, on a unix socket alone, with the
 * durability of a production server. Nothing of an installed cluster is touched.
 *
 * The server refuses to run as root, so a root caller lends it the account `postgres` or `nobody`. It ends with the
 * program that started it, also when that is killed, and its folder is removed at every exit that runs code.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

const DEBIAN_ROOT = "/usr/lib/postgresql";
const READY_LIMIT_MS = 30_000;

const SETTINGS = {
  listen_addresses: "",
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  shared_buffers: "512MB",
  max_wal_size: "4GB",
  checkpoint_timeout: "15min",
  max_connections: "100",
  logging_collector: "off",
};

/** Folder of the newest PostgreSQL's programs, or undefined when there is none. */
function postgresPrograms() {
  const versions = existsSync(DEBIAN_ROOT)
    ? readdirSync(DEBIAN_ROOT)
        .map(Number)
        .sort((a, b) => b - a)
    : [];
  const folders = versions.map((version) => join(DEBIAN_ROOT, String(version), "bin"));
  folders.push(...(process.env.PATH ?? "").split(delimiter));
  return folders.find((folder) => existsSync(join(folder, "initdb")));
}

/**
 * Starts a new cluster and resolves when it takes connections as superuser `bench` on the socket in `host`.
 *
 * `stop` ends the server and removes its folder; it may be called twice.
 */
export async function startPostgres({ tcp = false } = {}) {
  const port = tcp ? await freePort() : undefined;
  const programs = postgresPrograms();
  if (programs === undefined)
    throw new Error("PostgreSQL is not installed (apt-get install -y postgresql-15)");
  const owner = ownerOf();
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-postgres-"));
  chmodSync(folder, 0o700);
  if (owner !== undefined) chownSync(folder, owner.uid, owner.gid);
  const data = join(folder, "data");
  let server;
  const remove = () => {
    if (server?.exitCode === null) server.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  };
  process.once("exit", remove);
  const stop = async () => {
    if (server !== undefined) await ended(server, "SIGINT");
    process.off("exit", remove);
    remove();
  };
  try {
    makeCluster(programs, data, owner);
    server = startServer(programs, { data, folder, owner, port });
    await ready(programs, { folder, port, server });
    return { host: folder, port, user: "bench", version: versionOf(programs), settings: SETTINGS, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The account to run as, when this program is root. */
function ownerOf() {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ["postgres", "nobody"]) {
    const [uid, gid] = ["-u", "-g"].map((flag) => spawnSync("id", [flag, name], { encoding: "utf8" }));
    if (uid.status === 0 && gid.status === 0) return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
  }
  throw new Error("PostgreSQL does not run as root, and there is no account to lend it");
}

function makeCluster(programs, data, owner) {
  const args = ["-D", data, "-U", "bench", "--auth=trust", "--encoding=UTF8", "--locale=C"];
  const done = spawnSync(join(programs, "initdb"), args, { ...owner, cwd: "/", encoding: "utf8" });
  if (done.status !== 0) throw new Error(`initdb failed: ${done.error?.message ?? done.stderr}`);
}

function startServer(programs, { data, folder, owner, port }) {
  const listen = port === undefined ? {} : { listen_addresses: "127.0.0.1", port: String(port) };
  const settings = Object.entries({ ...SETTINGS, ...listen, unix_socket_directories: folder });
  const args = ["-D", data, ...settings.flatMap(([name, value]) => ["-c", `${name}=${value}`])];
  const [program, ...rest] = tied([join(programs, "postgres"), ...args], owner);
  const options = existsSync("/usr/bin/setpriv") ? {} : owner;
  return spawn(program, rest, { ...options, cwd: "/", stdio: "ignore" });
}

/** Ties the server's life to this program's, where the system can: SIGINT is PostgreSQL's fast shutdown. */
function tied(command, owner) {
  if (!existsSync("/usr/bin/setpriv")) return command;
  const account =
    owner === undefined ? [] : [`--reuid=${owner.uid}`, `--regid=${owner.gid}`, "--clear-groups"];
  return ["/usr/bin/setpriv", "--pdeathsig", "INT", ...account, "--", ...command];
}

async function ready(programs, { folder, port, server }) {
  const where = port === undefined ? ["-h", folder] : ["-h", "127.0.0.1", "-p", String(port)];
  const endMs = performance.now() + READY_LIMIT_MS;
  while (performance.now() < endMs && server.exitCode === null) {
    const asked = spawnSync(join(programs, "pg_isready"), [...where, "-q"]);
    if (asked.status === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("PostgreSQL did not start");
}

/** One that was free a moment ago: PostgreSQL does not say which port it chose. */
async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

function ended(server, signal) {
  return new Promise((resolve) => {
    if (server.exitCode !== null || server.signalCode !== null) return resolve();
    server.once("exit", () => resolve());
    server.kill(signal);
  });
}

function versionOf(programs) {
  const { stdout } = spawnSync(join(programs, "postgres"), ["--version"], { encoding: "utf8" });
  return /[0-9][0-9.]*/.exec(stdout)?.[0] ?? "unknown";
}
