/**
 * Writes `docs/errors.md` from `ERROR_CODES`: `npm run docs:errors`.
 *
 * The page is never edited by hand; a test compares it with what this file makes of the table.
 */
import { writeFileSync } from "node:fs";
import { ERROR_CODES, type ErrorAction, type ErrorCodeRow } from "../src/errors.ts";

export const ERRORS_PAGE: URL = new URL("../docs/errors.md", import.meta.url);

const INTRODUCTION = `# Errors

Made from \`ERROR_CODES\` in \`src/errors.ts\` by \`npm run docs:errors\`.

Every error that Kimberlite raises on purpose is a \`KimberliteError\`. Its class says what to do next, its \`code\` says
why and is stable, \`detail\` holds ids, counts and sizes and never data, and \`cause\` is the error beneath it, if any.
\`httpStatus\` is the status of an HTTP response that carries it, \`exitCode\` the exit code of a command that ends with it.
`;

const SECTIONS: readonly { action: ErrorAction; title: string; text: string }[] = [
  {
    action: "reject",
    title: "RejectError",
    text: "The same request gets the same answer: do not send it again.",
  },
  {
    action: "retry",
    title: "RetryError",
    text: "Send it again, after `retryAfterMs` milliseconds if that is given.",
  },
  {
    action: "halt",
    title: "HaltError",
    text: "This tenant stops until somebody looks at it. No other tenant does.",
  },
];

/** The whole page. */
export function errorsDocument(): string {
  return [INTRODUCTION, ...SECTIONS.map(section)].join("\n");
}

function section({ action, title, text }: (typeof SECTIONS)[number]): string {
  const rows = Object.entries(ERROR_CODES).filter(([, row]) => row.action === action);
  const head = ["| code | HTTP | exit | meaning |", "|---|---|---|---|"];
  return [`## ${title}`, "", text, "", ...head, ...rows.map(([code, row]) => tableRow(code, row)), ""].join(
    "\n",
  );
}

function tableRow(code: string, { httpStatus, exitCode, meaning }: ErrorCodeRow): string {
  return `| \`${code}\` | ${httpStatus} | ${exitCode} | ${meaning.replaceAll("|", "\\|")} |`;
}

if (import.meta.main) writeFileSync(ERRORS_PAGE, errorsDocument());
