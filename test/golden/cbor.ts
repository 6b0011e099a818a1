/**
 * A small CBOR reader (RFC 8949) for `reader.ts`: definite lengths, no simple values but null and the booleans.
 * Integers become bigints and floats numbers, so that 1 and 1.0 stay apart. Another implementation than the engine's.
 */

/** Text that is not UTF-8: tag 40000 around its bytes. */
export interface RawText {
  readonly rawText: Buffer;
}

export type Cbor = bigint | number | string | boolean | null | Buffer | RawText | Cbor[] | Map<string, Cbor>;

const RAW_TEXT_TAG = 40_000n;

/** The one item that `bytes` holds. */
export function readCbor(bytes: Buffer): Cbor {
  const reader = new Reader(bytes);
  const item = reader.item();
  if (reader.at !== bytes.length) throw new Error("more than one CBOR item");
  return item;
}

class Reader {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  item(): Cbor {
    const initial = this.#bytes.readUInt8(this.at);
    this.at += 1;
    const major = initial >> 5;
    if (major === 7) return this.#simple(initial);
    const argument = this.#argument(initial & 31);
    if (major === 0) return argument;
    if (major === 1) return -1n - argument;
    if (major === 2) return this.#take(Number(argument));
    if (major === 3) return new TextDecoder("utf-8", { fatal: true }).decode(this.#take(Number(argument)));
    if (major === 4) return Array.from({ length: Number(argument) }, () => this.item());
    if (major === 5) return this.#map(Number(argument));
    return this.#rawText(argument);
  }

  #simple(initial: number): Cbor {
    if (initial === 0xf4 || initial === 0xf5) return initial === 0xf5;
    if (initial === 0xf6) return null;
    if (initial === 0xfb) return this.#take(8).readDoubleBE();
    throw new Error(`a CBOR item of kind ${initial.toString(16)}`);
  }

  #argument(info: number): bigint {
    if (info < 24) return BigInt(info);
    if (info > 27) throw new Error("a CBOR item of indefinite length");
    return BigInt(`0x${this.#take(1 << (info - 24)).toString("hex")}`);
  }

  #map(count: number): Map<string, Cbor> {
    const map = new Map<string, Cbor>();
    for (let left = count; left > 0; left -= 1) {
      const key = this.item();
      if (typeof key !== "string") throw new Error("a key of a CBOR map is no text");
      map.set(key, this.item());
    }
    return map;
  }

  #rawText(tag: bigint): RawText {
    const rawText = this.item();
    if (tag !== RAW_TEXT_TAG || !Buffer.isBuffer(rawText)) throw new Error(`a CBOR tag ${tag}`);
    return { rawText };
  }

  #take(length: number): Buffer {
    const bytes = this.#bytes.subarray(this.at, this.at + length);
    if (bytes.length < length) throw new Error("a CBOR item is cut short");
    this.at += length;
    return bytes;
  }
}
