/** Hrana's Protobuf to clients, by the schema in `HRANA_3_SPEC`. Fields that hold what proto3 leaves out are left out. */
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { SqlValue } from "../projection/values.ts";
import type { HranaLimits } from "./limits.ts";
import { ProtobufReader } from "./protobuf-read.ts";
import type {
  Column,
  CursorEntry,
  DescribeResult,
  Encoding,
  HranaError,
  ServerMessage,
  SocketResponse,
  StepOutcome,
  StmtResult,
  StreamResult,
} from "./protocol.ts";

type Write = (to: BinaryWriter) => void;

export function protobufEncoding(limits: HranaLimits): Encoding {
  return {
    contentType: "application/x-protobuf",
    cursorContentType: "application/x-protobuf",
    readPipeline: (body) => new ProtobufReader(body, limits).pipeline(),
    readCursor: (body) => new ProtobufReader(body, limits).cursor(),
    readMessage: (data) => new ProtobufReader(data, limits).message(),
    writePipeline: ({ baton, results }) =>
      whole((to) => {
        optionalText(to, 1, baton);
        for (const result of results) message(to, 3, (part) => streamResult(part, result));
      }),
    writeError: (error) => whole((to) => writeError(to, error)),
    writeCursor: ({ baton }) => delimited((to) => optionalText(to, 1, baton)),
    writeEntry: (entry) => delimited((to) => cursorEntry(to, entry)),
    writeMessage: (given) => whole((to) => serverMessage(to, given)),
  };
}

function whole(write: Write): Uint8Array {
  const writer = new BinaryWriter();
  write(writer);
  return writer.finish();
}

/** Behind its length as a varint. */
function delimited(write: Write): Uint8Array {
  return new BinaryWriter().bytes(whole(write)).finish();
}

function message(to: BinaryWriter, field: number, write: Write): void {
  to.tag(field, WireType.LengthDelimited).fork();
  write(to);
  to.join();
}

const empty: Write = () => undefined;

function text(to: BinaryWriter, field: number, value: string): void {
  to.tag(field, WireType.LengthDelimited).string(value.toWellFormed());
}

function optionalText(to: BinaryWriter, field: number, value: string | null | undefined): void {
  if (value !== undefined && value !== null) text(to, field, value);
}

function number(to: BinaryWriter, field: number, value: number): void {
  if (value !== 0) to.tag(field, WireType.Varint).uint32(value);
}

function truth(to: BinaryWriter, field: number, value: boolean): void {
  if (value) to.tag(field, WireType.Varint).bool(value);
}

function writeError(to: BinaryWriter, { message: words, code }: HranaError): void {
  text(to, 1, words);
  text(to, 2, code);
}

function serverMessage(to: BinaryWriter, given: ServerMessage): void {
  switch (given.type) {
    case "hello_ok":
      return message(to, 1, empty);
    case "hello_error":
      return message(to, 2, (part) => message(part, 1, (error) => writeError(error, given.error)));
    case "response_ok":
      return message(to, 3, (part) => {
        requestId(part, given.requestId);
        message(part, SOCKET_FIELDS[given.response.type] ?? 0, (body) => response(body, given.response));
      });
    case "response_error":
      return message(to, 4, (part) => {
        requestId(part, given.requestId);
        message(part, 2, (error) => writeError(error, given.error));
      });
  }
}

function requestId(to: BinaryWriter, value: number): void {
  if (value !== 0) to.tag(1, WireType.Varint).int32(value);
}

const SOCKET_FIELDS: Readonly<Record<Exclude<SocketResponse["type"], "close">, number>> & {
  readonly close?: number;
} = {
  open_stream: 2,
  close_stream: 3,
  execute: 4,
  batch: 5,
  open_cursor: 6,
  close_cursor: 7,
  fetch_cursor: 8,
  sequence: 9,
  describe: 10,
  store_sql: 11,
  close_sql: 12,
  get_autocommit: 13,
};

const STREAM_FIELDS = {
  close: 1,
  execute: 2,
  batch: 3,
  sequence: 4,
  describe: 5,
  store_sql: 6,
  close_sql: 7,
  get_autocommit: 8,
} as const;

