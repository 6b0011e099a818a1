/** Types of `postgres.mjs`. */
export interface PostgresCluster {
  /** Folder of the unix socket. */
  readonly host: string;
  /** Of 127.0.0.1, if it listens there. */
  readonly port: number | undefined;
  readonly user: string;
  readonly version: string;
  readonly settings: Readonly<Record<string, string>>;
  stop(): Promise<void>;
}
export function startPostgres(options?: { readonly tcp?: boolean }): Promise<PostgresCluster>;
