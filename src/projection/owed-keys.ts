/**
 * Foreign keys that a caller still owes: deferred ones that are violated.
 *
 * SQLite checks them at COMMIT, when the log has the block already: they are checked here, at the end of each caller's
 * savepoint, while it can still be undone. `PRAGMA defer_foreign_keys` would last until COMMIT, which the next caller
 * of the batch shares: it is ended with the caller.
 */
import { kimberliteError } from "../errors.ts";
import type { Connection } from "./connection.ts";

/** SQLite forgets what is owed when it compiles the pragma with OFF. */
const FORGETS_DEBTS = /\bdefer_foreign_keys\b(?!\s*[=(]\s*['"]?(?:on|yes|true|1)\b)/i;

export class OwedKeys {
  readonly #connection: Connection;
  #owing = false;
  #deferring = false;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** After every statement, also one that failed: INSERT OR FAIL keeps the rows before the one that failed. */
  note(report: { readonly deferredViolations: boolean }): void {
    this.#owing ||= report.deferredViolations;
  }

  /** The pragma may be in force from now on; it acts when it is compiled. */
  noteDeferring(): void {
    this.#deferring = true;
  }

  /** Before a statement is compiled. @throws `constraint_violation` if it would make SQLite forget what is owed */
  guard(sql: string): void {
    if (this.#owing && FORGETS_DEBTS.test(sql)) this.#requirePaid();
  }

  /** @throws `constraint_violation` if anything is owed */
  check(): void {
    if (!this.#owing) return;
    this.#requirePaid();
    this.#owing = false;
  }

  /** When a caller ends, well or not. Trusted mode. */
  end(): void {
    this.#owing = false;
    if (!this.#deferring) return;
    this.#deferring = false;
    this.#connection.db.pragma("defer_foreign_keys=OFF");
  }

  #requirePaid(): void {
    const { guard } = this.#connection;
    guard.enter("read", 0);
    if (!guard.leave().deferredViolations) return;
    throw kimberliteError("constraint_violation", "FOREIGN KEY constraint failed", {
      detail: { constraint: "foreign_key" },
    });
  }
}
