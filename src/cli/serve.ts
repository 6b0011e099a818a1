/**
 * `kimberlite serve`: the installation as a network service, until it is told to end.
 *
 * SIGTERM and SIGINT end it in order; a second one ends it at once. What was acknowledged is durable either way.
 */
import { join } from "node:path";
import { kimberliteError } from "../errors.ts";
import { systemDisk } from "../host/disk.ts";
import { registerHrana } from "../hrana/register.ts";
import { parseServerConfig } from "../server/config.ts";
import { createLog } from "../server/log.ts";
import { Server } from "../server/server.ts";
import { gatherSettings } from "../server/setting-sources.ts";
import { nodeIssuersOf, openOptionsOf, type ServerSettings } from "../server/settings.ts";
import { startTracing } from "../server/tracing.ts";
import type { GlobalOptions } from "./arguments.ts";
import { reportFailure } from "./failure.ts";
import { installationPaths, openInstallation, rotateOpenMasterKeyTo } from "./installation.ts";
import { toJson } from "./render.ts";

interface ServeFlags extends GlobalOptions {
  readonly host?: string;
  readonly port?: number;
  readonly config?: string;
  readonly set?: readonly string[];
}

export async function serve(options: ServeFlags): Promise<undefined> {
  const settings = settingsOf(options);
  const config = parseServerConfig(settings);
  const { masterKeys } = config;
  const paths = installationPaths(options.dir);
  const onWarning = (error: unknown): void => void reportFailure(error, options.json === true);
  const stopTracing = await startTracing({
    settings: config.telemetry,
    environment: process.env,
    onWarning,
  });
  const db = await openInstallation(paths, openOptionsOf(config));
  try {
    await using server = await Server.start({
      db,
      authenticator: db.authenticator({ issuers: nodeIssuersOf(config) }),
      settings,
      log: createLog(config.log),
      register: (app, host) => registerHrana(app, host),
      rotateMasterKey: (name, by) => {
        if (!Object.hasOwn(masterKeys, name)) throw notConfigured();
        return rotateOpenMasterKeyTo(paths, db, { to: masterKeys[name] as string, ...by });
      },
      onWarning,
    });
    const stop = reloadWhenAsked(server, options);
    const { url } = server.address;
    const webSocketUrl = url.replace(/^http/, "ws");
    console.log(
      options.json === true ? toJson({ url, webSocketUrl }) : `ready: Hrana at ${url}, ${webSocketUrl}`,
    );
    await endAsked();
    stop();
  } finally {
    await db.close();
    await stopTracing?.();
  }
}

function notConfigured(): Error {
  return kimberliteError("not_authorized", "the server's settings name no such master key");
}

/** Of the configuration file, the environment and flags, in this order; the later ones win. */
function settingsOf(options: ServeFlags): ServerSettings {
  const { host, port, set = [] } = options;
  const settings = gatherSettings({
    file: configurationFile(options),
    environment: process.env,
    assignments: set,
  });
  return { ...settings, ...(host === undefined ? {} : { host }), ...(port === undefined ? {} : { port }) };
}

/** The file that is named, or `DIR/server.json` if there is one. */
function configurationFile({ config, dir }: ServeFlags): Buffer | undefined {
  const bytes = systemDisk.readFile(config ?? join(dir, "server.json"));
  if (bytes !== undefined || config === undefined) return bytes;
  throw kimberliteError("invalid_argument", `there is no file ${config}`);
}

/** SIGHUP: looks at the certificate's files. @returns what ends that */
function reloadWhenAsked(server: Server, options: ServeFlags): () => void {
  const reload = (): void => {
    try {
      server.reloadTls();
    } catch (error) {
      reportFailure(error, options.json === true);
    }
  };
  process.on("SIGHUP", reload);
  return () => process.off("SIGHUP", reload);
}

/** Resolves at the first signal to end; the one after it has its usual effect. */
function endAsked(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve());
  });
}
