/** The Protobuf schema of HRANA_3_SPEC on the wire, field by field where the client of its makers does not look. */
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { beforeAll, expect, it } from "vitest";
import { WebSocket } from "ws";
import { TenantId } from "../../src/index.ts";
import { type Served, serve, tokenOf } from "./served.ts";

const TENANT = TenantId(1);

let served: Served;
beforeAll(async () => {
  served = await serve();
  await served.db.execute(TENANT, "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)");
});

const part = (field: number, bytes: Uint8Array): Uint8Array =>
  new BinaryWriter().tag(field, WireType.LengthDelimited).bytes(bytes).finish();
const text = (field: number, value: string): Uint8Array => part(field, Buffer.from(value));
const varint = (field: number, value: number): Uint8Array =>
  new BinaryWriter().tag(field, WireType.Varint).int32(value).finish();
const join = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
/** A field that no message has, of each type that a peer must pass over. */
const UNKNOWN = join(
  varint(900, -1),
  text(901, "later"),
  new BinaryWriter().tag(902, WireType.Bit64).double(1).finish(),
  new BinaryWriter().tag(903, WireType.Bit32).float(1).finish(),
);

/** The fields of a message by number: numbers, or bytes. */
function fieldsOf(bytes: Uint8Array): Map<number, (number | bigint | Uint8Array)[]> {
  const reader = new BinaryReader(bytes);
  const fields = new Map<number, (number | bigint | Uint8Array)[]>();
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag();
    const value = wire === WireType.LengthDelimited ? reader.bytes() : BigInt(reader.uint64());
    fields.set(field, [...(fields.get(field) ?? []), value]);
  }
  return fields;
}

function down(bytes: Uint8Array, ...path: number[]): Uint8Array {
  return path.reduce((at, field) => fieldsOf(at).get(field)?.[0] as Uint8Array, bytes);
}

async function post(path: string, body: Uint8Array): Promise<{ status: number; bytes: Uint8Array }> {
  const response = await fetch(`${served.url}/v3-protobuf/${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${tokenOf(1)}`, "content-type": "application/x-protobuf" },
    body: body as Uint8Array<ArrayBuffer>,
  });
  return { status: response.status, bytes: new Uint8Array(await response.arrayBuffer()) };
}

const execute = (stmt: Uint8Array): Uint8Array => part(2, part(2, part(1, stmt)));
const zigzag = (value: bigint): bigint => (value >> 1n) ^ -(value & 1n);

it("passes over fields that it does not know, in every message", async () => {
  const stmt = join(UNKNOWN, text(1, "SELECT ?"), part(3, join(UNKNOWN, text(4, "a"))));
  const body = join(UNKNOWN, part(2, join(UNKNOWN, part(2, join(UNKNOWN, part(1, stmt))))));
  const { status, bytes } = await post("pipeline", body);
  expect(status).toBe(200);
  // PipelineRespBody.results → StreamResult.ok → StreamResponse.execute → result → rows → values → text
  expect(Buffer.from(down(bytes, 3, 1, 2, 1, 2, 1, 4)).toString("utf8")).toBe("a");
});

it.each([
  ["a truth that is a text", execute(join(text(1, "SELECT 1"), text(5, "yes")))],
  ["a text that is a number", execute(varint(1, 7))],
  ["a number that is a text", execute(text(2, "7"))],
  ["a double that is a varint", execute(join(text(1, "SELECT ?"), part(3, varint(3, 1))))],
  ["a message that is a number", join(execute(text(1, "SELECT 1")), varint(2, 1))],
  ["a value of no type", execute(join(text(1, "SELECT ?"), part(3, UNKNOWN)))],
  ["a named argument without a value", execute(join(text(1, "SELECT :a"), part(4, text(1, "a"))))],
])("refuses %s", async (_, body) => {
  expect((await post("pipeline", body)).status).toBe(400);
});

