/**
 * The server that a command is for, from `--url` and `--token` or the environment.
 *
 * Kept: the token stands in no message, nor does the address, which may hold one; a command that was given a server never
 * falls back on a directory.
 */
import type { Command } from "commander";
import { kimberliteError } from "../errors.ts";
import type { GlobalOptions, ServerAddress } from "./arguments.ts";

/** Commands that do the same over a server, by their whole name. */
const SERVED: ReadonlySet<string> = new Set([
  "sql",
  "shell",
  "tenant create",
  "tenant list",
  "tenant describe",
  "tenant suspend",
  "tenant resume",
  "tenant quota",
  "hold place",
  "hold release",
  "hold list",
  "audit",
  "key list",
  "key rotate-dek",
  "key rotate-kek",
  "key verifier",
  "token create",
  "token list",
  "token revoke",
  "checkpoint",
  "stats",
  "verify",
  "grant create",
  "grant list",
  "grant revoke",
  "grant query",
  "grant read",
  "erase",
  "certificate",
  "retention",
  "trim",
  "subject declare",
  "subject list",
  "subject erase",
  "subject verify",
  "issuer register",
  "issuer list",
  "issuer remove",
  "key reencrypt",
  "key move",
  "key rotate-master",
  "rebuild",
  "export",
  "import",
  "backup run",
  "backup list",
]);

/** Why not, of those that somebody may look for. */
const HINTS: Readonly<Record<string, string>> = {
  restore: ", which would have to stop for it",
  "backup restore-tenant": ", for whoever restores a tenant comes to its data",
  "backup verify": ", which reads a place of backups by itself",
};

interface Given {
  readonly url?: string;
  readonly token?: string;
  readonly actor?: string;
}

/**
 * The command's options, with the server in the place of its parts.
 *
 * @throws `invalid_argument`; `unsupported` if the command is not for servers
 */
export function placedOptions(command: Command): GlobalOptions {
  const { url, token, ...options } = command.optsWithGlobals<GlobalOptions & Given>();
  const fromFlag = (name: string): boolean => command.getOptionValueSourceWithGlobals(name) === "cli";
  if (fromFlag("dir") && fromFlag("url")) throw invalid("give either --dir or --url");
  // What is said on the command line stands before the environment.
  if (url === undefined || (url === "" && !fromFlag("url")) || fromFlag("dir")) {
    if (fromFlag("token")) throw invalid("--token goes with --url");
    return options;
  }
  const name = nameOf(command);
  // An export or certificate is looked at here; which server the environment names has no part in it.
  if (name === "verify" && command.args.length > 0 && !fromFlag("url") && !fromFlag("token")) return options;
  if (!SERVED.has(name)) {
    throw kimberliteError(
      "unsupported",
      `${name} does not work over a server${HINTS[name] ?? ""}; give --dir where the data are`,
    );
  }
  if (options.actor !== undefined) {
    throw kimberliteError(
      "unsupported",
      "--actor does not go with a server, which records whose token it is",
    );
  }
  const server = { url: parseUrl(url), token: parseToken(token) } satisfies ServerAddress;
  warnOfClearText(server.url, options.json === true);
  return { ...options, server };
}

function nameOf(command: Command): string {
  const { parent } = command;
  return parent?.parent == null ? command.name() : `${nameOf(parent)} ${command.name()}`;
}

function parseUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const plain = url?.username === "" && url.password === "" && url.search === "" && url.hash === "";
  if (url === undefined || !plain || !/^https?:$/.test(url.protocol)) {
    throw invalid("a server's address is one such as https://db.example.com, without a credential in it");
  }
  return url.href.replace(/\/+$/, "");
}

const LOOPBACK = /^(?:127(?:\.\d{1,3}){3}|\[::1\]|(?:.+\.)?localhost)$/;

/** Whoever is on the way reads the token, and may then do what it may. */
function warnOfClearText(address: string, json: boolean): void {
  const { protocol, hostname } = new URL(address);
  if (protocol === "https:" || LOOPBACK.test(hostname)) return;
  const warning = "the token goes over the network in clear text: use https";
  console.error(json ? JSON.stringify({ warning }) : `warning: ${warning}`);
}

/** What can stand in a header, and so is never repeated by what refuses the header. */
function parseToken(token: string | undefined): string {
  if (token === undefined || token === "")
    throw invalid("a server wants a token: --token, or KIMBERLITE_TOKEN");
  if (!/^[\x21-\x7e]+$/.test(token)) throw invalid("the token is no API key and no JWT");
  return token;
}

function invalid(message: string): Error {
  return kimberliteError("invalid_argument", message);
}
