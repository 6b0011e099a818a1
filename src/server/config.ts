/**
 * What a server can be told, in one schema for its configuration file, the environment and flags.
 *
 * Kept: a name that the schema does not know is refused wherever it is written. Later sources win: defaults, file,
 * environment, flags.
 */
import { Type } from "typebox";
import { Compile } from "typebox/compile";
import type { NodeIssuerConfig } from "../auth/issuer.ts";
import type { PublicJwk } from "../auth/jwk.ts";
import type { JwksPolicy } from "../auth/jwks-uri.ts";
import type { TenantRole } from "../auth/principal.ts";
import { assert, kimberliteError } from "../errors.ts";
import { parseJsonBody } from "../hrana/json-body.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import type { FolderSettings } from "./services.ts";
import type { TlsSettings } from "./tls.ts";

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
  readonly trustedProxies: readonly string[];
  readonly tls?: TlsSettings;
  readonly folders: FolderSettings;
  readonly backupPlaces: Readonly<Record<string, { readonly logs: string; readonly keys?: string }>>;
  readonly masterKeys: Readonly<Record<string, string>>;
  readonly tenantMasterKeySchemes: readonly string[];
  readonly issuers: readonly IssuerSettings[];
  readonly jwks: JwksPolicy;
  readonly metrics: MetricsSettings;
  readonly log: "info" | "error" | "silent";
  readonly limits: ServerLimits;
}

/** An issuer of the node's own, as it is written. */
export interface IssuerSettings {
  readonly issuer: string;
  readonly audience: string;
  readonly jwksUri?: string;
  readonly keys?: readonly Readonly<Record<string, string>>[];
  readonly maxRole?: TenantRole;
  readonly defaultRole?: TenantRole;
  readonly tenants?: readonly string[];
  readonly operators?: boolean;
}

/** For `Kimberlite.authenticator`. @throws `invalid_argument` */
export function nodeIssuersOf({ issuers }: Pick<ServerConfig, "issuers">): NodeIssuerConfig[] {
  return issuers.map(({ tenants, keys, ...rest }) => ({
    ...rest,
    ...(tenants === undefined ? {} : { tenants: tenants.map((tenant) => TenantId(tenant)) }),
    ...(keys === undefined ? {} : { keys: keys as unknown as readonly PublicJwk[] }),
  }));
}

/** What `/metrics` shows, and to whom. */
export interface MetricsSettings {
  readonly open: boolean;
  readonly tenantLabels: number;
}

/** A server's settings as they are given: what is absent has its default. */
export type ServerSettings = Partial<Omit<ServerConfig, "limits" | "metrics" | "jwks">> & {
  readonly limits?: Partial<ServerLimits>;
  readonly metrics?: Partial<MetricsSettings>;
  readonly jwks?: Partial<JwksPolicy>;
};

const checker = Compile(Schema);

/** The settings with defaults where nothing was given. @throws `invalid_argument` naming what is wrong or unknown */
export function parseServerConfig(settings: ServerSettings = {}): ServerConfig {
  const config: unknown = {
    ...defaultsOf(Schema),
    ...settings,
    metrics: overlaid(Metrics, settings.metrics),
    jwks: overlaid(Jwks, settings.jwks),
    limits: overlaid(Limits, settings.limits),
  };
  // The compiler compares the schema with the interface here.
  if (checker.Check(config)) return config satisfies ServerConfig;
  const [wrong] = checker.Errors(config);
  assert(wrong !== undefined, "what does not match has an error");
  const where = wrong.instancePath.slice(1).replaceAll("/", ".");
  throw kimberliteError("invalid_argument", `the server's settings: ${where} ${wrong.message}`);
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
  const settings = parseJsonBody(file);
  if (typeof settings === "object" && settings !== null && !Array.isArray(settings)) {
    return settings as Record<string, unknown>;
  }
  throw kimberliteError("invalid_argument", "the configuration file is a JSON object");
}

function toCamel(name: string): string {
  return name.toLowerCase().replaceAll(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

function assign(
  settings: Record<string, unknown>,
  path: readonly string[],
  { text, source }: { readonly text: string; readonly source: string },
): void {
  const schema = schemaAt(path);
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

function schemaAt(path: readonly string[]): { readonly type?: string } | undefined {
  let schema: unknown = Schema;
  for (const name of path) {
    const properties = (schema as { readonly properties?: Record<string, unknown> }).properties ?? {};
    if (!Object.hasOwn(properties, name)) return undefined;
    schema = properties[name];
  }
  return schema as { readonly type?: string };
}

function parseValue(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw kimberliteError("invalid_argument", `the setting ${source} is a number, or JSON`);
  }
}
