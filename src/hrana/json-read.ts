/**
 * Hrana's JSON from clients: untrusted text to the structures of `protocol.ts`.
 *
 * Kept: fields that the protocol does not know are ignored, as it demands; everything else is checked, and what is wrong is
 * named by its place and never repeated.
 */
import type { SqlValue } from "../projection/values.ts";
import { parseJsonBody } from "./json-body.ts";
import { type HranaLimits, invalid, MessageBudget } from "./limits.ts";
import type {
  BatchCond,
  ClientMessage,
  CursorRequest,
  HranaBatch,
  HranaBatchStep,
  NamedArgument,
  PipelineRequest,
  SocketRequest,
  SqlReference,
  Stmt,
  StreamRequest,
} from "./protocol.ts";

type Json = Readonly<Record<string, unknown>>;

const MIN_INTEGER = -(2n ** 63n);
const MAX_INTEGER = 2n ** 63n - 1n;

export class JsonReader {
  readonly #budget: MessageBudget;

  /** For one message. */
  constructor(limits: HranaLimits) {
    this.#budget = new MessageBudget(limits);
  }

  pipeline(body: Uint8Array): PipelineRequest {
    const given = object(parse(body), "the body");
    const requests = list(given["requests"], "requests");
    this.#budget.requireSteps(requests.length);
    return {
      baton: optionalText(given["baton"], "baton"),
      requests: requests.map((request, index) =>
        this.#request(object(request, `requests[${index}]`), `requests[${index}]`),
      ),
    };
  }

  cursor(body: Uint8Array): CursorRequest {
    const given = object(parse(body), "the body");
    return {
      baton: optionalText(given["baton"], "baton"),
      batch: this.#batch(given["batch"], "batch"),
    };
  }

  message(data: Uint8Array): ClientMessage {
    const given = object(parse(data), "the message");
    if (given["type"] === "hello") return { type: "hello", jwt: optionalText(given["jwt"], "jwt") };
    if (given["type"] !== "request") throw invalid("the message is of no known type");
    const requestId = int32(given["request_id"], "request_id");
    try {
      return {
        type: "request",
        requestId,
        request: this.#socketRequest(object(given["request"], "request")),
      };
    } catch (error) {
      if (this.#budget.exceeded) return { type: "refused", requestId, error: error as Error };
      throw error;
    }
  }

  #socketRequest(given: Json): SocketRequest {
    const { type } = given;
    const streamId = (): number => int32(given["stream_id"], "stream_id");
    const cursorId = (): number => int32(given["cursor_id"], "cursor_id");
    switch (type) {
      case "open_stream":
      case "close_stream":
        return { type, streamId: streamId() };
      case "open_cursor":
        return {
          type,
          streamId: streamId(),
          cursorId: cursorId(),
          batch: this.#batch(given["batch"], "batch"),
        };
      case "close_cursor":
        return { type, cursorId: cursorId() };
      case "fetch_cursor":
        return { type, cursorId: cursorId(), maxCount: uint32(given["max_count"], "max_count") };
      case "close":
        throw invalid("request is of no known type");
    }
    const request = this.#request(given, "request");
    if (request.type === "store_sql" || request.type === "close_sql")
      return { type: "on_connection", request };
    return { type: "on_stream", streamId: streamId(), request };
  }

  #request(given: Json, place: string): StreamRequest {
    const { type } = given;
    switch (type) {
      case "close":
      case "get_autocommit":
        return { type };
      case "execute":
        return { type, stmt: this.#stmt(given["stmt"], `${place}.stmt`) };
      case "batch":
        return { type, batch: this.#batch(given["batch"], `${place}.batch`) };
      case "sequence":
      case "describe":
        return { type, ...reference(given, place) };
      case "store_sql":
        return {
          type,
          sqlId: int32(given["sql_id"], `${place}.sql_id`),
          sql: text(given["sql"], `${place}.sql`),
        };
      case "close_sql":
        return { type, sqlId: int32(given["sql_id"], `${place}.sql_id`) };
      default:
        throw invalid(`${place} is of no known type`);
    }
  }

  #batch(given: unknown, place: string): HranaBatch {
    const steps = list(object(given, place)["steps"], `${place}.steps`);
    this.#budget.requireSteps(steps.length);
    return steps.map((step, index): HranaBatchStep => {
      const at = `${place}.steps[${index}]`;
      const { condition, stmt } = object(step, at);
      return {
        condition: absent(condition) ? undefined : this.#condition(condition, `${at}.condition`, 1),
        stmt: this.#stmt(stmt, `${at}.stmt`),
      };
    });
  }

