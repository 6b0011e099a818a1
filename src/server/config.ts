/**
 * What a server can be told, as one schema for its configuration file, the environment and flags.
 *
 * Kept: a name that the schema does not know is refused wherever it is written.
 */
import { isIP, isIPv6 } from "node:net";
import { Type } from "typebox";
import { Compile } from "typebox/compile";
import { assert, kimberliteError } from "../errors.ts";
import { DEFAULT_MAX_OPEN_TENANTS } from "../open-options.ts";
import { DEFAULT_LIMITS } from "../projection/connection.ts";
import type { ServerConfig, ServerSettings } from "./settings.ts";

const Count = (given: number, about: string, minimum = 1): Type.TInteger =>
  Type.Integer({ default: given, minimum, maximum: 2 ** 40, description: about });

/** No more than a timer takes: past that it would be over at once. */
const Milliseconds = (given: number, about: string): Type.TInteger =>
  Type.Integer({ default: given, minimum: 1, maximum: 2 ** 31 - 1, description: about });

/** As the engine bounds it. */
const Limit = (given: number, about: string): Type.TInteger =>
  Type.Integer({ default: given, minimum: 1, maximum: 2 ** 31 - 1, description: about });

const Limits = Type.Object(
  {
    maxBodyBytes: Count(16 * 2 ** 20, "most bytes of a request's body, or of a message"),
    maxHeaderBytes: Count(16 * 2 ** 10, "most bytes of a request's headers"),
    maxUnreadBytes: Count(16 * 2 ** 20, "most bytes that wait for a client that does not read"),
    maxUnreadBytesPerTenant: Count(
      256 * 2 ** 20,
      "most bytes that wait on all connections of one tenant; past that those that read least are closed",
    ),
    maxUnreadBytesInAll: Count(2 ** 30, "most bytes that wait on all connections together"),
    maxConnections: Count(10_000, "connections; more are answered 503"),
    maxConnectionsPerTenant: Count(2_000, "connections of one tenant; more are answered 429"),
    maxRequestsPerConnection: Count(
      100_000,
      "requests after which a connection is closed, to spread load anew",
    ),
    maxAdminRequestsPerTenant: Count(8, "requests to the admin API that one tenant may have under way"),
    maxTailsPerTenant: Count(64, "streams and audit streams that one tenant may follow at once"),
    headersTimeoutMs: Milliseconds(10_000, "how long the headers of a request may take to arrive"),
    requestTimeoutMs: Milliseconds(60_000, "how long a whole request may take to arrive"),
    idleTimeoutMs: Milliseconds(
      120_000,
      "how long a connection may be silent, also while an answer is not read",
    ),
    keepAliveTimeoutMs: Milliseconds(65_000, "how long a connection is kept for another request"),
    drainTimeoutMs: Milliseconds(
      10_000,
      "how long requests under way may take to end when the server goes down",
    ),
    maxEventLoopDelayMs: Milliseconds(1_000, "delay of the event loop past which requests are answered 503"),
    maxHeapBytes: Count(3 * 2 ** 30, "heap past which requests are answered 503"),
  },
  { additionalProperties: false },
);

const Metrics = Type.Object(
  {
    open: Type.Boolean({ default: false, description: "numbers of the node to anyone, none of tenants" }),
    tenantLabels: Type.Integer({
      default: 100,
      minimum: 0,
      maximum: 10_000,
      description: "tenants that have numbers of their own, for operators; the rest together",
    }),
  },
  { additionalProperties: false },
);

/** What the engine is opened with; the library's defaults are the server's. */
const Database = Type.Object(
  {
    maxOpenTenants: Limit(DEFAULT_MAX_OPEN_TENANTS, "tenants open at a time; the others are cold"),
    timeLimitMs: Limit(DEFAULT_LIMITS.timeLimitMs, "how long one statement may run"),
    maxResultRows: Limit(DEFAULT_LIMITS.maxResultRows, "rows that one statement may give"),
    maxResultBytes: Limit(DEFAULT_LIMITS.maxResultBytes, "bytes that one statement may give"),
    maxValueBytes: Limit(DEFAULT_LIMITS.maxValueBytes, "bytes of one value or row"),
    maxSqlBytes: Limit(DEFAULT_LIMITS.maxSqlBytes, "bytes of the text of one statement"),
    maxTransactionBytes: Limit(DEFAULT_LIMITS.maxTransactionBytes, "bytes of one transaction's changes"),
    maxMemoryBytes: Type.Integer({
      default: DEFAULT_LIMITS.maxMemoryBytes,
      minimum: 1,
      maximum: Number.MAX_SAFE_INTEGER,
      description: "memory of native code past which the statement that has run longest is stopped",
    }),
  },
  { additionalProperties: false },
);

const Flag = (about: string): Type.TBoolean => Type.Boolean({ default: false, description: about });

const Jwks = Type.Object(
  {
    allowPrivateAddresses: Flag("issuers' keys may be in a private network"),
    allowLoopback: Flag("issuers' keys may be on this machine, also without TLS"),
  },
  { additionalProperties: false },
);

const Role = Type.Union([Type.Literal("reader"), Type.Literal("writer"), Type.Literal("admin")]);

