/** The commands of the shell that begin with a dot. Each gives the text that it shows. */
import { kimberliteError } from "../errors.ts";
import type { Moment } from "../pipeline/time-travel.ts";
import type { SqlParams, SqlValue } from "../projection/values.ts";
import { parseMoment } from "./arguments.ts";
import type { Place } from "./place.ts";
import { escapeText, renderTable, toJson } from "./render.ts";
import { describe } from "./tenant.ts";
import { showVerified } from "./verified.ts";

/** What a session knows; commands change it. */
export interface ShellSession {
  readonly place: Place;
  readonly json: boolean;
  at: Moment | undefined;
  ended: boolean;
}

type ShellCommand = (session: ShellSession, argument: string) => Promise<string>;

const HELP = `A statement ends with ;
.tables            tables and views
.schema [table]    the statements that made them
.streams           the tenant's streams: its tables, and its event streams
.at MOMENT         read as it was: a log offset, or a time such as 2026-05-01T12:00:00Z
.at now            read and write as it is
.verify            check the tenant's whole log, under its keys
.stats             what the tenant holds and may use
.quit              leave (also Ctrl-D)`;

const TABLES = `SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
  ORDER BY name`;
const SCHEMA = `SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND (:name IS NULL OR lower(tbl_name) = lower(:name))
  ORDER BY tbl_name, type = 'table' DESC, name`;

const COMMANDS: Readonly<Record<string, ShellCommand>> = {
  ".help": async () => HELP,
  ".tables": async (session) => renderRows(session, ["name", "type"], await select(session, TABLES)),
  ".schema": showSchema,
  ".streams": showStreams,
  ".at": changeMoment,
  ".verify": async ({ place, json }) => showVerified(await place.verify(), json),
  ".stats": showStats,
  ".quit": leave,
  ".exit": leave,
};

/** @throws `invalid_argument` for an unknown command; what the command throws */
export async function runShellCommand(session: ShellSession, line: string): Promise<string> {
  const [name = "", ...rest] = line.replace(/;\s*$/, "").split(/\s+/);
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined)
    throw kimberliteError("invalid_argument", `unknown command ${name}; .help shows what there is`);
  return command(session, rest.join(" ").trim());
}

async function select(
  session: ShellSession,
  sql: string,
  params: SqlParams = [],
): Promise<readonly (readonly SqlValue[])[]> {
  return (await session.place.run(sql, params, session.at)).rows;
}

async function showSchema(session: ShellSession, table: string): Promise<string> {
  const rows = await select(session, SCHEMA, { name: table === "" ? null : table });
  if (rows.length === 0 && table !== "")
    throw kimberliteError("invalid_argument", `there is no table ${table}`);
  const statements = rows.map(([sql]) => String(sql));
  if (session.json) return toJson(statements);
  return statements.map((sql) => `${escapeText(sql)};`).join("\n");
}

async function showStreams(session: ShellSession): Promise<string> {
  const streams = await session.place.streams();
  return renderRows(
    session,
    ["id", "kind", "name"],
    streams.map(({ id, kind, name }) => [id.local, kind, name]),
  );
}

async function changeMoment(session: ShellSession, argument: string): Promise<string> {
  if (argument === "") throw kimberliteError("invalid_argument", ".at takes an offset, a time, or now");
  const before = session.at;
  session.at = argument === "now" ? undefined : parseMoment(argument);
  if (session.at === undefined) return "";
  try {
    // A moment that the log does not have is refused now, not at the next statement.
    await select(session, "SELECT 1");
  } catch (error) {
    session.at = before;
    throw error;
  }
  return "";
}

async function showStats(session: ShellSession): Promise<string> {
  const description = await session.place.describe();
  return session.json
    ? toJson(description)
    : renderTable(["tenant", String(session.place.tenant)], describe(description));
}

async function leave(session: ShellSession): Promise<string> {
  session.ended = true;
  return "";
}

function renderRows(
  session: ShellSession,
  columns: readonly string[],
  rows: readonly (readonly SqlValue[])[],
): string {
  if (session.json)
    return toJson(
      rows.map((row) => Object.fromEntries(columns.map((column, index) => [column, row[index]]))),
    );
  return rows.length === 0 ? "none" : renderTable(columns, rows);
}
