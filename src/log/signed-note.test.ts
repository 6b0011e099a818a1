import { generateKeyPairSync, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  exportPrivateKey,
  exportPublicKey,
  formatNote,
  formatVerifierKey,
  importPrivateKey,
  importPublicKey,
  MAX_NOTE_BYTES,
  MAX_NOTE_SIGNATURES,
  type NoteSigner,
  openNote,
  parseNote,
  parseVerifierKey,
  signNote,
  verifierKey,
} from "./signed-note.ts";

const vector = JSON.parse(
  readFileSync(new URL("../../test/vectors/signed-note.json", import.meta.url), "utf8"),
) as { readonly vkey: string; readonly note: string };

const signatureInvalid: unknown = expect.objectContaining({ code: "signature_invalid" });
const invalidArgument: unknown = expect.objectContaining({ code: "invalid_argument" });

function signer(keyName: string, seed: number): NoteSigner {
  return { keyName, privateKey: importPrivateKey(Buffer.alloc(32, seed)) };
}

const ALICE = signer("alice.example/log", 1);
const BOB = signer("bob.example", 2);
const ALICE_KEY = verifierKey(ALICE.keyName, ALICE.privateKey);
const BOB_KEY = verifierKey(BOB.keyName, BOB.privateKey);
const TEXT = "first line\n\nafter an empty line: ä — €\n";

describe("the published vector", () => {
  it("opens under its verifier key", () => {
    const key = parseVerifierKey(vector.vkey);
    const { text, signatures } = openNote(vector.note, [key]);
    expect(text).toBe(vector.note.slice(0, vector.note.indexOf("\n\n") + 1));
    expect(signatures).toHaveLength(1);
    expect(signatures[0]).toMatchObject({ keyName: "PeterNeumann", keyId: 0xc74f20a3 });
    expect(openNote(Buffer.from(vector.note), [key]).text).toBe(text);
  });

  it("is written again byte for byte", () => {
    expect(formatNote(parseNote(vector.note))).toBe(vector.note);
    expect(formatVerifierKey(parseVerifierKey(vector.vkey))).toBe(vector.vkey);
  });

  it("does not open after any change of one byte", () => {
    const key = parseVerifierKey(vector.vkey);
    const original = Buffer.from(vector.note);
    for (let at = 0; at < original.length; at += 1) {
      const changed = Buffer.from(original);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(() => openNote(changed, [key]), `byte ${at}`).toThrow(signatureInvalid);
    }
  });
});

