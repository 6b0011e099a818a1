/** What is measured: one database under the five operations, addressed by tenant and key. */

/** One database with its rows in place, ready to be measured. */
export interface Subject {
  readonly name: string;
  /** True when a call returns only at the end of the operation, so that callers cannot overlap. */
  readonly blocking: boolean;
  /** Inserts the row `id` durably. */
  insert(tenant: number, id: number): unknown;
  /** Reads the row `id`. */
  point(tenant: number, id: number): unknown;
  /** Reads 100 rows from `from` on. */
  range(tenant: number, from: number): unknown;
  /** Updates one column of the row `id` durably. */
  update(tenant: number, id: number, turn: number): unknown;
  close(): Promise<void>;
}
