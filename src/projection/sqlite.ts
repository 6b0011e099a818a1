/**
 * What we use of the SQLite binding (better-sqlite3-multiple-ciphers), in types of our own: the package does not offer
 * its types to importers, and those of our package must not need them.
 */

export interface SqliteStatement {
  /** True if it gives rows. */
  readonly reader: boolean;
  /** True if it changes nothing (`sqlite3_stmt_readonly`). */
  readonly readonly: boolean;
  run(...params: unknown[]): { readonly changes: number; readonly lastInsertRowid: number | bigint };
  get(...params: unknown[]): unknown;
  all(...params: unknown[]): unknown[];
  iterate(...params: unknown[]): IterableIterator<unknown>;
  /** From now on rows are their first column, arrays, or have their integers as bigints. */
  pluck(on?: boolean): this;
  raw(on?: boolean): this;
  safeIntegers(on?: boolean): this;
  bind(...params: unknown[]): this;
  columns(): readonly { readonly name: string; readonly type: string | null }[];
}

export interface SqliteDatabase {
  readonly open: boolean;
  readonly inTransaction: boolean;
  prepare(sql: string): SqliteStatement;
  exec(sql: string): unknown;
  pragma(source: string, options?: { readonly simple?: boolean }): unknown;
  function(
    name: string,
    options: {
      readonly safeIntegers?: boolean;
      readonly deterministic?: boolean;
      readonly varargs?: boolean;
    },
    implementation: (...args: unknown[]) => unknown,
  ): unknown;
  loadExtension(path: string): unknown;
  close(): unknown;
}
