/**
 * `kimberlite serve`: the installation as a network service, until it is told to end.
 *
 * SIGTERM and SIGINT end it in order; a second one ends it at once. What was acknowledged is durable either way.
 */
import { registerHrana } from "../hrana/register.ts";
import { Server } from "../server/server.ts";
import type { GlobalOptions } from "./arguments.ts";
import { installationPaths, openInstallation } from "./installation.ts";
import { toJson } from "./render.ts";

interface ServeFlags extends GlobalOptions {
  readonly host?: string;
  readonly port?: number;
}

export async function serve(options: ServeFlags): Promise<undefined> {
  const { host, port } = options;
  const db = await openInstallation(installationPaths(options.dir));
  try {
    const settings = { ...(host === undefined ? {} : { host }), ...(port === undefined ? {} : { port }) };
    await using server = await Server.start({
      db,
      authenticator: db.authenticator(),
      settings,
      register: (app, host) => registerHrana(app, host),
    });
    const { url } = server.address;
    const webSocketUrl = url.replace(/^http/, "ws");
    console.log(
      options.json === true ? toJson({ url, webSocketUrl }) : `ready: Hrana at ${url}, ${webSocketUrl}`,
    );
    await endAsked();
  } finally {
    await db.close();
  }
}

/** Resolves at the first signal to end; the one after it has its usual effect. */
function endAsked(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve());
  });
}
