/**
 * What a server can be told, in one schema for its configuration file, the environment and flags.
 *
 * Kept: a name that the schema does not know is refused wherever it is written. Later sources win: defaults, file,
 * environment, flags.
 */
import { Type } from "typebox";
import { Compile } from "typebox/compile";
import { assert, kimberliteError } from "../errors.ts";

const Count = (given: number, about: string, minimum = 1): Type.TInteger =>
  Type.Integer({ default: given, minimum, maximum: 2 ** 40, description: about });

const Limits = Type.Object(
  {
    maxBodyBytes: Count(16 * 2 ** 20, "most bytes of a request's body, or of a message"),
    maxHeaderBytes: Count(16 * 2 ** 10, "most bytes of a request's headers"),
    maxUnreadBytes: Count(16 * 2 ** 20, "most bytes that wait for a client that does not read"),
    maxConnections: Count(10_000, "connections; more are answered 503"),
    maxConnectionsPerTenant: Count(2_000, "connections of one tenant; more are answered 429"),
    maxRequestsPerConnection: Count(
      100_000,
      "requests after which a connection is closed, to spread load anew",
    ),
    maxAdminRequestsPerTenant: Count(8, "requests to the admin API that one tenant may have under way"),
    headersTimeoutMs: Count(10_000, "how long the headers of a request may take to arrive"),
    requestTimeoutMs: Count(60_000, "how long a whole request may take to arrive"),
    idleTimeoutMs: Count(120_000, "how long a connection may be silent, also while an answer is not read"),
    keepAliveTimeoutMs: Count(65_000, "how long a connection is kept for another request"),
    drainTimeoutMs: Count(10_000, "how long requests under way may take to end when the server goes down"),
    maxEventLoopDelayMs: Count(1_000, "delay of the event loop past which requests are answered 503"),
    maxHeapBytes: Count(3 * 2 ** 30, "heap past which requests are answered 503"),
  },
  { additionalProperties: false },
);

const Schema = Type.Object(
  {
    host: Type.String({ default: "127.0.0.1", minLength: 1, maxLength: 255 }),
    port: Type.Integer({ default: 8080, minimum: 0, maximum: 65_535 }),
    limits: Limits,
  },
  { additionalProperties: false },
);

/** What bounds a server; the schema says what each is. */
export interface ServerLimits {
  readonly maxBodyBytes: number;
  readonly maxHeaderBytes: number;
  readonly maxUnreadBytes: number;
  readonly maxConnections: number;
  readonly maxConnectionsPerTenant: number;
  readonly maxRequestsPerConnection: number;
  readonly maxAdminRequestsPerTenant: number;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly drainTimeoutMs: number;
  readonly maxEventLoopDelayMs: number;
  readonly maxHeapBytes: number;
}

/** A server's settings, complete. */
export interface ServerConfig {
  readonly host: string;
  readonly port: number;
  readonly limits: ServerLimits;
}

/** A server's settings as they are given: what is absent has its default. */
export type ServerSettings = Partial<Omit<ServerConfig, "limits">> & {
  readonly limits?: Partial<ServerLimits>;
};

const checker = Compile(Schema);

/** The settings with defaults where nothing was given. @throws `invalid_argument` naming what is wrong or unknown */
export function parseServerConfig(settings: ServerSettings = {}): ServerConfig {
  const config: unknown = {
    ...defaultsOf(Schema),
    ...settings,
    limits: { ...defaultsOf(Limits), ...settings.limits },
  };
  // The compiler compares the schema with the interface here.
  if (checker.Check(config)) return config satisfies ServerConfig;
  const [wrong] = checker.Errors(config);
  assert(wrong !== undefined, "what does not match has an error");
  const where = wrong.instancePath.slice(1).replaceAll("/", ".");
  throw kimberliteError("invalid_argument", `the server's settings: ${where} ${wrong.message}`);
}

function defaultsOf(schema: Type.TObject): Record<string, unknown> {
  const entries = Object.entries(schema.properties as Record<string, { readonly default?: unknown }>);
  return Object.fromEntries(
    entries.flatMap(([name, { default: value }]) => (value === undefined ? [] : [[name, value]])),
  );
}
