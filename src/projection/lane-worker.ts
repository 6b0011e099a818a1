/**
 * The thread behind a lane: runs one call at a time on connections of its own.
 *
 * It keeps the connections of the last projection that it served, so that the next call for it is quick; "forget"
 * closes them, and is awaited before a projection's file goes or its key is zeroed.
 */
import { parentPort } from "node:worker_threads";
import { assert, kimberliteError } from "../errors.ts";
import { encodeChanges } from "../log/record.ts";
import type { ProjectionMeta } from "./bookkeeping.ts";
import { type Connection, checkpointFile, openConnection, type StatementLimits } from "./connection.ts";
import {
  type LaneCall,
  type LaneMessage,
  type LaneReply,
  type LaneTarget,
  type LaneValue,
  type SessionStep,
  type StepOutcome,
  type StepValue,
  toLaneError,
} from "./lane-protocol.ts";
import type { PagedRead } from "./paged-read.ts";
import { ProjectionReader } from "./reader.ts";
import { REPLAY_CACHE_KIB, type ReplayEnd, Replayer } from "./replay.ts";
import { type ReplayPortion, recordsOf } from "./replay-portion.ts";
import { SharedReader } from "./shared-reader.ts";
import type { SharedView } from "./shared-table.ts";
import {
  ProjectionWriter,
  type StatementRequest,
  type StatementResult,
  type WriteSession,
} from "./writer.ts";

interface Serving {
  readonly path: string;
  reader: ProjectionReader | undefined;
  writer: ProjectionWriter | undefined;
  replayer: { readonly replayer: Replayer; readonly limits: StatementLimits } | undefined;
  shared: { readonly key: string; readonly reader: SharedReader } | undefined;
}

let serving: Serving | undefined;
let session: WriteSession | undefined;
/** The reader whose snapshot is held. */
let reading: ProjectionReader | undefined;
/** What is read in pages of it. */
let pages: PagedRead | undefined;

function serve(target: LaneTarget): Serving {
  if (serving?.path !== target.path) {
    forget();
    serving = {
      path: target.path,
      reader: undefined,
      writer: undefined,
      replayer: undefined,
      shared: undefined,
    };
  }
  return serving as Serving;
}

function forget(): void {
  session = undefined;
  endRead();
  serving?.reader?.close();
  serving?.shared?.reader.close();
  if (serving?.writer?.inTransaction === true) serving.writer.rollback();
  serving?.writer?.close();
  dropReplay();
  serving = undefined;
}

function readerOf(target: LaneTarget): ProjectionReader {
  const served = serve(target);
  served.reader ??= new ProjectionReader(connect(target, "read"), target.limits);
  return served.reader;
}

function sharedReaderOf(target: LaneTarget, view: SharedView): SharedReader {
  const served = serve(target);
  const key = JSON.stringify(view);
  if (served.shared?.key !== key) {
    served.shared?.reader.close();
    served.shared = undefined;
    served.shared = { key, reader: new SharedReader(connect(target, "read"), target.limits, view) };
  }
  return served.shared.reader;
}

function writerOf(target: LaneTarget): ProjectionWriter {
  const served = serve(target);
  served.writer ??= new ProjectionWriter(connect(target, "write"), target.limits);
  return served.writer;
}

function connect(target: LaneTarget, role: "read" | "write", cacheKib?: number): Connection {
  return openConnection({
    ...target,
    key: keyOf(target),
    role,
    ...(cacheKib === undefined ? {} : { cacheKib }),
  });
}

function keyOf(target: LaneTarget): Buffer {
  return Buffer.from(target.key.buffer, target.key.byteOffset, target.key.byteLength);
}

function currentWriter(): ProjectionWriter {
  assert(serving?.writer !== undefined, "a lane's transaction was begun");
  return serving.writer;
}

function answer(call: LaneCall): LaneValue {
  switch (call.kind) {
    case "query":
      return readerOf(call.target).queryBounded(call.request);
    case "shared":
      return sharedReaderOf(call.target, call.view).answer(call.step);
    case "begin":
      return begin(call.target, call.foreignKeys);
    case "run":
      return run(call.requests);
    case "erase-subject":
      return eraseSubject(call);
    case "step":
      return step(call.step);
    case "begin-read":
      reading = readerOf(call.target);
      reading.beginSnapshot();
      return undefined;
    case "end-read":
      endRead();
      return undefined;
    case "finish":
      return finish();
    case "commit":
      return commit(call);
    case "rollback":
      session = undefined;
      currentWriter().rollback();
      currentWriter().setForeignKeys(true);
      return undefined;
    case "checkpoint":
      checkpointFile({ ...call.target, key: keyOf(call.target) });
      return undefined;
    case "replay-begin":
      return beginReplay(call.target);
    case "replay":
      return replay(call.portions);
    case "replay-commit":
      return commitReplay(call.end);
    case "replay-drop":
      return dropReplay();
    case "forget":
      if (serving?.path === call.path) forget();
      return undefined;
  }
}

