/** A cursor over HTTP: the results of a batch, in pieces that are made as they are taken. */
import type { HttpStream, HttpStreams } from "./http-streams.ts";
import type { Encoding, HranaBatch } from "./protocol.ts";

export interface HttpCursor {
  readonly stream: HttpStream;
  readonly batch: HranaBatch;
  readonly encoding: Encoding;
  readonly streams: HttpStreams;
  /** Asked before each piece. @throws `unauthenticated` */
  recheck(): void;
}

const PIECE_BYTES = 64 * 1024;

/** The next piece is made when the one before was taken; a client that goes away ends the stream. */
export async function* cursorPieces(cursor: HttpCursor): AsyncGenerator<Buffer, void> {
  const { stream, encoding, streams } = cursor;
  const { secret, batonOf } = streams.newBaton();
  let next: Buffer | undefined;
  try {
    let pieces = [bytes(encoding.writeCursor({ baton: batonOf(stream) }))];
    let size = 0;
    for await (const entry of stream.stream.entries(cursor.batch)) {
      const piece = bytes(encoding.writeEntry(entry));
      pieces.push(piece);
      size += piece.length;
      if (size < PIECE_BYTES) continue;
      yield Buffer.concat(pieces);
      cursor.recheck();
      pieces = [];
      size = 0;
    }
    // The client may use the baton once it has the last piece.
    next = secret;
    await streams.giveBack(stream, next);
    yield Buffer.concat(pieces);
  } finally {
    if (next === undefined) await streams.giveBack(stream, undefined);
  }
}

function bytes(given: string | Uint8Array): Buffer {
  return typeof given === "string"
    ? Buffer.from(given)
    : Buffer.from(given.buffer, given.byteOffset, given.byteLength);
}
