/** How a command ends that failed: one line on stderr (or one JSON object), and the exit code of the error's code. */
import { CommanderError } from "commander";
import { KimberliteError } from "../errors.ts";
import { escapeLine, toJson } from "./render.ts";

const USAGE_EXIT = 2;
const BUG_EXIT = 1;

/** Says on stderr what went wrong. @returns the exit code */
export function reportFailure(error: unknown, json: boolean): number {
  if (error instanceof CommanderError) return reportUsage(error, json);
  if (error instanceof KimberliteError) {
    const { code, message, detail, retryAfterMs } = error;
    write(json ? toJson({ error: { code, message, detail, retryAfterMs } }) : errorLine(message, code));
    return error.exitCode;
  }
  // A bug: its stack is what its report needs.
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  write(
    json
      ? toJson({ error: { code: "internal", message: text } })
      : `error: internal error, please report it (internal)\n${text}`,
  );
  return BUG_EXIT;
}

function errorLine(message: string, code: string): string {
  return `error: ${escapeLine(message)} (${code})`;
}

function reportUsage(error: CommanderError, json: boolean): number {
  if (error.exitCode === 0) return 0;
  // The help was shown because no command was given.
  if (error.code === "commander.help") return USAGE_EXIT;
  const message = error.message.replace(/^error: /, "").trim();
  write(
    json ? toJson({ error: { code: "invalid_argument", message } }) : errorLine(message, "invalid_argument"),
  );
  return USAGE_EXIT;
}

function write(line: string): void {
  process.stderr.write(`${line}\n`);
}
