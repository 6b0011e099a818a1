/** A server's settings as types; the schema that checks them is in `config.ts`, and the compiler compares the two. */
import type { NodeIssuerConfig } from "../auth/issuer.ts";
import type { PublicJwk } from "../auth/jwk.ts";
import type { JwksPolicy } from "../auth/jwks-uri.ts";
import type { TenantRole } from "../auth/principal.ts";
import type { OpenOptions } from "../open-options.ts";
import type { StatementLimits } from "../projection/connection.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import type { FolderSettings } from "./services.ts";
import type { TlsSettings } from "./tls.ts";

/** What bounds a server; the schema says what each is. */
export interface ServerLimits {
  readonly maxBodyBytes: number;
  readonly maxHeaderBytes: number;
  readonly maxUnreadBytes: number;
  readonly maxUnreadBytesPerTenant: number;
  readonly maxUnreadBytesInAll: number;
  readonly maxConnections: number;
  readonly maxConnectionsPerTenant: number;
  readonly maxRequestsPerConnection: number;
  readonly maxAdminRequestsPerTenant: number;
  readonly maxTailsPerTenant: number;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly drainTimeoutMs: number;
  readonly maxEventLoopDelayMs: number;
  readonly maxHeapBytes: number;
}

/** What the engine of a served installation is opened with. */
export interface DatabaseSettings extends StatementLimits {
  /** Most tenants open at a time; the others are cold. */
  readonly maxOpenTenants: number;
}

/** Where traces go. */
export interface TelemetrySettings {
  readonly tracesUrl?: string;
  readonly serviceName: string;
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
  /** For who opens the database: a `Server` is given one that is open. */
  readonly database: DatabaseSettings;
  /** For the process: tracing is of all servers in it. */
  readonly telemetry: TelemetrySettings;
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

/** For `Kimberlite.open`. */
export function openOptionsOf({
  database,
  jwks,
}: Pick<ServerConfig, "database" | "jwks">): Pick<OpenOptions, "limits" | "maxOpenTenants" | "jwks"> {
  const { maxOpenTenants, ...limits } = database;
  return { maxOpenTenants, limits, jwks };
}

/** What `/metrics` shows, and to whom. */
export interface MetricsSettings {
  readonly open: boolean;
  readonly tenantLabels: number;
}

/** A server's settings as they are given: what is absent has its default. */
export type ServerSettings = Partial<
  Omit<ServerConfig, "limits" | "metrics" | "jwks" | "database" | "telemetry">
> & {
  readonly limits?: Partial<ServerLimits>;
  readonly metrics?: Partial<MetricsSettings>;
  readonly jwks?: Partial<JwksPolicy>;
  readonly database?: Partial<DatabaseSettings>;
  readonly telemetry?: Partial<TelemetrySettings>;
};