function beginReplay(target: LaneTarget): ProjectionMeta {
  dropReplay();
  const served = serve(target);
  const connection = connect(target, "write", REPLAY_CACHE_KIB);
  try {
    const replayer = new Replayer(connection);
    replayer.begin();
    served.replayer = { replayer, limits: target.limits };
    return replayer.meta;
  } catch (error) {
    connection.db.close();
    throw error;
  }
}

function currentReplay(): NonNullable<Serving["replayer"]> {
  assert(serving?.replayer !== undefined, "a lane's replay was begun");
  return serving.replayer;
}

function replay(portions: readonly ReplayPortion[]): number {
  const { replayer } = currentReplay();
  for (const portion of portions) {
    for (const record of recordsOf(portion)) replayer.apply(record);
    // Nothing of it stays in memory that the thread gives itself again.
    if (portion.kind === "bytes") for (const bytes of portion.records) bytes.fill(0);
  }
  return replayer.changes;
}

/** An index that cannot be made within a statement's time limit stays as it is. */
function commitReplay(asked: ReplayEnd): undefined {
  const { replayer, limits } = currentReplay();
  const end = { ...asked, head: { ...asked.head, hash: Buffer.from(asked.head.hash) } };
  const indexes = replayer.commit(end);
  const untilMs = performance.now() + limits.timeLimitMs;
  for (const name of indexes) {
    const leftMs = Math.floor(untilMs - performance.now());
    if (leftMs > 0) replayer.within(leftMs, () => replayer.makeIndex(name));
  }
  if (indexes.length > 0) replayer.settle(end);
  dropReplay();
}

function dropReplay(): undefined {
  serving?.replayer?.replayer.close();
  if (serving !== undefined) serving.replayer = undefined;
}

function begin(target: LaneTarget, foreignKeys: boolean): undefined {
  const writer = writerOf(target);
  writer.begin();
  try {
    writer.refresh();
    writer.setForeignKeys(foreignKeys);
    session = writer.beginJob();
  } catch (error) {
    writer.rollback();
    throw error;
  }
}

function endRead(): void {
  closePages();
  reading?.endSnapshot();
  reading = undefined;
}

/** A step of the snapshot that is read, or of the transaction that is open. */
function step(asked: SessionStep): StepOutcome {
  try {
    const value = reading === undefined ? stepOf(asked) : readStep(reading, asked);
    return { open: reading !== undefined || currentWriter().inTransaction, value };
  } catch (error) {
    return { open: reading !== undefined || currentWriter().inTransaction, error: toLaneError(error) };
  }
}

function closePages(): undefined {
  pages?.close();
  pages = undefined;
}

function readStep(reader: ProjectionReader, asked: SessionStep): StepValue {
  if (asked.kind === "next-page") {
    assert(pages !== undefined, "pages were opened");
    return pages.next(asked.maxBytes, asked.mostMs);
  }
  closePages();
  if (asked.kind === "close-pages") return undefined;
  if (asked.kind === "open-pages") {
    const opened = reader.openPages(asked.request);
    ({ pages } = opened);
    return opened.head;
  }
  if (asked.kind === "run") return reader.queryBounded(asked.request);
  if (asked.kind === "describe") return reader.describe(asked.sql);
  throw kimberliteError("read_only", "a transaction that only reads has no savepoints");
}

function stepOf(asked: SessionStep): StepValue {
  const open = session;
  assert(open !== undefined, "a lane's transaction was begun");
  switch (asked.kind) {
    case "run":
      return open.run(asked.request);
    case "describe":
      return open.describe(asked.sql);
    case "open-pages":
    case "next-page":
    case "close-pages":
      throw kimberliteError("internal", "a transaction that writes is not read in pages");
    default:
      currentWriter().savepoint(asked.kind, asked.name);
      return undefined;
  }
}

function run(requests: readonly StatementRequest[]): StatementResult[] {
  const open = session;
  assert(open !== undefined, "a lane's transaction was begun");
  return requests.map((request) => open.run(request));
}

function eraseSubject({ erased, logOffset }: Extract<LaneCall, { kind: "erase-subject" }>): undefined {
  const open = session;
  assert(open !== undefined, "a lane's transaction was begun");
  const noted = { ...erased, certificate: null };
  open.eraseSubject(noted);
  open.bookkeeping.putErasedSubject(noted, logOffset);
}

function finish(): LaneValue {
  session = undefined;
  const writer = currentWriter();
  const outcome = writer.finishJob(() => undefined);
  if (!outcome.ok) throw outcome.error;
  const { changes } = outcome;
  return {
    changes: changes.length === 0 ? undefined : encodeChanges(changes),
    pageCount: writer.pageCount(),
  };
}

function commit(call: Extract<LaneCall, { kind: "commit" }>): undefined {
  const writer = currentWriter();
  const hash = Buffer.from(call.meta.hash);
  writer.bookkeeping.writeMeta({ ...call.meta, hash, nextStream: writer.nextStream });
  writer.commit();
  writer.setForeignKeys(true);
}

parentPort?.on("message", ({ id, call }: LaneMessage) => {
  let reply: LaneReply;
  try {
    reply = { id, value: answer(call) };
  } catch (error) {
    reply = { id, error: toLaneError(error) };
  }
  if ("target" in call) call.target.key.fill(0);
  parentPort?.postMessage(reply);
});
