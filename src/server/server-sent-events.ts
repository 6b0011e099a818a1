/**
 * Server-sent events (WHATWG HTML §9.2): what comes is sent as it comes, until the server goes down or nobody reads.
 *
 * Kept: who follows is asked for its credential anew at each event, and twice a second when there is none.
 */
import type { Call } from "./operation.ts";

export const LOOK_EVERY_MS = 500;
/** A comment, so that nothing between takes the connection for dead. */
export const HEARTBEAT_EVERY_LOOKS = 30;
export const HEARTBEAT = ": still here\n\n";
/** How soon a client that lost the connection comes again. */
export const RETRY = "retry: 1000\n\n";

/** The first offset after the event that the client had last (`Last-Event-ID`); undefined for one that begins. */
export function resumedOffset(call: Call): bigint | undefined {
  const resumed = call.header("last-event-id") ?? "";
  return /^\d{1,19}$/.test(resumed) ? BigInt(resumed) + 1n : undefined;
}

/**
 * Events as they come. `open` begins what they come of, and is given the signal that will end it.
 *
 * @throws what `open` and what it opened throw, and `unauthenticated` for a credential that stands no more
 */
export async function* follow<T>(
  call: Call,
  open: (signal: AbortSignal) => AsyncGenerator<T, void>,
  toEvent: (item: T) => string,
): AsyncGenerator<string, void> {
  const over = new AbortController();
  const signal = AbortSignal.any([call.draining, call.gone, over.signal]);
  const items = open(signal);
  try {
    yield RETRY;
    let next = items.next();
    for (let looks = 1; ; ) {
      const came = await within(next, LOOK_EVERY_MS);
      call.recheck();
      if (came === undefined) {
        if (looks++ % HEARTBEAT_EVERY_LOOKS === 0) yield HEARTBEAT;
        continue;
      }
      if (came.done === true) return;
      yield toEvent(came.value);
      next = items.next();
    }
  } finally {
    over.abort();
    await items.return();
  }
}

/** What comes within the time, else undefined; what comes later is still there to be awaited. */
function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve(undefined), ms);
    const settle = (): void => clearTimeout(timer);
    promise.then(resolve, reject).finally(settle);
  });
}
