/**
 * The subjects in records that arrive: each must have a key that arrives too, or be erased. Otherwise rows would be missing
 * that nobody erased.
 */
import { kimberliteError } from "../errors.ts";
import { type CopiedSubjects, erasedSlots, subjectsIn } from "../keys/subject-keys.ts";
import { isAboutSubjects, type LogRecord } from "../log/record.ts";

export class SubjectsSeen {
  readonly #sealed: Set<string> = new Set();
  readonly #erased: Set<string> = new Set();
  /** True once a record is about subjects: then the tenant has a subject root. */
  any = false;

  note({ changes }: LogRecord): void {
    for (const change of changes) {
      this.any ||= isAboutSubjects(change);
      if (change.kind === "sealed-row") this.#sealed.add(nameOf(change.subject));
      else if (change.kind === "erase-subject") this.#erased.add(nameOf(change.subject));
    }
  }

  /** The keys that arrive, with a note of every subject that was erased. @throws `keys_missing` */
  resolve(given: CopiedSubjects | undefined): Partial<CopiedSubjects> {
    const slots = given?.slots ?? Buffer.alloc(0);
    const present = subjectsIn(slots);
    const absent = [...this.#sealed].filter((name) => !present.has(name));
    const missing = absent.filter((name) => !this.#erased.has(name)).length;
    if (missing > 0) {
      throw kimberliteError("keys_missing", "rows are sealed under keys of subjects that were not given", {
        detail: { subjects: missing },
      });
    }
    return { ...given, slots: Buffer.concat([slots, erasedSlots(absent)]) };
  }
}

function nameOf(subject: Uint8Array): string {
  return Buffer.from(subject).toString("hex");
}
