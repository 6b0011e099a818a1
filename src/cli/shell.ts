/**
 * `kimberlite shell`: SQL line by line, on a terminal or from a pipe.
 *
 * A statement ends with a semicolon and may have many lines; an error ends the statement, not the shell. Ctrl-C drops
 * what was typed, a second one on an empty line leaves. From a pipe nothing is prompted, and the exit code is that of
 * the first error.
 */
import { homedir } from "node:os";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { KimberliteError } from "../errors.ts";
import type { Moment } from "../pipeline/time-travel.ts";
import { SqlSplitter } from "../projection/sql-splitter.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions } from "./arguments.ts";
import { reportFailure } from "./failure.ts";
import { withPlace } from "./open-place.ts";
import { dim } from "./render.ts";
import { runShellCommand, type ShellSession } from "./shell-commands.ts";
import { loadHistory, saveHistory } from "./shell-history.ts";
import { statementJson, statementText } from "./statement.ts";

interface ShellOptions extends GlobalOptions {
  readonly tenant?: TenantId;
  readonly at?: Moment;
}

const INTERRUPTED_EXIT = 130;

export async function shell(options: ShellOptions): Promise<number> {
  return withPlace(options, async (place) => {
    // Fails here, with a clear exit code, rather than at every statement. Over a server the token was asked about already.
    const called = options.server === undefined ? ` "${(await place.describe()).name}"` : "";
    if (options.server !== undefined && options.at !== undefined) await place.run("SELECT 1", [], options.at);
    const session: ShellSession = { place, json: options.json === true, at: options.at, ended: false };
    return new Shell(session, historyPath(options)).run(`tenant ${place.tenant}${called}`);
  });
}

/** Beside the data; for servers, which have none here, in the home of the account. */
function historyPath({ server, dir }: ShellOptions): string {
  return server === undefined ? join(dir, "shell-history") : join(homedir(), ".kimberlite-shell-history");
}

class Shell {
  readonly #session: ShellSession;
  readonly #historyPath: string;
  readonly #interactive: boolean = process.stdin.isTTY === true && process.stdout.isTTY === true;
  readonly #splitter = new SqlSplitter();
  /** Statements that succeeded, for the history. */
  readonly #done: string[] = [];
  #readline: Interface | undefined;
  #running = false;
  #firstFailure = 0;
  #interrupted = false;

  constructor(session: ShellSession, historyPath: string) {
    this.#session = session;
    this.#historyPath = historyPath;
  }

  async run(subject: string): Promise<number> {
    if (this.#interactive) console.log(`${subject}; .help for help, .quit to leave`);
    const readline = this.#open();
    this.#prompt();
    for await (const line of readline) {
      await this.#take(line);
      if (this.#session.ended) break;
      this.#prompt();
    }
    readline.close();
    // After Ctrl-D the prompt still stands there.
    if (this.#interactive && !this.#session.ended) console.log();
    await this.#finish();
    if (this.#interrupted) return INTERRUPTED_EXIT;
    return this.#interactive ? 0 : this.#firstFailure;
  }

  #open(): Interface {
    const readline = createInterface({
      input: process.stdin,
      ...(this.#interactive
        ? { output: process.stdout, terminal: true, history: loadHistory(this.#historyPath) }
        : {}),
      removeHistoryDuplicates: true,
      crlfDelay: Number.POSITIVE_INFINITY,
    });
    readline.on("SIGINT", () => this.#interrupt(readline));
    this.#readline = readline;
    return readline;
  }

  #prompt(): void {
    if (!this.#interactive || this.#readline === undefined) return;
    const { place, at } = this.#session;
    const moment = at === undefined ? "" : `@${at instanceof Date ? at.toISOString() : at}`;
    const ready = `${place.tenant}${moment}> `;
    this.#readline.setPrompt(this.#splitter.idle ? ready : "... ".padStart(ready.length));
    this.#readline.prompt();
  }

  #interrupt(readline: Interface): void {
    if (this.#running) {
      this.#interruptStatement(readline);
      return;
    }
    const typed = readline.line !== "" || !this.#splitter.idle;
    this.#splitter.reset();
    process.stdout.write("^C\n");
    if (!typed && this.#interrupted) {
      this.#session.ended = true;
      readline.close();
      return;
    }
    this.#interrupted = !typed;
    if (!typed) console.log(dim("Ctrl-C again, Ctrl-D or .quit to leave"));
    // Drops what stands on the line.
    readline.write(null, { ctrl: true, name: "e" });
    readline.write(null, { ctrl: true, name: "u" });
    this.#prompt();
  }

  /** A statement runs in another thread until its time limit; to leave before is to leave as after a crash, which is safe. */
  #interruptStatement(readline: Interface): void {
    if (this.#interrupted) {
      readline.close();
      saveHistory(this.#historyPath, this.#done);
      // Not process.exit(), which waits for the statement.
      process.kill(process.pid, "SIGINT");
      return;
    }
    this.#interrupted = true;
    process.stdout.write(
      `\n${dim("the statement goes on, at most until its time limit; Ctrl-C again leaves at once")}\n`,
    );
  }

  async #take(line: string): Promise<void> {
    this.#interrupted = false;
    this.#running = true;
    try {
      if (this.#splitter.idle && line.trimStart().startsWith(".")) await this.#command(line.trim());
      else for (const statement of this.#splitter.push(`${line}\n`)) await this.#statement(statement);
    } finally {
      this.#running = false;
    }
  }

  /** What a pipe leaves without a semicolon is run; on a terminal it was given up. */
  async #finish(): Promise<void> {
    const last = this.#splitter.finish();
    if (!this.#interactive && last !== undefined && !this.#session.ended) await this.#statement(last);
    if (this.#interactive) saveHistory(this.#historyPath, this.#done);
  }

  async #command(line: string): Promise<void> {
    await this.#attempt(async () => {
      const text = await runShellCommand(this.#session, line);
      if (text !== "") console.log(text);
    });
  }

  async #statement(sql: string): Promise<void> {
    await this.#attempt(async () => {
      const result = await this.#session.place.run(sql, undefined, this.#session.at);
      this.#done.push(`${sql};`);
      console.log(this.#session.json ? statementJson(result) : statementText(result));
    });
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const exitCode = reportFailure(error, this.#session.json);
      this.#firstFailure ||= exitCode;
      // After a bug nothing is certain any more.
      if (!(error instanceof KimberliteError)) this.#session.ended = true;
    }
  }
}
