/**
 * `kimberlite sql`: a statement, several, or a file of them, each on its own or all as one transaction.
 *
 * A file is read in pieces: memory holds one statement of it, or with --transaction all. The first statement that fails
 * ends the run; what stood before it is done, and was shown.
 */
import { createReadStream } from "node:fs";
import { KimberliteError, kimberliteError } from "../errors.ts";
import type { Moment } from "../pipeline/time-travel.ts";
import { SqlSplitter, splitSql } from "../projection/sql-splitter.ts";
import type { SqlParams } from "../projection/values.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions } from "./arguments.ts";
import { withPlace } from "./open-place.ts";
import type { Place } from "./place.ts";
import { statementJson, statementText } from "./statement.ts";

interface SqlOptions extends GlobalOptions {
  readonly tenant?: TenantId;
  readonly at?: Moment;
  readonly file?: string;
  readonly transaction?: boolean;
  readonly params?: SqlParams;
}

export async function sql(text: string | undefined, options: SqlOptions): Promise<undefined> {
  const statements = source(text, options);
  await withPlace(options, async (place) => {
    const show = options.json === true ? statementJson : statementText;
    if (options.transaction === true) await runAsOne(place, statements, show);
    else await runEach(place, statements, { show, params: options.params, at: options.at });
  });
}

type Statements = AsyncIterable<string> | Iterable<string>;
type Show = typeof statementJson;

function source(text: string | undefined, options: SqlOptions): Statements {
  if ((text === undefined) === (options.file === undefined)) {
    throw kimberliteError("invalid_argument", "give either SQL or --file");
  }
  if (options.transaction === true && options.at !== undefined) {
    throw kimberliteError("invalid_argument", "--at only reads; it does not go with --transaction");
  }
  if (
    options.params !== undefined &&
    (text === undefined || splitSql(text).length !== 1 || options.transaction === true)
  ) {
    throw kimberliteError("invalid_argument", "--params goes with one statement");
  }
  if (text === undefined) return fileStatements(options.file as string);
  const statements = splitSql(text);
  if (statements.length === 0) throw kimberliteError("invalid_sql", "the SQL text is empty");
  return statements;
}

async function* fileStatements(path: string): AsyncGenerator<string, void> {
  const splitter = new SqlSplitter();
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const decode = (piece?: Uint8Array): string => {
    try {
      return piece === undefined ? decoder.decode() : decoder.decode(piece, { stream: true });
    } catch (cause) {
      throw kimberliteError("invalid_sql", `${path} is not UTF-8`, { cause });
    }
  };
  for await (const piece of readPieces(path)) yield* splitter.push(decode(piece));
  yield* splitter.push(decode());
  const last = splitter.finish();
  if (last !== undefined) yield last;
}

async function* readPieces(path: string): AsyncGenerator<Uint8Array, void> {
  const stream = path === "-" ? process.stdin : createReadStream(path);
  try {
    for await (const piece of stream) yield piece as Uint8Array;
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code;
    if (errno === undefined) throw cause;
    throw kimberliteError("invalid_argument", `${path} cannot be read (${errno})`, { cause });
  }
}

async function runEach(
  place: Place,
  statements: Statements,
  options: {
    readonly show: Show;
    readonly params: SqlParams | undefined;
    readonly at: Moment | undefined;
  },
): Promise<void> {
  let number = 0;
  for await (const statement of statements) {
    number += 1;
    try {
      console.log(options.show(await place.run(statement, options.params, options.at)));
    } catch (error) {
      throw number === 1 ? error : namingStatement(error, number);
    }
  }
}

async function runAsOne(place: Place, statements: Statements, show: Show): Promise<void> {
  const list: string[] = [];
  for await (const statement of statements) list.push(statement);
  if (list.length === 0) throw kimberliteError("invalid_sql", "there are no statements");
  for (const result of await place.runAsOne(list)) console.log(show(result));
}

function namingStatement(error: unknown, number: number): unknown {
  if (!(error instanceof KimberliteError)) return error;
  const { code, message, detail, cause, retryAfterMs } = error;
  return kimberliteError(code, `statement ${number}: ${message}`, {
    detail: { ...detail, statement: number },
    cause,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}
