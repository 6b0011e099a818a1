/** Where a server's settings are written. Later sources win: defaults, file, environment, flags. */
import { kimberliteError } from "../errors.ts";
import { parseJsonBody } from "../hrana/json-body.ts";
import { settingAt } from "./config.ts";
import type { ServerSettings } from "./settings.ts";

/** Prefix of the variables of the environment that are settings. */
const VARIABLE_PREFIX = "KIMBERLITE_SERVE_";

/** Where settings are written, the later ones winning. */
export interface SettingSources {
  /** The bytes of the configuration file: JSON. */
  readonly file?: Buffer | undefined;
  /** Those that begin with `KIMBERLITE_SERVE_` count: `KIMBERLITE_SERVE_LIMITS__MAX_BODY_BYTES` is `limits.maxBodyBytes`. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** `name=value`, such as `limits.maxBodyBytes=1048576`; lists and objects in JSON. */
  readonly assignments: readonly string[];
}

/** Settings of all sources, for `parseServerConfig`. @throws `invalid_argument` */
export function gatherSettings({ file, environment, assignments }: SettingSources): ServerSettings {
  const settings: Record<string, unknown> = file === undefined ? {} : parseFile(file);
  for (const [name, text] of Object.entries(environment)) {
    if (!name.startsWith(VARIABLE_PREFIX) || text === undefined) continue;
    const path = name.slice(VARIABLE_PREFIX.length).split("__").map(toCamel);
    assign(settings, path, { text, source: name });
  }
  for (const assignment of assignments) {
    const [name = "", ...rest] = assignment.split("=");
    if (rest.length === 0) throw kimberliteError("invalid_argument", "a setting is NAME=VALUE");
    assign(settings, name.split("."), { text: rest.join("="), source: name });
  }
  return settings;
}

function parseFile(file: Buffer): Record<string, unknown> {
  const settings = parseJson(file);
  if (typeof settings === "object" && settings !== null && !Array.isArray(settings)) {
    return settings as Record<string, unknown>;
  }
  throw kimberliteError("invalid_argument", "the configuration file is a JSON object");
}

/** As strict as with what comes over the network: no name twice, no broken text. */
function parseJson(file: Buffer): unknown {
  try {
    return parseJsonBody(file);
  } catch (cause) {
    throw kimberliteError("invalid_argument", "the configuration file is not JSON", { cause });
  }
}

function toCamel(name: string): string {
  return name.toLowerCase().replaceAll(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

function assign(
  settings: Record<string, unknown>,
  path: readonly string[],
  { text, source }: { readonly text: string; readonly source: string },
): void {
  const schema = settingAt(path);
  if (schema === undefined) throw kimberliteError("invalid_argument", `there is no setting ${source}`);
  let within = settings;
  for (const name of path.slice(0, -1)) {
    const next = within[name] ?? {};
    if (typeof next !== "object") throw kimberliteError("invalid_argument", `${name} is an object`);
    within[name] = next;
    within = next as Record<string, unknown>;
  }
  within[path.at(-1) as string] = schema.type === "string" ? text : parseValue(text, source);
}

function parseValue(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw kimberliteError("invalid_argument", `the setting ${source} is a number, or JSON`);
  }
}