describe("keys", () => {
  it("go to 32 raw bytes and back", () => {
    const pair = generateKeyPairSync("ed25519");
    const raw = exportPublicKey(pair.publicKey);
    expect(raw.toString("base64url")).toBe(pair.publicKey.export({ format: "jwk" }).x);
    expect(exportPublicKey(pair.privateKey)).toEqual(raw);
    expect(importPublicKey(raw).equals(pair.publicKey)).toBe(true);
    const seed = exportPrivateKey(pair.privateKey);
    expect(seed.toString("base64url")).toBe(pair.privateKey.export({ format: "jwk" }).d);
    expect(importPrivateKey(seed).equals(pair.privateKey)).toBe(true);
  });

  it("have the public key of RFC 8032 §7.1, test 1", () => {
    const seed = Buffer.from("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "hex");
    expect(exportPublicKey(importPrivateKey(seed)).toString("hex")).toBe(
      "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    );
  });

  it("are refused if they are of another length or kind", () => {
    const other = generateKeyPairSync("x25519");
    const pair = generateKeyPairSync("ed25519");
    for (const call of [
      () => importPublicKey(Buffer.alloc(31)),
      () => importPrivateKey(Buffer.alloc(33)),
      () => exportPublicKey(other.publicKey),
      () => exportPrivateKey(other.privateKey),
      () => exportPrivateKey(pair.publicKey),
      () => signNote("a\n", [{ keyName: "a", privateKey: pair.publicKey }]),
      () => signNote("a\n", [{ keyName: "a", privateKey: other.privateKey }]),
    ]) {
      expect(call).toThrow(invalidArgument);
    }
  });

  it("have a text form that is refused when it is not consistent", () => {
    const text = formatVerifierKey(ALICE_KEY);
    expect(parseVerifierKey(text).publicKey.equals(ALICE_KEY.publicKey)).toBe(true);
    const [name, id, key] = text.split("+") as [string, string, string];
    const otherAlgorithm = Buffer.concat([Buffer.of(2), exportPublicKey(ALICE_KEY.publicKey)]).toString(
      "base64",
    );
    for (const refused of [
      "",
      name,
      `${name}+${id}`,
      `+${id}+${key}`,
      `other+${id}+${key}`,
      `a b+${id}+${key}`,
      `${name}+00000000+${key}`,
      `${name}+${id.slice(1)}+${key}`,
      `${name}+${id}+${key}\n`,
      `${name}+${id}+${key.slice(0, -4)}`,
      `${name}+${id}+${key.replaceAll("=", "")}`,
      `${name}+${id}+${otherAlgorithm}`,
    ]) {
      if (refused !== text) expect(() => parseVerifierKey(refused), refused).toThrow(invalidArgument);
    }
  });
});

describe("signing and opening", () => {
  it("gives back any text that a note can carry", () => {
    const line = fc.string({ unit: "binary" }).map((text) => text.replace(/[^ -\u{10ffff}]/gu, "\n"));
    fc.assert(
      fc.property(line, (lines) => {
        const text = `${lines}\n`;
        expect(openNote(signNote(text, [ALICE]), [ALICE_KEY]).text).toBe(text);
      }),
    );
  });

  it("gives the signatures of the given keys and ignores others", () => {
    const note = signNote(TEXT, [BOB, ALICE]);
    expect(openNote(note, [ALICE_KEY]).signatures.map(({ keyName }) => keyName)).toEqual([ALICE.keyName]);
    expect(openNote(note, [ALICE_KEY, BOB_KEY]).signatures).toHaveLength(2);
    expect(() => openNote(note, [verifierKey("carol", signer("carol", 3).privateKey)])).toThrow(
      signatureInvalid,
    );
    expect(() => openNote(note, [])).toThrow(signatureInvalid);
  });

  it("does not take the name or the key alone for the key", () => {
    const note = signNote(TEXT, [ALICE]);
    expect(() => openNote(note, [verifierKey(ALICE.keyName, BOB.privateKey)])).toThrow(signatureInvalid);
    expect(() => openNote(note, [verifierKey("another.name", ALICE.privateKey)])).toThrow(signatureInvalid);
  });

  it("refuses a note with one bad signature of a given key, whatever else is there", () => {
    const good = parseNote(signNote(TEXT, [ALICE, BOB]));
    const [alice, bob] = good.signatures;
    if (alice === undefined || bob === undefined) throw new Error("two signatures");
    const forged = { ...bob, signature: alice.signature };
    const note = formatNote({ text: TEXT, signatures: [alice, forged] });
    expect(() => openNote(note, [ALICE_KEY, BOB_KEY])).toThrow(signatureInvalid);
    expect(openNote(note, [ALICE_KEY]).text).toBe(TEXT);
    const twice = formatNote({ text: TEXT, signatures: [alice, { ...alice, signature: bob.signature }] });
    expect(() => openNote(twice, [ALICE_KEY])).toThrow(signatureInvalid);
    const repeated = formatNote({ text: TEXT, signatures: [alice, alice] });
    expect(openNote(repeated, [ALICE_KEY]).signatures).toHaveLength(1);
  });

  it("signs the text with its final newline and nothing after it", () => {
    const [line] = parseNote(signNote(TEXT, [ALICE])).signatures;
    expect(Buffer.from(line?.signature ?? [])).toEqual(sign(null, Buffer.from(TEXT), ALICE.privateKey));
  });
});

describe("limits and malformed notes", () => {
  const note = signNote(TEXT, [ALICE]);
  const [line = ""] = /\u2014 .*\n$/.exec(note) ?? [];

  it.each([
    ["nothing", ""],
    ["no signature", TEXT],
    ["no signature after the blank line", `${TEXT}\n`],
    ["no text", line],
    ["no blank line", `a\n${line}`],
    ["no final newline", note.slice(0, -1)],
    ["a carriage return", note.replace("\n", "\r\n")],
    ["a tab", note.replace("first ", "first\t")],
    ["a NUL", note.replace("first", "\0")],
    ["a lone surrogate", note.replace("first", "\ud800")],
    ["a hyphen for the dash", note.replace(/\u2014 (?=alice)/, "- ")],
    ["two spaces", note.replace(`${ALICE.keyName} `, `${ALICE.keyName}  `)],
    ["something after the signature", `${note.slice(0, -1)} more\n`],
    ["a name with a plus sign", note.replace(ALICE.keyName, "alice+log")],
    ["a name with a no-break space", note.replace(ALICE.keyName, "alice\u00a0log")],
    ["no name", note.replace(`${ALICE.keyName} `, " ")],
    ["base64 without padding", note.replace("==\n", "\n").replace("=\n", "\n")],
    ["URL-safe base64", `${note}\u2014 bob -_-_AAAA\n`],
    ["base64 with loose bits", `${note}\u2014 bob AAAAAAAB=\n`],
    ["a signature that is only a key id", `${note}\u2014 bob AAAAAA==\n`],
    ["a malformed line of another key", `${note}\u2014 bob\n`],
  ])("refuses %s", (_, malformed) => {
    expect(malformed).not.toBe(note);
    expect(() => parseNote(malformed)).toThrow(signatureInvalid);
    expect(() => openNote(malformed, [ALICE_KEY])).toThrow(signatureInvalid);
  });

  it("refuses bytes that are not UTF-8, and does not drop a byte order mark", () => {
    const bytes = Buffer.from(note);
    bytes[0] = 0xff;
    expect(() => parseNote(bytes)).toThrow(signatureInvalid);
    const marked = Buffer.concat([Buffer.of(0xef, 0xbb, 0xbf), Buffer.from(note)]);
    expect(() => openNote(marked, [ALICE_KEY])).toThrow(signatureInvalid);
  });

  it("takes as many signatures and bytes as it says, and no more", () => {
    const other = { keyName: "bob", keyId: 7, signature: Buffer.alloc(64) };
    const others = (count: number): string =>
      `\u2014 bob ${Buffer.alloc(68).toString("base64")}\n`.repeat(count);
    expect(openNote(note + others(MAX_NOTE_SIGNATURES - 1), [ALICE_KEY]).text).toBe(TEXT);
    expect(() => openNote(note + others(MAX_NOTE_SIGNATURES), [ALICE_KEY])).toThrow(signatureInvalid);
    expect(() => formatNote({ text: TEXT, signatures: Array(MAX_NOTE_SIGNATURES + 1).fill(other) })).toThrow(
      invalidArgument,
    );
    const overhead = Buffer.byteLength(signNote("\n", [ALICE]));
    const longest = `${"a".repeat(MAX_NOTE_BYTES - overhead)}\n`;
    const longNote = signNote(longest, [ALICE]);
    expect(openNote(longNote, [ALICE_KEY]).text).toBe(longest);
    expect(() => signNote(`a${longest}`, [ALICE])).toThrow(invalidArgument);
    expect(() => parseNote(`a${longNote}`)).toThrow(signatureInvalid);
    expect(() => parseNote(Buffer.from(`a${longNote}`))).toThrow(signatureInvalid);
  });

  it("does not sign what it would not open", () => {
    for (const text of ["", "no newline", "a\tb\n", "a\r\n", "\ud800\n"]) {
      expect(() => signNote(text, [ALICE])).toThrow(invalidArgument);
    }
    for (const keyName of ["", "a b", "a+b", "a\u2003b", "a\nb", "\ud800", "a\u0085"]) {
      expect(() => signNote("a\n", [{ ...ALICE, keyName }]), JSON.stringify(keyName)).toThrow(
        invalidArgument,
      );
    }
    expect(() => signNote("a\n", [])).toThrow(invalidArgument);
    const empty = { keyName: "a", keyId: 1, signature: Buffer.alloc(0) };
    expect(() => formatNote({ text: "a\n", signatures: [empty] })).toThrow(invalidArgument);
  });
});