  #condition(given: unknown, place: string, depth: number): BatchCond {
    this.#budget.takeCondition(depth);
    const { type, step, cond, conds } = object(given, place);
    switch (type) {
      case "ok":
      case "error":
        return { type, step: uint32(step, `${place}.step`) };
      case "not":
        return { type, cond: this.#condition(cond, `${place}.cond`, depth + 1) };
      case "and":
      case "or":
        return {
          type,
          conds: list(conds, `${place}.conds`).map((each) =>
            this.#condition(each, `${place}.conds`, depth + 1),
          ),
        };
      case "is_autocommit":
        return { type };
      default:
        throw invalid(`${place} is of no known type`);
    }
  }

  #stmt(given: unknown, place: string): Stmt {
    const stmt = object(given, place);
    const args = absent(stmt["args"]) ? [] : list(stmt["args"], `${place}.args`);
    const named = absent(stmt["named_args"]) ? [] : list(stmt["named_args"], `${place}.named_args`);
    this.#budget.requireArguments(args.length + named.length, place);
    this.#budget.takeArguments(args.length + named.length);
    const wantRows = stmt["want_rows"] ?? true;
    if (typeof wantRows !== "boolean") throw invalid(`${place}.want_rows is no boolean`);
    return {
      ...reference(stmt, place),
      args: args.map((value, index) => readValue(value, `${place}.args[${index}]`)),
      namedArgs: named.map((each, index) => namedArgument(each, `${place}.named_args[${index}]`)),
      wantRows,
    };
  }
}

function parse(bytes: Uint8Array): unknown {
  return parseJsonBody(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
}

function namedArgument(given: unknown, place: string): NamedArgument {
  const { name, value } = object(given, place);
  return { name: text(name, `${place}.name`), value: readValue(value, `${place}.value`) };
}

function reference(given: Json, place: string): SqlReference {
  const sql = optionalText(given["sql"], `${place}.sql`);
  const sqlId = absent(given["sql_id"]) ? undefined : int32(given["sql_id"], `${place}.sql_id`);
  return { sql, sqlId };
}

function readValue(given: unknown, place: string): SqlValue {
  const { type, value, base64 } = object(given, place);
  switch (type) {
    case "null":
      return null;
    case "integer":
      return integer(value, place);
    case "float":
      if (typeof value !== "number") throw invalid(`${place}.value is no number`);
      return value;
    case "text":
      return text(value, `${place}.value`);
    case "blob":
      return blob(base64, place);
    default:
      throw invalid(`${place} is of no known type`);
  }
}

function integer(given: unknown, place: string): bigint {
  if (typeof given !== "string" || !/^-?\d{1,19}$/.test(given))
    throw invalid(`${place}.value is no decimal integer`);
  const value = BigInt(given);
  if (value < MIN_INTEGER || value > MAX_INTEGER) throw invalid(`${place}.value does not fit 64 bits`);
  return value;
}

function blob(given: unknown, place: string): Uint8Array {
  // With or without padding; one character over is half a byte.
  const match = typeof given === "string" ? /^([A-Za-z0-9+/]*)={0,2}$/.exec(given) : null;
  if (match === null || (match[1] as string).length % 4 === 1) throw invalid(`${place}.base64 is no base64`);
  return Buffer.from(match[1] as string, "base64");
}

function absent(value: unknown): value is undefined | null {
  return value === undefined || value === null;
}

function object(given: unknown, place: string): Json {
  if (typeof given === "object" && given !== null && !Array.isArray(given)) return given as Json;
  throw invalid(`${place} is no object`);
}

function list(given: unknown, place: string): readonly unknown[] {
  if (Array.isArray(given)) return given as readonly unknown[];
  throw invalid(`${place} is no array`);
}

function text(given: unknown, place: string): string {
  if (typeof given === "string") return given;
  throw invalid(`${place} is no string`);
}

function optionalText(given: unknown, place: string): string | undefined {
  return absent(given) ? undefined : text(given, place);
}

function int32(given: unknown, place: string): number {
  if (typeof given === "number" && Number.isInteger(given) && given >= -(2 ** 31) && given < 2 ** 31)
    return given;
  throw invalid(`${place} is no 32-bit integer`);
}

function uint32(given: unknown, place: string): number {
  if (typeof given === "number" && Number.isInteger(given) && given >= 0 && given < 2 ** 32) return given;
  throw invalid(`${place} is no unsigned 32-bit integer`);
}
