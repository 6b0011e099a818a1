/**
 * The shell's history file: what was typed, without the values in it.
 *
 * No plaintext of a tenant may lie on the disk, and statements are full of it. So literals are kept only as `?` and
 * comments not at all, and only statements that SQLite understood are kept: in others a value may stand anywhere.
 */
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";

const MAX_STATEMENTS = 500;
const MAX_LENGTH = 1_000;

const PIECES =
  /(?<skip>--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|\s+)|(?<literal>[xX]?'(?:[^']|'')*(?:'|$)|(?<![\w$])\.?\d[\w.]*(?:(?<=[eE])[+-]\d+)?)|"(?:[^"]|"")*(?:"|$)|`(?:[^`]|``)*(?:`|$)|\[[^\]]*(?:\]|$)|[\w$\u0080-\uffff]+|[\s\S]/g;

/** A statement on one line, with `?` in the place of every string, blob and number. */
export function withoutValues(sql: string): string {
  const text = sql.replace(PIECES, (piece, ...groups) => {
    const { skip, literal } = groups.at(-1) as { skip?: string; literal?: string };
    if (skip !== undefined) return " ";
    return literal === undefined ? piece : "?";
  });
  return text.replaceAll(/ +/g, " ").trim();
}

/** Statements of earlier sessions, the latest first. A file that cannot be read is as none. */
export function loadHistory(path: string): string[] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .reverse();
  } catch {
    return [];
  }
}

/** Adds statements to the file, which only its owner can read. A file that cannot be written is left as it is. */
export function saveHistory(path: string, statements: readonly string[]): void {
  const added = statements.map(withoutValues).filter((line) => line !== "" && line.length <= MAX_LENGTH);
  if (added.length === 0) return;
  const lines = [...loadHistory(path).reverse(), ...added].filter(
    (line, index, all) => line !== all[index - 1],
  );
  try {
    if (existsSync(path)) chmodSync(path, 0o600);
    writeFileSync(path, `${lines.slice(-MAX_STATEMENTS).join("\n")}\n`, { mode: 0o600 });
  } catch {
    // A read-only directory: the session was no worse for it.
  }
}
