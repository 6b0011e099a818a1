/**
 * The savepoints that a tenant makes within one job, by its own names; case does not matter.
 *
 * As in SQLite the innermost of a name is meant, and those inside it go with it. Inside SQLite they have names of ours, so
 * that none of theirs can meet one of the pipeline's.
 */
import { kimberliteError } from "../errors.ts";

/** What there was when a savepoint was made. */
export interface SavedPlace {
  readonly changes: number;
  readonly schemaGeneration: number;
}

interface Savepoint extends SavedPlace {
  readonly name: string;
}

const MAX_SAVEPOINTS = 64;

export class Savepoints {
  readonly #open: Savepoint[] = [];

  /** @returns what SQLite is told */
  save(name: string, place: SavedPlace): string {
    if (this.#open.length >= MAX_SAVEPOINTS) throw invalid(`more than ${MAX_SAVEPOINTS} savepoints`);
    this.#open.push({ name: name.toLowerCase(), ...place });
    return `SAVEPOINT ${ownName(this.#open.length - 1)}`;
  }

  /** @throws `invalid_sql` if there is none of that name */
  release(name: string): string {
    const at = this.#find(name);
    this.#open.length = at;
    return `RELEASE ${ownName(at)}`;
  }

  /** @throws `invalid_sql` if there is none of that name */
  goBack(name: string): { readonly sql: string; readonly place: SavedPlace } {
    const at = this.#find(name);
    this.#open.length = at + 1;
    return { sql: `ROLLBACK TO ${ownName(at)}`, place: this.#open[at] as Savepoint };
  }

  /** When the job ends. */
  clear(): void {
    this.#open.length = 0;
  }

  #find(name: string): number {
    const at = this.#open.findLastIndex((open) => open.name === name.toLowerCase());
    if (at < 0) throw invalid(`no such savepoint: ${name}`);
    return at;
  }
}

function ownName(index: number): string {
  return `kimberlite_session_${index}`;
}

function invalid(message: string): Error {
  return kimberliteError("invalid_sql", message, { detail: { sqlite: "SQLITE_ERROR" } });
}
