/**
 * The admin API from TypeScript: every operation of the table by its name, with the types of what it takes and gives.
 *
 * Runs wherever there is `fetch`. Errors are those of the library, with the same codes. What may be tried again is, a
 * bounded number of times, and each POST carries an idempotency key, so that nothing is done twice by it.
 */
import {
  ERROR_CODES,
  type ErrorCode,
  type ErrorDetail,
  type KimberliteError,
  kimberliteError,
} from "../errors.ts";
import { type Calls, type Lasting, ROUTES, type Route, type Streams } from "./calls.ts";
import { eventsOf, linesOf } from "./streamed.ts";

export interface ClientOptions {
  /** Such as `https://db.example.com`. */
  readonly url: string;
  /** An API key or a JWT, or what gives one for each request. */
  readonly token: string | (() => string | Promise<string>);
  /** How often a request is tried again after a refusal that allows it; 4 unless given. */
  readonly maxRetries?: number;
  /** The `fetch` of the platform unless given. */
  readonly fetch?: typeof fetch;
}

/** How one call is made. */
export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Of the caller's own, to be kept over restarts of the caller; a random one unless given. */
  readonly idempotencyKey?: string;
}

/** A job, as the server tells of it. */
export type ReportedJob = Calls["jobs.describe"]["answer"];

/** How work that takes long is waited for. */
export interface RunOptions extends CallOptions {
  readonly onProgress?: (progress: NonNullable<ReportedJob["progress"]>) => void;
  /** How often it is looked at in the end; every second unless given. */
  readonly lookEveryMs?: number;
}

/** What an operation is given: parameters of the path, of the query, and the body. */
export interface CallInput {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
}

const DEFAULT_RETRIES = 4;
const FIRST_PAUSE_MS = 100;
const FIRST_LOOK_MS = 25;
const LONGEST_PAUSE_MS = 10_000;

export class KimberliteClient {
  readonly #options: ClientOptions;

  constructor(options: ClientOptions) {
    this.#options = { ...options, url: options.url.replace(/\/+$/, "") };
  }

  /**
   * Calls an operation by its name in the table, such as `tenants.create`.
   *
   * @throws a `KimberliteError` with the code of the refusal; `aborted`
   */
  async call<Id extends keyof Calls>(
    id: Id,
    input: Calls[Id]["input"],
    options: CallOptions = {},
  ): Promise<Calls[Id]["answer"]> {
    const response = await this.#send(ROUTES[id], input as CallInput, options);
    return (await response.json()) as Calls[Id]["answer"];
  }

  /**
   * As `call`, of work that takes long: it is begun, and looked at until it has ended. A connection that breaks ends nothing;
   * nor does `signal`, which ends the waiting.
   *
   * @throws as `call`; `job_not_found` if the server was restarted meanwhile: ask again, and it goes on
   */
  async run<Id extends Lasting>(
    id: Id,
    input: Calls[Id]["input"],
    options: RunOptions = {},
  ): Promise<Calls[Id]["answer"]> {
    const { onProgress, lookEveryMs = 1_000, ...rest } = options;
    const response = await this.#send(ROUTES[id], input as CallInput, {
      ...rest,
      headers: { prefer: "respond-async" },
    });
    const place = response.headers.get("location");
    if (response.status !== 202 || place === null) return (await response.json()) as Calls[Id]["answer"];
    let job = (await response.json()) as ReportedJob;
    for (let pauseMs = FIRST_LOOK_MS; job.state === "running"; pauseMs *= 2) {
      if (job.progress !== undefined) onProgress?.(job.progress);
      await pause(Math.min(pauseMs, lookEveryMs), rest.signal);
      job = (await (await this.#send(["GET", place], {}, rest)).json()) as ReportedJob;
    }
    if (job.problem !== undefined) throw toKnownError(job.problem as Problem, "internal");
    return job.answer as Calls[Id]["answer"];
  }

  /** All items of a list, page after page. */
  async *items<Id extends ListId>(
    id: Id,
    input: Calls[Id]["input"],
    options: CallOptions = {},
  ): AsyncGenerator<ItemOf<Id>, void> {
    let { query } = input as CallInput;
    for (;;) {
      const page = (await this.call(id, { ...input, query } as Calls[Id]["input"], options)) as {
        readonly items: readonly ItemOf<Id>[];
        readonly next?: string;
      };
      yield* page.items;
      if (page.next === undefined) return;
      query = { ...query, cursor: page.next };
    }
  }

  /**
   * What an operation sends as it goes: OCSF events, or audit events as they come. A live one goes on after an
   * interruption where it was, until `signal` ends it.
   *
   * @throws as `call`
   */
  async *stream<Id extends keyof Streams>(
    id: Id,
    input: Streams[Id]["input"],
    options: Pick<CallOptions, "signal"> = {},
  ): AsyncGenerator<Readonly<Record<string, unknown>>, void> {
    let after: string | undefined;
    while (options.signal?.aborted !== true) {
      const headers = after === undefined ? {} : { "last-event-id": after };
      const response = await this.#send(ROUTES[id], input as CallInput, { ...options, headers });
      if (response.body === null) return;
      if (response.headers.get("content-type") !== "text/event-stream") return yield* linesOf(response.body);
      for await (const event of eventsOf(response.body)) {
        after = event.id;
        yield event.data;
      }
    }
  }

  async #send(
    route: Route,
    input: CallInput,
    options: CallOptions & { readonly headers?: Readonly<Record<string, string>> },
  ): Promise<Response> {
    const [method, path] = route;
    const key = options.idempotencyKey ?? crypto.randomUUID();
    const init: RequestInit = {
      method,
      headers: options.headers ?? {},
      ...(input.body === undefined ? {} : { body: JSON.stringify(input.body) }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    };
    for (let attempt = 0; ; attempt += 1) {
      const refusal = await this.#once(`${this.#options.url}${addressOf(path, input)}`, init, key).catch(
        toUnreachable,
      );
      if (refusal instanceof Response) return refusal;
      const last = attempt >= (this.#options.maxRetries ?? DEFAULT_RETRIES);
      if (last || !mayRetry(refusal)) throw refusal;
      await pause(pauseMs(refusal, attempt), options.signal);
    }
  }

  /** @returns the answer, or the refusal */
  async #once(url: string, init: RequestInit, key: string): Promise<Response | KimberliteError> {
    const { token, fetch: send = fetch } = this.#options;
    const bearer = typeof token === "string" ? token : await token();
    const response = await send(url, {
      ...init,
      headers: {
        ...(init.headers as Record<string, string>),
        authorization: `Bearer ${bearer}`,
        ...(init.body === undefined ? {} : { "content-type": "application/json" }),
        ...(init.method === "POST" ? { "idempotency-key": key } : {}),
      },
    });
    return response.ok ? response : toError(response);
  }
}

