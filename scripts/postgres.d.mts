/** Types of `postgres.mjs`. */
export interface PostgresCluster {
  /** Folder of the unix socket. */
  readonly host: string;
  readonly user: string;
  readonly version: string;
  readonly settings: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}
export function startPostgres(): Promise<PostgresCluster>;