function streamResult(to: BinaryWriter, result: StreamResult): void {
  if (result.type === "error") return message(to, 2, (part) => writeError(part, result.error));
  const { response: given } = result;
  message(to, 1, (part) => message(part, STREAM_FIELDS[given.type], (body) => response(body, given)));
}

function response(to: BinaryWriter, given: SocketResponse): void {
  switch (given.type) {
    case "execute":
      return message(to, 1, (part) => stmtResult(part, given.result));
    case "batch":
      return message(to, 1, (part) => batchResult(part, given.outcomes));
    case "describe":
      return message(to, 1, (part) => describeResult(part, given.result));
    case "get_autocommit":
      return truth(to, 1, given.isAutocommit);
    case "fetch_cursor":
      for (const entry of given.entries) message(to, 1, (part) => cursorEntry(part, entry));
      return truth(to, 2, given.done);
  }
}

function batchResult(to: BinaryWriter, outcomes: readonly StepOutcome[]): void {
  for (const [step, outcome] of outcomes.entries()) {
    if (outcome === undefined) continue;
    message(to, "result" in outcome ? 1 : 2, (entry) => {
      number(entry, 1, step);
      message(entry, 2, (part) => {
        if ("result" in outcome) stmtResult(part, outcome.result);
        else writeError(part, outcome.error);
      });
    });
  }
}

function stmtResult(to: BinaryWriter, given: StmtResult): void {
  const { cols, rows, affectedRowCount, lastInsertRowid, replicationIndex } = given;
  for (const col of cols) message(to, 1, (part) => column(part, col));
  for (const row of rows) message(to, 2, (part) => writeRow(part, row));
  counts(to, { first: 3, affectedRowCount, lastInsertRowid });
  // A field of libSQL's server, which the schema of the specification lacks.
  if (replicationIndex !== undefined) to.tag(5, WireType.Varint).uint64(replicationIndex);
}

function counts(
  to: BinaryWriter,
  given: {
    readonly first: number;
    readonly affectedRowCount: number;
    readonly lastInsertRowid: bigint | undefined;
  },
): void {
  const { first, affectedRowCount, lastInsertRowid } = given;
  if (affectedRowCount !== 0) to.tag(first, WireType.Varint).uint64(affectedRowCount);
  if (lastInsertRowid !== undefined) to.tag(first + 1, WireType.Varint).sint64(lastInsertRowid);
}

function column(to: BinaryWriter, { name, decltype }: Column): void {
  text(to, 1, name);
  optionalText(to, 2, decltype);
}

function describeResult(to: BinaryWriter, { params, cols, isExplain, isReadonly }: DescribeResult): void {
  for (const name of params) message(to, 1, (part) => optionalText(part, 1, name));
  for (const col of cols) message(to, 2, (part) => column(part, col));
  truth(to, 3, isExplain);
  truth(to, 4, isReadonly);
}

function cursorEntry(to: BinaryWriter, entry: CursorEntry): void {
  switch (entry.type) {
    case "step_begin":
      return message(to, 1, (part) => {
        number(part, 1, entry.step);
        for (const col of entry.cols) message(part, 2, (each) => column(each, col));
      });
    case "step_end":
      return message(to, 2, (part) => counts(part, { first: 1, ...entry }));
    case "step_error":
      return message(to, 3, (part) => {
        number(part, 1, entry.step);
        message(part, 2, (error) => writeError(error, entry.error));
      });
    case "row":
      return message(to, 4, (part) => writeRow(part, entry.row));
    case "error":
      return message(to, 5, (part) => writeError(part, entry.error));
  }
}

function writeRow(to: BinaryWriter, row: readonly SqlValue[]): void {
  for (const value of row) message(to, 1, (part) => writeValue(part, value));
}

/** Of a oneof also what proto3 would leave out is written. */
function writeValue(to: BinaryWriter, value: SqlValue): void {
  switch (typeof value) {
    case "bigint":
      return void to.tag(2, WireType.Varint).sint64(value);
    case "number":
      return void to.tag(3, WireType.Bit64).double(value);
    case "string":
      return text(to, 4, value);
    default:
      if (value === null) return message(to, 1, empty);
      to.tag(5, WireType.LengthDelimited).bytes(value);
  }
}
