/** What comes piece by piece: JSON Lines, and server-sent events (WHATWG HTML §9.2) as the admin API writes them. */

/** One object a line. */
export async function* linesOf(
  body: ReadableStream<Uint8Array>,
): AsyncGenerator<Readonly<Record<string, unknown>>, void> {
  for await (const line of splitAt(body, "\n")) {
    if (line !== "") yield JSON.parse(line) as Readonly<Record<string, unknown>>;
  }
}

export interface ReceivedEvent {
  readonly id: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Events, until the connection ends; that it broke is its end too. */
export async function* eventsOf(body: ReadableStream<Uint8Array>): AsyncGenerator<ReceivedEvent, void> {
  try {
    for await (const event of splitAt(body, "\n\n")) {
      const fields = new Map(event.split("\n").map((line) => split(line)));
      const [id, data] = [fields.get("id"), fields.get("data")];
      if (id === undefined || data === undefined) continue;
      yield { id, data: JSON.parse(data) as ReceivedEvent["data"] };
    }
  } catch (error) {
    if (error instanceof SyntaxError) throw error;
  }
}

function split(line: string): readonly [string, string] {
  const at = line.indexOf(": ");
  return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 2)];
}

async function* splitAt(body: ReadableStream<Uint8Array>, end: string): AsyncGenerator<string, void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of body) {
    rest += decoder.decode(piece, { stream: true });
    for (let at = rest.indexOf(end); at >= 0; at = rest.indexOf(end)) {
      yield rest.slice(0, at);
      rest = rest.slice(at + end.length);
    }
  }
  if (rest !== "") yield rest;
}