it("tells a row id as a signed integer, and the offset of a commit behind it", async () => {
  const insert = execute(text(1, "INSERT INTO t VALUES (-5, 'x')"));
  const result = fieldsOf(down((await post("pipeline", insert)).bytes, 3, 1, 2, 1));
  const { size } = await served.db.describeTenant(TENANT);
  expect([3, 4, 5].map((field) => result.get(field)?.[0])).toEqual([1n, 9n, size - 1n]);
  expect(zigzag(9n)).toBe(-5n);
  const read = fieldsOf(down((await post("pipeline", execute(text(1, "SELECT 1")))).bytes, 3, 1, 2, 1));
  expect([4, 5].map((field) => read.has(field))).toEqual([false, false]);
});

it("gives the entries of a cursor behind their lengths", async () => {
  const steps = ["INSERT INTO t VALUES (-6, 'y')", "SELECT * FROM nowhere", "SELECT s FROM t WHERE id = -6"];
  const batch = part(2, join(...steps.map((sql) => part(1, part(2, text(1, sql))))));
  const reader = new BinaryReader((await post("cursor", batch)).bytes);
  const items: Map<number, (number | bigint | Uint8Array)[]>[] = [];
  while (reader.pos < reader.len) items.push(fieldsOf(reader.bytes()));
  expect(items.map((item) => [...item.keys()][0])).toEqual([1, 1, 2, 3, 1, 4, 2]);
  const [head, , inserted, failed, , row] = items.map((item) => [...item.values()][0]?.[0] as Uint8Array);
  expect(Buffer.from(head as Uint8Array).toString("utf8")).toMatch(/^[\w-]{22}\.[\w-]{43}$/);
  const end = fieldsOf(inserted as Uint8Array);
  expect([end.get(1)?.[0], zigzag(end.get(2)?.[0] as bigint)]).toEqual([1n, -6n]);
  expect(fieldsOf(failed as Uint8Array).get(1)).toEqual([1n]);
  expect(Buffer.from(down(failed as Uint8Array, 2, 2)).toString("utf8")).toBe("SQLITE_ERROR");
  expect(Buffer.from(down(row as Uint8Array, 1, 4)).toString("utf8")).toBe("y");
});

it("speaks over a WebSocket with negative numbers, and closes one that sends text", async () => {
  const socket = new WebSocket(served.url.replace("http", "ws"), ["hrana3-protobuf", "hrana3"]);
  const heard: Uint8Array[] = [];
  socket.on("message", (data: Buffer) => heard.push(new Uint8Array(data)));
  const closed = new Promise((resolve) => socket.once("close", resolve));
  await new Promise((resolve) => socket.once("open", resolve));
  socket.send(part(1, text(1, tokenOf(1))));
  socket.send(part(2, join(varint(1, -1), part(2, varint(1, -7)), UNKNOWN)));
  socket.send(part(2, join(varint(1, 0), part(4, join(varint(1, -7), part(2, text(1, "SELECT 1")))))));
  await expect.poll(() => heard.length).toBe(3);
  const [hello, opened, executed] = heard.map((bytes) => fieldsOf(bytes));
  expect([...(hello as Map<number, unknown>).keys()]).toEqual([1]);
  const open = fieldsOf(opened?.get(3)?.[0] as Uint8Array);
  expect([BigInt.asIntN(32, open.get(1)?.[0] as bigint), open.has(2)]).toEqual([-1n, true]);
  const execution = fieldsOf(executed?.get(3)?.[0] as Uint8Array);
  // What is zero is left out, as proto3 does.
  expect([execution.has(1), execution.has(4)]).toEqual([false, true]);
  const step = part(1, part(2, text(1, "SELECT 1")));
  const large = join(...new Array<Uint8Array>(10_001).fill(step));
  socket.send(part(2, join(varint(1, 9), part(5, join(varint(1, -7), part(2, large))))));
  await expect.poll(() => heard.length).toBe(4);
  const refused = fieldsOf(down(heard[3] as Uint8Array, 4));
  expect(refused.get(1)).toEqual([9n]);
  expect(Buffer.from(down(refused.get(2)?.[0] as Uint8Array, 2)).toString("utf8")).toBe("invalid_argument");
  socket.send("{}");
  expect(await closed).toBe(1003);
});