/** Operations that answer with a list. */
export type ListId = {
  [Id in keyof Calls]: Calls[Id]["answer"] extends { readonly items: readonly unknown[] } ? Id : never;
}[keyof Calls];

type ItemOf<Id extends ListId> = Calls[Id]["answer"] extends { readonly items: readonly (infer Item)[] }
  ? Item
  : never;

function addressOf(path: string, { params = {}, query = {} }: CallInput): string {
  const filled = path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ""));
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) pairs.set(name, String(value));
  return pairs.size === 0 ? filled : `${filled}?${pairs.toString()}`;
}

/** The problem as the error that it was at the server; what is no problem came from something between. */
async function toError(response: Response): Promise<KimberliteError> {
  const problem = (await response.json().catch(() => ({}))) as Problem;
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
  const retryAfterMs = problem.retryAfterMs ?? (Number.isFinite(seconds) ? seconds * 1_000 : undefined);
  const detail = problem.detail ?? `the server answered ${response.status}`;
  const whole = { ...problem, detail, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
  return toKnownError(whole, codeOf(response.status));
}

interface Problem {
  readonly code?: string;
  readonly detail?: string;
  readonly retryAfterMs?: number;
  readonly data?: ErrorDetail;
}

function toKnownError(
  { code = "", detail = "", data, retryAfterMs }: Problem,
  other: ErrorCode,
): KimberliteError {
  return kimberliteError(Object.hasOwn(ERROR_CODES, code) ? (code as ErrorCode) : other, detail, {
    ...(data === undefined ? {} : { detail: data }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

function codeOf(status: number): ErrorCode {
  if (status === 401) return "unauthenticated";
  if (status === 403) return "not_authorized";
  if (status === 404) return "route_not_found";
  return status === 502 || status === 503 || status === 504 || status === 429 ? "overloaded" : "internal";
}

function toUnreachable(cause: unknown): KimberliteError {
  const name = cause instanceof Error ? cause.name : "";
  if (name === "AbortError" || name === "TimeoutError") {
    return kimberliteError("aborted", "the call was ended by its caller", { cause });
  }
  return kimberliteError("overloaded", "the server cannot be reached", { cause });
}

/** A place among concurrent requests may be free soon, though the same request is refused now. */
function mayRetry(error: KimberliteError): boolean {
  return error.action === "retry" || (error.code === "quota_exceeded" && error.retryAfterMs !== undefined);
}

function pauseMs(error: KimberliteError, attempt: number): number {
  const backOff = FIRST_PAUSE_MS * 2 ** attempt;
  return Math.min(Math.max(error.retryAfterMs ?? 0, backOff), LONGEST_PAUSE_MS);
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => {
      clearTimeout(timer);
      reject(kimberliteError("aborted", "the call was ended by its caller"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, ms);
    if (signal?.aborted === true) return aborted();
    signal?.addEventListener("abort", aborted, { once: true });
  });
}
