/** Hrana's JSON, the encoding that every version has. */
import { JsonReader } from "./json-read.ts";
import { jsonCursor, jsonEntry, jsonError, jsonMessage, jsonPipeline } from "./json-write.ts";
import type { HranaLimits } from "./limits.ts";
import type { Encoding } from "./protocol.ts";

export function jsonEncoding(limits: HranaLimits): Encoding {
  return {
    contentType: "application/json",
    cursorContentType: "application/x-ndjson",
    readPipeline: (body) => new JsonReader(limits).pipeline(body),
    readCursor: (body) => new JsonReader(limits).cursor(body),
    readMessage: (data) => new JsonReader(limits).message(data),
    writePipeline: jsonPipeline,
    writeError: jsonError,
    writeCursor: jsonCursor,
    writeEntry: jsonEntry,
    writeMessage: jsonMessage,
  };
}
