import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type Checkpoint,
  formatCheckpoint,
  openCheckpoint,
  parseCheckpoint,
  signCheckpoint,
} from "./checkpoint.ts";
import { EMPTY_ROOT } from "./merkle.ts";
import { importPrivateKey, signNote, verifierKey } from "./signed-note.ts";

const signatureInvalid: unknown = expect.objectContaining({ code: "signature_invalid" });
const invalidArgument: unknown = expect.objectContaining({ code: "invalid_argument" });

const SIGNER = { keyName: "example.com/log", privateKey: importPrivateKey(Buffer.alloc(32, 7)) };
const KEY = verifierKey(SIGNER.keyName, SIGNER.privateKey);
const ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
const EXAMPLE = `example.com/behind-the-sofa\n20852163\n${ROOT}\n`;
const CHECKPOINT: Checkpoint = { origin: "example.com/log", size: 3n, root: Buffer.from(ROOT, "base64") };

describe("the text", () => {
  it("of the specification's example is parsed and written again", () => {
    const checkpoint = parseCheckpoint(EXAMPLE);
    expect(checkpoint).toEqual({
      origin: "example.com/behind-the-sofa",
      size: 20852163n,
      root: Buffer.from(ROOT, "base64"),
      extensions: [],
    });
    expect(formatCheckpoint(checkpoint)).toBe(EXAMPLE);
  });

  it("carries every size of 64 bits, an empty tree and extension lines", () => {
    const line = fc.string({ unit: "binary", minLength: 1 }).filter((text) => !/[^ -\u{10ffff}]/u.test(text));
    const checkpoints = fc.record({
      origin: line,
      size: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      root: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes)),
      extensions: fc.array(line, { maxLength: 3 }),
    });
    fc.assert(
      fc.property(checkpoints, (checkpoint) => {
        expect(parseCheckpoint(formatCheckpoint(checkpoint))).toEqual(checkpoint);
      }),
    );
    const empty = { origin: "a", size: 0n, root: EMPTY_ROOT };
    expect(formatCheckpoint(empty)).toBe("a\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
  });

  it.each([
    ["no final newline", EXAMPLE.slice(0, -1)],
    ["two lines", "a\n1\n"],
    ["an empty origin", `\n1\n${ROOT}\n`],
    ["an empty line", `${EXAMPLE}\n`],
    ["an empty line before an extension", `${EXAMPLE}\nextension\n`],
    ["a leading zero", EXAMPLE.replace("20852163", "020852163")],
    ["a sign", EXAMPLE.replace("20852163", "+20852163")],
    ["a negative size", EXAMPLE.replace("20852163", "-1")],
    ["a fraction", EXAMPLE.replace("20852163", "1.0")],
    ["a hexadecimal size", EXAMPLE.replace("20852163", "0x10")],
    ["a space beside the size", EXAMPLE.replace("20852163", "20852163 ")],
    ["digits that are not ASCII", EXAMPLE.replace("20852163", "\u0661")],
    ["no size", EXAMPLE.replace("20852163", "")],
    ["a size of 65 bits", EXAMPLE.replace("20852163", (2n ** 64n).toString())],
    ["a short root", EXAMPLE.replace(ROOT, Buffer.alloc(31).toString("base64"))],
    ["a long root", EXAMPLE.replace(ROOT, Buffer.alloc(33).toString("base64"))],
    ["a root without padding", EXAMPLE.replace("=", "")],
    ["a root with loose bits", EXAMPLE.replace("q2I=", "q2J=")],
    ["a URL-safe root", EXAMPLE.replace("/", "/").replace("om/X", "om_X")],
    ["a control character", EXAMPLE.replace("behind", "be\thind")],
    ["a carriage return", EXAMPLE.replaceAll("\n", "\r\n")],
  ])("refuses %s", (_, malformed) => {
    expect(malformed).not.toBe(EXAMPLE);
    expect(() => parseCheckpoint(malformed)).toThrow(invalidArgument);
  });

  it("is not written from fields that it cannot carry", () => {
    for (const wrong of [
      { origin: "" },
      { origin: "two\nlines" },
      { size: -1n },
      { size: 2n ** 64n },
      { root: Buffer.alloc(31) },
      { extensions: [""] },
      { extensions: ["a\nb"] },
    ]) {
      expect(() => formatCheckpoint({ ...CHECKPOINT, ...wrong })).toThrow(invalidArgument);
    }
  });
});

describe("the signed checkpoint", () => {
  const note = signCheckpoint(CHECKPOINT, SIGNER);

  it("opens under its key, also among others", () => {
    const other = verifierKey("other", importPrivateKey(Buffer.alloc(32, 8)));
    expect(openCheckpoint(note, KEY)).toEqual({ ...CHECKPOINT, extensions: [] });
    expect(openCheckpoint(note, [other, KEY], { origin: CHECKPOINT.origin }).size).toBe(3n);
    expect(() => openCheckpoint(note, other)).toThrow(signatureInvalid);
    expect(() => openCheckpoint(note, [])).toThrow(signatureInvalid);
  });

  it("does not open for another origin, or with another size or root", () => {
    expect(() => openCheckpoint(note, KEY, { origin: "example.com/another" })).toThrow(signatureInvalid);
    expect(() => openCheckpoint(note.replace("\n3\n", "\n4\n"), KEY)).toThrow(signatureInvalid);
    expect(() => openCheckpoint(note.replace("CsU", "CsV"), KEY)).toThrow(signatureInvalid);
  });

  it("is refused if what was signed is not a checkpoint", () => {
    expect(() => openCheckpoint(signNote("hello\n", [SIGNER]), KEY)).toThrow(invalidArgument);
  });
});
