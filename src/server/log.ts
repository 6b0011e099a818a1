/**
 * The log of the server: JSON Lines on standard error, so that standard output stays what a script waits for.
 *
 * Fields are chosen where they are logged; the list here is the second net, should a header or a body ever be given.
 */
import { destination, type Logger, pino } from "pino";

export type LogLevel = "silent" | "error" | "info";

const SECRET = [
  "authorization",
  "cookie",
  "token",
  "secret",
  "password",
  "key",
  "sql",
  "params",
  "args",
  "rows",
  "row",
];
const CONTAINERS = ["", "headers", "req.headers", "request.headers", "body", "req.body"];
const REDACTED: readonly string[] = CONTAINERS.flatMap((container) =>
  SECRET.map((name) => (container === "" ? name : `${container}.${name}`)),
);

/** Lines are written together, at most a tenth of a second late; those that nobody takes are dropped. */
const BUFFERED = { minLength: 8 * 1024, periodicFlush: 100, maxLength: 16 * 1024 * 1024 };

/** Anything with a `write`: standard error unless given. */
export function createLog(level: LogLevel, stream?: { write(line: string): void }): Logger {
  const options = {
    level,
    base: null,
    redact: { paths: [...REDACTED], remove: true },
    formatters: { level: (label: string) => ({ level: label }) },
    timestamp: pino.stdTimeFunctions.isoTime,
  };
  return pino(options, stream ?? destination({ ...BUFFERED, dest: 2, sync: false }));
}
