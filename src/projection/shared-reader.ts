/**
 * Reads of a shared table: the reader's SQL runs in an empty SQLite database in memory, whose only table is read, row by
 * row, through a query of ours on the owner's connection (`native/shared.c`).
 *
 * Kept: the reader's SQL is never compiled on a connection to the owner's file, so no name in it can mean anything there;
 * what was granted is compared with the table as it is in the very snapshot that is read. Survives: SQL of any kind, a
 * table that was dropped, renamed, made anew or altered after the grant.
 */
import Database from "better-sqlite3-multiple-ciphers";
import { kimberliteError } from "../errors.ts";
import { Bookkeeping } from "./bookkeeping.ts";
import type { Connection, StatementLimits } from "./connection.ts";
import { type GuardReport, installGuard } from "./guard.ts";
import type { SharedStep } from "./lane-protocol.ts";
import { ProjectionReader } from "./reader.ts";
import { hideSchemaTable } from "./schema-table.ts";
import { readShape } from "./shared-shape.ts";
import { type SharedView, sameShape, sharedOffer } from "./shared-table.ts";
import { isExplain } from "./sql-text.ts";
import type { SqliteDatabase, SqliteStatement } from "./sqlite.ts";
import { wasStopped } from "./sqlite-error.ts";
import type { StatementDescription } from "./statement-cache.ts";
import { quoteName } from "./tables.ts";
import type { StatementRequest, StatementResult } from "./writer.ts";

export class SharedReader {
  readonly view: SharedView;
  readonly #owner: Connection;
  readonly #limits: StatementLimits;
  readonly #bookkeeping: Bookkeeping;
  readonly #begin: SqliteStatement;
  readonly #commit: SqliteStatement;
  #reader: ProjectionReader | undefined;

  /** @param owner a reading connection to the owner's projection, which the reader closes. */
  constructor(owner: Connection, limits: StatementLimits, view: SharedView) {
    this.view = view;
    this.#owner = owner;
    this.#limits = limits;
    this.#bookkeeping = new Bookkeeping(owner.db);
    this.#begin = owner.db.prepare("BEGIN");
    this.#commit = owner.db.prepare("COMMIT");
  }

  /**
   * Runs or describes a statement of the reader.
   *
   * @throws `grant_ended` if the table is not what was granted; as `ProjectionReader.queryBounded`
   */
  answer(step: SharedStep): StatementResult | StatementDescription {
    refuseExplain(step.kind === "run" ? step.request.sql : step.sql);
    this.#begin.run();
    try {
      this.#requireGranted();
      this.#reader ??= this.#makeReader();
      return step.kind === "run" ? this.#run(this.#reader, step.request) : this.#reader.describe(step.sql);
    } finally {
      this.#commit.run();
    }
  }

  close(): void {
    // First: it reads through the owner's connection.
    this.#reader?.close();
    this.#owner.db.close();
  }

  #run(reader: ProjectionReader, request: StatementRequest): StatementResult {
    const { guard } = this.#owner;
    guard.enter("read", request.timeLimitMs ?? this.#limits.timeLimitMs);
    let report: GuardReport | undefined;
    try {
      return reader.queryBounded(request);
    } catch (error) {
      report = guard.leave();
      // Either connection may be the one that the deadline stopped.
      throw wasStopped(report) ?? error;
    } finally {
      if (report === undefined) guard.leave();
    }
  }

  #makeReader(): ProjectionReader {
    const connection = openEmpty(this.#limits);
    try {
      this.#owner.guard.offer(sharedOffer(this.view));
      connection.db.exec(`CREATE VIRTUAL TABLE ${quoteName(this.view.table)} USING kimberlite_shared`);
      connection.db.pragma("query_only=ON");
      return new ProjectionReader(connection, this.#limits);
    } catch (error) {
      connection.db.close();
      throw error;
    }
  }

  #requireGranted(): void {
    const { stream, table, shape } = this.view;
    const row = this.#bookkeeping.stream(stream);
    const present =
      row === undefined || row.dropped || row.name !== table ? undefined : readShape(this.#owner, row);
    if (present !== undefined && sameShape(shape, present)) return;
    throw kimberliteError("grant_ended", "the shared table was changed by its owner, which ended the grant");
  }
}

/** A guarded database in memory. */
function openEmpty(limits: StatementLimits): Connection {
  const db = new Database(":memory:") as unknown as SqliteDatabase;
  try {
    db.pragma("temp_store=MEMORY");
    const { maxValueBytes, maxSqlBytes } = limits;
    const guard = installGuard(db, { maxValueBytes, maxSqlBytes });
    return { db, guard, schemaView: hideSchemaTable(guard), inline: false };
  } catch (error) {
    db.close();
    throw error;
  }
}

/** The plan of a query names addresses in memory, and how the owner's table is read. EXPLAIN can only come first. */
function refuseExplain(sql: unknown): void {
  if (typeof sql !== "string" || !isExplain(sql)) return;
  throw kimberliteError("unsupported_sql", "EXPLAIN is not available on what is shared");
}
