/**
 * The records of an export, in order, for importing them. Checks what it needs and no more: `verifyExport` has said
 * before that the export is whole, and the tree over what was imported says afterwards that it was the same.
 */
import { join } from "node:path";
import { kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import type { ExportManifest } from "./export-verifier.ts";

const CHUNK_BYTES = 1024 * 1024;
const TAIL = /,"salt":"([A-Za-z0-9+/]{22}==)","record":"([A-Za-z0-9+/]*={0,2})"\}$/;

export interface ExportedRecord {
  readonly record: Buffer;
  readonly salt: Buffer;
}

/** Memory: one chunk, and the longest line. @throws `export_invalid`, `disk_failed` */
export function* readExportedRecords(
  disk: Disk,
  dir: string,
  manifest: ExportManifest,
): Generator<ExportedRecord, void> {
  for (const { name } of manifest.events) {
    let line = 0;
    for (const text of lines(disk, join(dir, name))) {
      line += 1;
      const [, salt, record] = TAIL.exec(text.slice(text.lastIndexOf(',"salt":"'))) ?? [];
      if (salt === undefined || record === undefined) {
        const why = text.includes('"trimmed":true')
          ? "its records were trimmed, and a tenant is imported with all of them"
          : "it is no line of an export";
        throw kimberliteError("export_invalid", `${name}:${line}: ${why}`, {
          detail: { file: name, line },
        });
      }
      yield { record: Buffer.from(record, "base64"), salt: Buffer.from(salt, "base64") };
    }
  }
}

function* lines(disk: Disk, path: string): Generator<string, void> {
  const file = disk.open(path, "read");
  try {
    let rest: Buffer = Buffer.alloc(0);
    for (let position = 0; ; ) {
      const chunk = file.read(position, CHUNK_BYTES);
      if (chunk.length === 0) return;
      position += chunk.length;
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      let start = 0;
      for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
        yield bytes.toString("utf8", start, end);
        start = end + 1;
      }
      rest = bytes.subarray(start);
    }
  } finally {
    file.close();
  }
}
