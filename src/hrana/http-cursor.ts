/** A cursor over HTTP: the results of a batch, in pieces that are made as they are taken. */
import { Readable } from "node:stream";
import { toHranaError } from "./hrana-error.ts";
import type { HttpStream, HttpStreams } from "./http-streams.ts";
import type { Encoding, HranaBatch } from "./protocol.ts";
import type { NoteFailure } from "./sql-stream.ts";

export interface HttpCursor {
  readonly stream: HttpStream;
  readonly batch: HranaBatch;
  readonly encoding: Encoding;
  readonly streams: HttpStreams;
  /** Asked before each piece. @throws `unauthenticated` */
  recheck(): void;
  readonly note: NoteFailure;
}

const PIECE_BYTES = 64 * 1024;

/** The next piece is made when the one before was taken. It does not begin, nor end, for a client that is gone by then. */
export function cursorBody(cursor: HttpCursor): Readable {
  return Readable.from(cursorPieces(cursor));
}

async function* cursorPieces(cursor: HttpCursor): AsyncGenerator<Buffer, void> {
  const { stream, encoding, streams } = cursor;
  const { secret, batonOf } = streams.newBaton();
  let next: Buffer | undefined;
  let pieces = [bytes(encoding.writeCursor({ baton: batonOf(stream) }))];
  let size = 0;
  let sent = false;
  try {
    for await (const entry of stream.stream.entries(cursor.batch, cursor.note)) {
      const piece = bytes(encoding.writeEntry(entry));
      pieces.push(piece);
      size += piece.length;
      if (size < PIECE_BYTES) continue;
      cursor.recheck();
      sent = true;
      yield Buffer.concat(pieces);
      pieces = [];
      size = 0;
    }
    cursor.recheck();
    // The client may use the baton once it has the last piece.
    next = secret;
    await streams.giveBack(stream, next);
    yield Buffer.concat(pieces);
  } catch (error) {
    // Before the first piece there is still a status that says so.
    if (!sent) throw error;
    cursor.note(error);
    yield bytes(encoding.writeEntry({ type: "error", error: toHranaError(error) }));
  } finally {
    if (next === undefined) await streams.giveBack(stream, undefined);
  }
}

function bytes(given: string | Uint8Array): Buffer {
  return typeof given === "string"
    ? Buffer.from(given)
    : Buffer.from(given.buffer, given.byteOffset, given.byteLength);
}
