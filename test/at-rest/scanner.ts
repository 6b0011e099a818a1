/**
 * Looks for secrets in bytes: every file below some folders, and every file that a process has open, also those that
 * were deleted. A secret is looked for in each form in which it could have been written.
 */
import * as fs from "node:fs";
import { filesBelow } from "../isolation/scratch.ts";

/** Something that must not be on the disk: a text that was planted, or the bytes of a key. */
export interface Secret {
  readonly name: string;
  readonly bytes: Buffer;
}

export interface Finding {
  readonly path: string;
  readonly secret: string;
  readonly form: string;
}

interface Needle {
  readonly secret: string;
  readonly form: string;
  readonly bytes: Buffer;
}

const HALF_BYTES = 12;

export function textSecret(text: string): Secret {
  return { name: text, bytes: Buffer.from(text) };
}

/** What is looked for, by the first three bytes of each form: one pass over a file finds them all. */
export class Needles {
  /** Whether a form begins with two bytes: small enough to stay in the processor's cache while a file goes by. */
  readonly #begins: Uint8Array = new Uint8Array(2 ** 16);
  readonly #byPrefix: Map<number, Needle[]> = new Map();

  constructor(secrets: readonly Secret[]) {
    for (const needle of formsOf(secrets)) {
      const prefix = prefixAt(needle.bytes, 0);
      this.#begins[prefix & 0xff_ff] = 1;
      this.#byPrefix.set(prefix, [...(this.#byPrefix.get(prefix) ?? []), needle]);
    }
  }

  findIn(bytes: Buffer, path: string): Finding[] {
    const found = new Map<Needle, Finding>();
    const begins = this.#begins;
    const last = bytes.length - 3;
    for (let at = 0, two = (bytes[0] ?? 0) << 8; at <= last; at += 1) {
      two = (two >> 8) | ((bytes[at + 1] as number) << 8);
      if (begins[two] === 0) continue;
      for (const needle of this.#byPrefix.get(prefixAt(bytes, at)) ?? []) {
        if (!bytes.subarray(at, at + needle.bytes.length).equals(needle.bytes)) continue;
        found.set(needle, { path, secret: needle.secret, form: needle.form });
      }
    }
    return [...found.values()];
  }
}

function prefixAt(bytes: Buffer, at: number): number {
  return (bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16);
}

/** Every form of the secrets. Base64 is looked for at each of the three places where a secret can begin in it. */
function formsOf(secrets: readonly Secret[]): Needle[] {
  return secrets.flatMap(({ name, bytes }) => {
    const utf16 = Buffer.from(bytes.toString("latin1"), "utf16le");
    const forms: [string, Buffer][] = [
      ["as it is", bytes.subarray(0, Math.max(HALF_BYTES, bytes.length >> 1))],
      ["reversed", Buffer.from(bytes.subarray(0, HALF_BYTES)).reverse()],
      ["its second half", bytes.subarray(-HALF_BYTES)],
      ["UTF-16LE", utf16.subarray(0, HALF_BYTES * 2)],
      [
        "UTF-16BE",
        Buffer.from(utf16)
          .swap16()
          .subarray(0, HALF_BYTES * 2),
      ],
      ["hex", Buffer.from(bytes.toString("hex").slice(0, HALF_BYTES * 2))],
      [
        "HEX",
        Buffer.from(
          bytes
            .toString("hex")
            .toUpperCase()
            .slice(0, HALF_BYTES * 2),
        ),
      ],
      ...[0, 1, 2].map((shift): [string, Buffer] => [`base64 at ${shift}`, base64At(bytes, shift)]),
    ];
    return forms.map(([form, needle]) => ({ secret: name, form, bytes: needle }));
  });
}

/** The characters of base64 that depend on the secret alone when `shift` bytes stand before it. */
function base64At(bytes: Buffer, shift: number): Buffer {
  const text = Buffer.concat([Buffer.alloc(shift), bytes.subarray(0, HALF_BYTES)]).toString("base64");
  const from = shift === 0 ? 0 : shift + 1;
  const until = Math.floor(((shift + HALF_BYTES) * 8) / 6);
  return Buffer.from(text.slice(from, until));
}

/** Findings in the contents and in the names of all files below the folders. */
export function scanFolders(folders: readonly string[], needles: Needles): Finding[] {
  return folders
    .flatMap(filesBelow)
    .flatMap((path) => [
      ...needles.findIn(readIfThere(path), path),
      ...needles.findIn(Buffer.from(path), `the name of ${path}`),
    ]);
}

/** Findings in every regular file that a process has open, by its descriptors: deleted ones too. Linux only. */
export function scanOpenFiles(
  pid: number | "self",
  needles: Needles,
): { readonly findings: Finding[]; readonly paths: string[] } {
  const paths: string[] = [];
  const findings: Finding[] = [];
  for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
    const link = `/proc/${pid}/fd/${fd}`;
    const target = linkOf(link);
    if (target === undefined || !target.startsWith("/") || !isRegular(link)) continue;
    paths.push(target);
    findings.push(...needles.findIn(readIfThere(link), target));
  }
  return { findings, paths };
}

function linkOf(link: string): string | undefined {
  try {
    return fs.readlinkSync(link);
  } catch {
    // A descriptor that was closed between listing and looking.
    return undefined;
  }
}

function isRegular(path: string): boolean {
  try {
    return fs.statSync(path).isFile();
  } catch {
    return false;
  }
}

function readIfThere(path: string): Buffer {
  try {
    return fs.readFileSync(path);
  } catch {
    return Buffer.alloc(0);
  }
}
