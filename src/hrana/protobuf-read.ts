/**
 * Hrana's Protobuf from clients: untrusted bytes to the structures of `protocol.ts`, by the schema in `HRANA_3_SPEC`.
 *
 * Kept: a message ends where its parent says or before; unknown fields are passed over; a known one that is not of its
 * type is refused, and so are groups, which the schema has not and which nest without end; what is nested and how much
 * there is, is bounded as in JSON.
 */
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { KimberliteError } from "../errors.ts";
import type { SqlValue } from "../projection/values.ts";
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

/** What is done with each field of a message; a field that is not there is passed over. */
type Fields = Readonly<Record<number, () => void>>;

export class ProtobufReader {
  readonly #budget: MessageBudget;
  readonly #reader: BinaryReader;
  /** Of the field that is read. */
  #wire: WireType = WireType.LengthDelimited;
  #requests = 0;
  /** Writers put it before what is asked. */
  #requestId = 0;

  /** For one message. */
  constructor(bytes: Uint8Array, limits: HranaLimits) {
    this.#reader = new BinaryReader(bytes);
    this.#budget = new MessageBudget(limits);
  }

  pipeline(): PipelineRequest {
    return this.#whole(() => {
      let baton: string | undefined;
      const requests: StreamRequest[] = [];
      this.#fields(this.#reader.len, {
        1: () => {
          baton = this.#text();
        },
        2: () => {
          this.#takeStep();
          requests.push(this.#streamRequest());
        },
      });
      return { baton, requests };
    });
  }

  cursor(): CursorRequest {
    return this.#whole(() => {
      let baton: string | undefined;
      let batch: HranaBatch = [];
      this.#fields(this.#reader.len, {
        1: () => {
          baton = this.#text();
        },
        2: () => {
          batch = this.#batch();
        },
      });
      return { baton, batch };
    });
  }

  message(): ClientMessage {
    try {
      return this.#message();
    } catch (error) {
      if (this.#budget.exceeded)
        return { type: "refused", requestId: this.#requestId, error: error as Error };
      throw error;
    }
  }

  #message(): ClientMessage {
    return this.#whole(() => {
      let message: ClientMessage | undefined;
      this.#fields(this.#reader.len, {
        1: () => {
          let jwt: string | undefined;
          this.#nested({
            1: () => {
              jwt = this.#text();
            },
          });
          message = { type: "hello", jwt };
        },
        2: () => {
          message = this.#request();
        },
      });
      if (message === undefined) throw invalid("the message is of no known type");
      return message;
    });
  }

  #request(): ClientMessage {
    this.#requestId = 0;
    let request: SocketRequest | undefined;
    const set = (read: () => SocketRequest) => (): void => {
      request = read();
    };
    this.#nested({
      1: () => {
        this.#requestId = this.#varint().int32();
      },
      2: set(() => ({ type: "open_stream", ...this.#ids() })),
      3: set(() => ({ type: "close_stream", ...this.#ids() })),
      4: set(() => this.#onStream((to) => ({ 2: () => to({ type: "execute", stmt: this.#stmt() }) }))),
      5: set(() => this.#onStream((to) => ({ 2: () => to({ type: "batch", batch: this.#batch() }) }))),
      6: set(() => this.#openCursor()),
      7: set(() => ({ type: "close_cursor", cursorId: this.#numbers(1)[0] as number })),
      8: set(() => {
        const [cursorId, maxCount] = this.#numbers(2) as [number, number];
        return { type: "fetch_cursor", cursorId, maxCount: maxCount >>> 0 };
      }),
      9: set(() => this.#referring("sequence")),
      10: set(() => this.#referring("describe")),
      11: set(() => ({ type: "on_connection", request: this.#storeSql() })),
      12: set(() => ({
        type: "on_connection",
        request: { type: "close_sql", sqlId: this.#numbers(1)[0] as number },
      })),
      13: set(() => ({
        type: "on_stream",
        streamId: this.#numbers(1)[0] as number,
        request: { type: "get_autocommit" },
      })),
    });
    if (request === undefined) throw invalid("request is of no known type");
    return { type: "request", requestId: this.#requestId, request };
  }

  #ids(): { streamId: number } {
    return { streamId: this.#numbers(1)[0] as number };
  }

  /** A message whose field 1 is the stream, and another the request. */
  #onStream(fields: (to: (request: StreamRequest) => void) => Fields): SocketRequest {
    let streamId = 0;
    let request: StreamRequest | undefined;
    this.#nested({
      1: () => {
        streamId = this.#varint().int32();
      },
      ...fields((given) => {
        request = given;
      }),
    });
    if (request === undefined) throw invalid("the request lacks what it is about");
    return { type: "on_stream", streamId, request };
  }

  #openCursor(): SocketRequest {
    let [streamId, cursorId] = [0, 0];
    let batch: HranaBatch = [];
    this.#nested({
      1: () => {
        streamId = this.#varint().int32();
      },
      2: () => {
        cursorId = this.#varint().int32();
      },
      3: () => {
        batch = this.#batch();
      },
    });
    return { type: "open_cursor", streamId, cursorId, batch };
  }

  #referring(type: "sequence" | "describe"): SocketRequest {
    let streamId = 0;
    const reference = this.#reference(
      { sql: 2, sqlId: 3 },
      {
        1: () => {
          streamId = this.#varint().int32();
        },
      },
    );
    return { type: "on_stream", streamId, request: { type, ...reference } };
  }

  #storeSql(): Extract<StreamRequest, { type: "store_sql" }> {
    let sqlId = 0;
    let sql = "";
    this.#nested({
      1: () => {
        sqlId = this.#varint().int32();
      },
      2: () => {
        sql = this.#text();
      },
    });
    return { type: "store_sql", sqlId, sql };
  }

  #streamRequest(): StreamRequest {
    let request: StreamRequest | undefined;
    const set = (read: () => StreamRequest) => (): void => {
      request = read();
    };
    const empty = (type: "close" | "get_autocommit") =>
      set(() => {
        this.#nested({});
        return { type };
      });
    this.#nested({
      1: empty("close"),
      2: set(() => ({ type: "execute", stmt: this.#only(() => this.#stmt()) })),
      3: set(() => ({ type: "batch", batch: this.#only(() => this.#batch()) })),
      4: set(() => ({ type: "sequence", ...this.#reference({ sql: 1, sqlId: 2 }, {}) })),
      5: set(() => ({ type: "describe", ...this.#reference({ sql: 1, sqlId: 2 }, {}) })),
      6: set(() => this.#storeSql()),
      7: set(() => ({ type: "close_sql", sqlId: this.#numbers(1)[0] as number })),
      8: empty("get_autocommit"),
    });
    if (request === undefined) throw invalid("a request is of no known type");
    return request;
  }

  #reference(at: { readonly sql: number; readonly sqlId: number }, others: Fields): SqlReference {
    let sql: string | undefined;
    let sqlId: number | undefined;
    this.#nested({
      ...others,
      [at.sql]: () => {
        sql = this.#text();
      },
      [at.sqlId]: () => {
        sqlId = this.#varint().int32();
      },
    });
    return { sql, sqlId };
  }

  #batch(): HranaBatch {
    const steps: HranaBatchStep[] = [];
    this.#nested({
      1: () => {
        this.#takeStep();
        steps.push(this.#step());
      },
    });
    return steps;
  }

  #step(): HranaBatchStep {
    let condition: BatchCond | undefined;
    let stmt: Stmt | undefined;
    this.#nested({
      1: () => {
        condition = this.#condition(1);
      },
      2: () => {
        stmt = this.#stmt();
      },
    });
    if (stmt === undefined) throw invalid("a step has no statement");
    return { condition, stmt };
  }

  #condition(depth: number): BatchCond {
    this.#budget.takeCondition(depth);
    let cond: BatchCond | undefined;
    const list = (type: "and" | "or") => (): void => {
      const conds: BatchCond[] = [];
      this.#nested({ 1: () => void conds.push(this.#condition(depth + 1)) });
      cond = { type, conds };
    };
    this.#nested({
      1: () => {
        cond = { type: "ok", step: this.#varint().uint32() };
      },
      2: () => {
        cond = { type: "error", step: this.#varint().uint32() };
      },
      3: () => {
        cond = { type: "not", cond: this.#condition(depth + 1) };
      },
      4: list("and"),
      5: list("or"),
      6: () => {
        this.#nested({});
        cond = { type: "is_autocommit" };
      },
    });
    if (cond === undefined) throw invalid("a condition is of no known type");
    return cond;
  }

  #stmt(): Stmt {
    const args: SqlValue[] = [];
    const namedArgs: NamedArgument[] = [];
    let wantRows = true;
    const take = (): void => {
      this.#budget.takeArguments(1);
      this.#budget.requireArguments(args.length + namedArgs.length + 1, "a statement");
    };
    const reference = this.#reference(
      { sql: 1, sqlId: 2 },
      {
        3: () => {
          take();
          args.push(this.#value());
        },
        4: () => {
          take();
          namedArgs.push(this.#namedArgument());
        },
        5: () => {
          wantRows = this.#varint().bool();
        },
      },
    );
    return { ...reference, args, namedArgs, wantRows };
  }

  #namedArgument(): NamedArgument {
    let name = "";
    let value: SqlValue | undefined;
    this.#nested({
      1: () => {
        name = this.#text();
      },
      2: () => {
        value = this.#value();
      },
    });
    if (value === undefined) throw invalid("a named argument has no value");
    return { name, value };
  }

  #value(): SqlValue {
    let value: SqlValue | undefined;
    this.#nested({
      1: () => {
        this.#nested({});
        value = null;
      },
      2: () => {
        value = BigInt(this.#varint().sint64());
      },
      3: () => {
        value = this.#as(WireType.Bit64).double();
      },
      4: () => {
        value = this.#text();
      },
      5: () => {
        value = this.#as(WireType.LengthDelimited).bytes();
      },
    });
    if (value === undefined) throw invalid("a value is of no known type");
    return value;
  }

  /** The last of the field 1 of a message that has no other. */
  #only<T>(read: () => T): T {
    let found: { readonly value: T } | undefined;
    this.#nested({
      1: () => {
        found = { value: read() };
      },
    });
    if (found === undefined) throw invalid("a request lacks what it is about");
    return (found as { readonly value: T }).value;
  }

  /** The numbers in the fields 1 to `count` of a message. */
  #numbers(count: number): number[] {
    const numbers = new Array<number>(count).fill(0);
    this.#nested(
      Object.fromEntries(
        numbers.map((_, index) => [
          index + 1,
          () => {
            numbers[index] = this.#varint().int32();
          },
        ]),
      ),
    );
    return numbers;
  }

  #takeStep(): void {
    this.#requests += 1;
    this.#budget.requireSteps(this.#requests);
  }

  #text(): string {
    return this.#as(WireType.LengthDelimited).string(true);
  }

  #varint(): BinaryReader {
    return this.#as(WireType.Varint);
  }

  #as(expected: WireType): BinaryReader {
    if (this.#wire !== expected) throw invalid("a field is not of its type");
    return this.#reader;
  }

  #nested(fields: Fields): void {
    const length = this.#as(WireType.LengthDelimited).uint32();
    this.#fields(this.#reader.pos + length, fields);
  }

  #fields(end: number, fields: Fields): void {
    const reader = this.#reader;
    if (end > reader.len) throw invalid("the message is cut short");
    while (reader.pos < end) {
      const [number, wire] = reader.tag();
      if (wire === WireType.StartGroup || wire === WireType.EndGroup) throw invalid("the message has groups");
      const read = fields[number];
      this.#wire = wire;
      if (read === undefined) reader.skip(wire, number);
      else read();
    }
    if (reader.pos !== end) throw invalid("a part of the message is longer than it says");
  }

  /** What the wire format's own reader finds wrong is told without its words. */
  #whole<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      if (error instanceof KimberliteError) throw error;
      throw invalid("the message is no Protobuf of this protocol");
    }
  }
}
