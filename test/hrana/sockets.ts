/** A WebSocket that speaks Hrana in JSON by hand, for what no client would say. */
import { WebSocket } from "ws";

export interface Said {
  readonly type: string;
  readonly request_id?: number;
  readonly error?: { readonly code: string };
  readonly response?: {
    readonly entries?: { readonly type: string; readonly error?: { readonly code: string } }[];
    readonly done?: boolean;
    readonly result?: { readonly rows?: { readonly value: string }[][] };
  };
}

export class Speaker {
  readonly socket: WebSocket;
  readonly closed: Promise<number>;
  readonly said: Said[] = [];
  #nextId = 1;
  readonly #waiting: Map<number, (said: Said) => void> = new Map();

  private constructor(socket: WebSocket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.once("close", (code) => resolve(code)));
    socket.on("error", () => undefined);
    socket.on("message", (data: Buffer) => {
      const said = JSON.parse(data.toString("utf8")) as Said;
      this.said.push(said);
      this.#waiting.get(said.request_id ?? 0)?.(said);
    });
  }

  static async open(url: string, path = ""): Promise<Speaker> {
    const socket = new WebSocket(url.replace("http", "ws") + path, ["hrana3"]);
    await new Promise((resolve, reject) => {
      socket.once("open", resolve);
      socket.once("error", reject);
    });
    return new Speaker(socket);
  }

  /** Opens a connection with a stream of number 1. */
  static async greeted(url: string, token: string, path = ""): Promise<Speaker> {
    const speaker = await Speaker.open(url, path);
    await speaker.hello(token);
    await speaker.ask({ type: "open_stream", stream_id: 1 });
    return speaker;
  }

  send(message: object): void {
    this.socket.send(JSON.stringify(message));
  }

  async hello(token: string): Promise<string> {
    const before = this.said.length;
    this.send({ type: "hello", jwt: token });
    for (;;) {
      const answer = this.said.slice(before).find(({ type }) => type.startsWith("hello"));
      if (answer !== undefined) return answer.type;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Resolves with the answer, or the connection's end. */
  ask(request: object): Promise<Said> {
    const id = this.#nextId;
    this.#nextId += 1;
    const answer = new Promise<Said>((resolve) => this.#waiting.set(id, resolve));
    this.send({ type: "request", request_id: id, request });
    return Promise.race([answer, this.closed.then((code) => ({ type: `closed ${code}` }))]);
  }

  run(sql: string): Promise<Said> {
    return this.ask({ type: "execute", stream_id: 1, stmt: { sql } });
  }
}
