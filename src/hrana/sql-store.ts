/** SQL texts that a client stored to refer to them by number; bounded in count and characters. */
import { kimberliteError } from "../errors.ts";
import { type HranaLimits, invalid } from "./limits.ts";
import type { SqlReference } from "./protocol.ts";

export class SqlStore {
  readonly #limits: HranaLimits;
  readonly #texts: Map<number, string> = new Map();
  #characters = 0;

  constructor(limits: HranaLimits) {
    this.#limits = limits;
  }

  has(id: number): boolean {
    return this.#texts.has(id);
  }

  /** @throws `invalid_argument` for a number that is in use; `value_too_large` when there are too many */
  store(id: number, sql: string): void {
    if (this.#texts.has(id)) throw invalid("an SQL text is stored under this number already");
    const { maxStoredTexts, maxStoredCharacters } = this.#limits;
    if (this.#texts.size >= maxStoredTexts || this.#characters + sql.length > maxStoredCharacters) {
      throw kimberliteError("value_too_large", "too many SQL texts are stored, or too long ones", {
        detail: { maxStoredTexts, maxStoredCharacters },
      });
    }
    this.#texts.set(id, sql);
    this.#characters += sql.length;
  }

  /** Nothing happens for a number that is not in use. */
  close(id: number): void {
    this.#characters -= this.#texts.get(id)?.length ?? 0;
    this.#texts.delete(id);
  }

  /** The text that is meant. @throws `invalid_argument` unless exactly one of text and known number is given */
  resolve({ sql, sqlId }: SqlReference): string {
    if (sql !== undefined && sqlId === undefined) return sql;
    if (sql !== undefined || sqlId === undefined) throw invalid("exactly one of sql and sql_id is given");
    const stored = this.#texts.get(sqlId);
    if (stored === undefined) throw invalid("no SQL text is stored under this number");
    return stored;
  }
}
