/**
 * Where everything lies in a segment of a log, read straight from its bytes by `docs/FORMAT.md`'s layout and not by the
 * code under test: each field with its name, place and length, and the log offset that its damage makes the first bad.
 */
export interface Field {
  readonly name: string;
  readonly position: number;
  readonly length: number;
  /** First offset of the block that the field belongs to; of the segment for its header. */
  readonly offset: bigint;
}

export interface BlockPlace {
  readonly position: number;
  readonly length: number;
  readonly firstOffset: bigint;
  readonly count: number;
}

const HASH_BYTES = 32;
const TAG_BYTES = 16;
const SEGMENT_FIELDS = [
  ["magic", 4],
  ["version", 2],
  ["reserved", 2],
  ["tenant", 8],
  ["first offset", 8],
  ["previous hash", 32],
  ["frontier count", 4],
] as const;
const BLOCK_FIELDS = [
  ["magic", 4],
  ["version", 2],
  ["suite", 2],
  ["tenant", 8],
  ["first offset", 8],
  ["count", 4],
  ["DEK version", 4],
  ["epoch", 8],
  ["time", 8],
  ["previous hash", 32],
  ["nonce", 12],
  ["sealed length", 4],
] as const;
const BLOCK_HEADER_BYTES = 96;

/** The fields of a segment, in order and without a gap; `blocks` are those of its blocks. */
export function segmentLayout(bytes: Buffer): { readonly fields: Field[]; readonly blocks: BlockPlace[] } {
  const first = bytes.readBigUInt64LE(16);
  const fields = segmentHeader(bytes, first);
  const blocks: BlockPlace[] = [];
  let position = endOf(fields);
  while (position < bytes.length) {
    const block = blockPlace(bytes, position);
    blocks.push(block);
    fields.push(...blockFields(bytes, block));
    position += block.length;
  }
  return { fields, blocks };
}

function segmentHeader(bytes: Buffer, offset: bigint): Field[] {
  const frontier = bytes.readUInt32LE(56);
  return layOut(
    [
      ...SEGMENT_FIELDS,
      ...Array.from({ length: frontier }, () => ["frontier hash", HASH_BYTES] as const),
      ["header hash", HASH_BYTES] as const,
    ],
    { prefix: "segment ", position: 0, offset },
  );
}

function blockPlace(bytes: Buffer, position: number): BlockPlace {
  const count = bytes.readUInt32LE(position + 24);
  const sealed = bytes.readUInt32LE(position + 92);
  return {
    position,
    length: BLOCK_HEADER_BYTES + count * HASH_BYTES + sealed + HASH_BYTES,
    firstOffset: bytes.readBigUInt64LE(position + 16),
    count,
  };
}

function blockFields(bytes: Buffer, block: BlockPlace): Field[] {
  const sealed = bytes.readUInt32LE(block.position + 92);
  return layOut(
    [
      ...BLOCK_FIELDS,
      ...Array.from({ length: block.count }, () => ["leaf hash", HASH_BYTES] as const),
      ["ciphertext", sealed - TAG_BYTES] as const,
      ["tag", TAG_BYTES] as const,
      ["stored hash", HASH_BYTES] as const,
    ],
    { prefix: "block ", position: block.position, offset: block.firstOffset },
  );
}

function layOut(
  parts: readonly (readonly [string, number])[],
  at: { readonly prefix: string; readonly position: number; readonly offset: bigint },
): Field[] {
  let { position } = at;
  return parts.map(([name, length]) => {
    const field = { name: `${at.prefix}${name}`, position, length, offset: at.offset };
    position += length;
    return field;
  });
}

function endOf(fields: readonly Field[]): number {
  const last = fields.at(-1) as Field;
  return last.position + last.length;
}
