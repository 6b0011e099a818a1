/**
 * Named instants at which a test may end the process, to see what a crash there leaves behind. In production a call
 * reads one variable.
 */

/** Instants that lie between two effects which no port shows to a test. */
export type Failpoint =
  | "replace-before-link"
  | "replace-before-rename"
  | "replace-after-rename"
  | "replace-after-overwrite"
  | "erase-after-begin"
  | "erase-after-keys"
  | "erase-after-journal"
  | "erase-after-files"
  | "subject-after-mark"
  | "subject-after-tombstone"
  | "subject-after-key"
  | "subject-after-rebuild"
  | "subject-before-swap"
  | "subject-after-certificate"
  | "reencrypt-after-log"
  | "reencrypt-before-mark"
  | "reencrypt-after-mark"
  | "reencrypt-after-move"
  | "import-after-keys"
  | "import-after-log"
  | "import-after-entry"
  | "commit-before-answer"
  | "catch-up-before-commit"
  | "catch-up-after-commit";

let onReach: ((name: Failpoint) => void) | undefined;

/** Marks an instant. */
export function failpoint(name: Failpoint): void {
  if (onReach !== undefined) onReach(name);
}

/** Has `handler` called at every failpoint from now on; undefined for none. For tests. */
export function onFailpoint(handler: ((name: Failpoint) => void) | undefined): void {
  onReach = handler;
}