/** As `NodeIssuerConfig`, which is parsed once more where it is used. */
const Issuer = Type.Object(
  {
    issuer: Type.String(),
    audience: Type.String(),
    jwksUri: Type.Optional(Type.String()),
    keys: Type.Optional(Type.Array(Type.Record(Type.String(), Type.String()))),
    maxRole: Type.Optional(Role),
    defaultRole: Type.Optional(Role),
    tenants: Type.Optional(Type.Array(Type.String({ pattern: "^[1-9][0-9]{0,18}$" }))),
    operators: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);

const Telemetry = Type.Object(
  {
    tracesUrl: Type.Optional(
      Type.String({ minLength: 1, description: "where a collector takes OTLP traces over HTTP" }),
    ),
    serviceName: Type.String({ default: "kimberlite", minLength: 1, maxLength: 255 }),
  },
  { additionalProperties: false },
);

const Path = (about: string): Type.TString => Type.String({ minLength: 1, description: about });

const Schema = Type.Object(
  {
    host: Type.String({ default: "127.0.0.1", minLength: 1, maxLength: 255 }),
    port: Type.Integer({ default: 8080, minimum: 0, maximum: 65_535 }),
    trustedProxies: Type.Array(Type.String(), {
      default: [],
      description: "addresses whose X-Forwarded-For is believed",
    }),
    tls: Type.Optional(
      Type.Object(
        {
          certFile: Path("PEM: the certificate, and what leads to its authority"),
          keyFile: Path("PEM: its private key"),
          clientCaFile: Type.Optional(
            Path("PEM: authorities of clients' certificates, which are then required"),
          ),
        },
        { additionalProperties: false },
      ),
    ),
    folders: Type.Object(
      {
        exports: Type.Optional(Path("where tenants' exports go, in clear text")),
        imports: Type.Optional(Path("where exports to bring in lie")),
      },
      { additionalProperties: false, default: {} },
    ),
    backupPlaces: Type.Record(
      Type.String(),
      Type.Object(
        { logs: Path("file:PATH or s3://BUCKET/PREFIX"), keys: Type.Optional(Path("another place")) },
        { additionalProperties: false },
      ),
      { default: {}, description: "by the names that the admin API has for them" },
    ),
    masterKeys: Type.Record(Type.String(), Type.String(), {
      default: {},
      description: "URIs of master keys that the node may move to, by name",
    }),
    tenantMasterKeySchemes: Type.Array(Type.String({ pattern: "^[a-z][a-z0-9+.-]*$" }), {
      default: ["awskms"],
      description: "schemes of master keys that tenants may name as their own",
    }),
    issuers: Type.Array(Issuer, {
      default: [],
      description: "issuers of the node's own, whose tokens may name any tenant",
    }),
    jwks: Jwks,
    metrics: Metrics,
    log: Type.Union([Type.Literal("info"), Type.Literal("error"), Type.Literal("silent")], {
      default: "info",
      description: "what is logged of requests, on standard error",
    }),
    limits: Limits,
    database: Database,
    telemetry: Telemetry,
  },
  { additionalProperties: false },
);

const checker = Compile(Schema);

/** The settings with defaults where nothing was given. @throws `invalid_argument` naming what is wrong or unknown */
export function parseServerConfig(settings: ServerSettings = {}): ServerConfig {
  const config: unknown = {
    ...defaultsOf(Schema),
    ...settings,
    metrics: overlaid(Metrics, settings.metrics),
    jwks: overlaid(Jwks, settings.jwks),
    limits: overlaid(Limits, settings.limits),
    database: overlaid(Database, settings.database),
    telemetry: overlaid(Telemetry, settings.telemetry),
  };
  // The compiler compares the schema with the interface here.
  if (checker.Check(config)) {
    requireConsistent(config);
    return config satisfies ServerConfig;
  }
  const [wrong] = checker.Errors(config);
  assert(wrong !== undefined, "what does not match has an error");
  const where = wrong.instancePath.slice(1).replaceAll("/", ".");
  if (wrong.keyword === "boolean") throw wrongSetting(`there is none of the name ${where}`);
  throw wrongSetting(`${where} ${wrong.message}`);
}

const NAMED_NETWORKS: ReadonlySet<string> = new Set(["loopback", "linklocal", "uniquelocal"]);

/** What no schema says. @throws `invalid_argument` */
function requireConsistent({ limits, trustedProxies }: ServerConfig): void {
  if (limits.headersTimeoutMs > limits.requestTimeoutMs) {
    throw wrongSetting("limits.headersTimeoutMs must be at most limits.requestTimeoutMs");
  }
  for (const proxy of trustedProxies) {
    const [address = "", bits, ...rest] = proxy.split("/");
    const most = isIPv6(address) ? 128 : 32;
    const inRange = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= most);
    if (NAMED_NETWORKS.has(proxy) || (isIP(address) !== 0 && inRange && rest.length === 0)) continue;
    throw wrongSetting("trustedProxies must be addresses, or networks such as 10.0.0.0/8");
  }
}

function wrongSetting(what: string): Error {
  return kimberliteError("invalid_argument", `the server's settings: ${what}`);
}

/** What is no object stays what it is, for the schema to refuse. */
function overlaid(schema: Type.TObject, given: unknown = {}): unknown {
  if (typeof given !== "object" || given === null || Array.isArray(given)) return given;
  return { ...defaultsOf(schema), ...given };
}

function defaultsOf(schema: Type.TObject): Record<string, unknown> {
  const entries = Object.entries(schema.properties as Record<string, { readonly default?: unknown }>);
  return Object.fromEntries(
    entries.flatMap(([name, { default: value }]) => (value === undefined ? [] : [[name, value]])),
  );
}

/** What a setting is, by the names that lead to it; undefined if there is none. */
export function settingAt(path: readonly string[]): { readonly type?: string } | undefined {
  let schema: unknown = Schema;
  for (const name of path) {
    const properties = (schema as { readonly properties?: Record<string, unknown> }).properties ?? {};
    if (!Object.hasOwn(properties, name)) return undefined;
    schema = properties[name];
  }
  return schema as { readonly type?: string };
}
