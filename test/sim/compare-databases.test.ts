/** The checker finds what is planted: every kind of difference, and nothing between equals. */
import Database from "better-sqlite3-multiple-ciphers";
import { expect, test } from "vitest";
import type { SqliteDatabase } from "../../src/projection/sqlite.ts";
import { differences, imageOf } from "./compare-databases.ts";
import { TestNode } from "./test-node.ts";

const SCHEMA = `
  CREATE TABLE t (a, b);
  CREATE TABLE k (a COLLATE NOCASE PRIMARY KEY, b) WITHOUT ROWID;
  CREATE TABLE s (id INTEGER PRIMARY KEY AUTOINCREMENT);
  CREATE TABLE p (id INTEGER PRIMARY KEY);
  CREATE TABLE c (p REFERENCES p);
  INSERT INTO t VALUES (1, 'x'), (0.0, x'00'), (NULL, CAST(x'ff' AS TEXT)), (1, 'x');
  INSERT INTO k VALUES ('a', 1);
  INSERT INTO s VALUES (5);
  PRAGMA user_version = 3;
`;

function database(plant = ""): SqliteDatabase {
  const db = new Database(":memory:");
  db.pragma("foreign_keys=OFF");
  db.exec(SCHEMA + plant);
  return db;
}

const PLANTED: readonly (readonly [name: string, sql: string])[] = [
  ["another storage class", "UPDATE t SET a = 1.0 WHERE rowid = 1"],
  ["another sign of zero", "UPDATE t SET a = -0.0 WHERE rowid = 2"],
  ["text for a blob", "UPDATE t SET b = CAST(b AS TEXT) WHERE rowid = 2"],
  ["other bytes that are no UTF-8", "UPDATE t SET b = CAST(x'fe' AS TEXT) WHERE rowid = 3"],
  ["an empty text for null", "UPDATE t SET a = '' WHERE rowid = 3"],
  ["another rowid", "UPDATE t SET rowid = 9 WHERE rowid = 4"],
  ["a row less of two that are equal", "DELETE FROM t WHERE rowid = 4"],
  ["a key of another case", "UPDATE k SET a = 'A'"],
  ["another sequence", "UPDATE sqlite_sequence SET seq = 6"],
  ["another table", "CREATE TABLE u (a)"],
  ["an index more", "CREATE INDEX i ON t (a)"],
  ["a trigger more", "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END"],
  ["another user_version", "PRAGMA user_version = 4"],
  ["a violated foreign key", "INSERT INTO c VALUES (7)"],
];

test("equal databases have no difference", () => {
  expect(differences(imageOf(database()), imageOf(database()))).toEqual([]);
});

test.for(PLANTED)("finds %s", ([, sql]) => {
  const [left, right] = [imageOf(database()), imageOf(database(sql))];
  expect(differences(left, right)).not.toEqual([]);
  expect(differences(right, left)).not.toEqual([]);
});

test("finds a row of the live projection that the log does not have", async () => {
  await using node = await TestNode.open();
  const tenant = await node.createTenant();
  await node.db.execute(tenant, "CREATE TABLE t (a)");
  await node.db.execute(tenant, "INSERT INTO t VALUES (1)");
  const live = await node.liveImage(tenant);
  expect(differences(live, await node.rebuiltImage(tenant))).toEqual([]);
  expect(differences(live, await node.rebuiltImage(tenant, 1n))).toEqual([
    "table t: only left:  | integer 1 | integer 1",
  ]);
});

test("a projection that is lost is built again at the next start, and goes on", async () => {
  await using node = await TestNode.open();
  const tenant = await node.createTenant();
  await node.db.execute(tenant, "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v UNIQUE)");
  await node.db.execute(tenant, "INSERT INTO t (v) VALUES (1), (2)");
  await node.db.execute(tenant, "DELETE FROM t WHERE v = 2");
  const live = await node.liveImage(tenant);
  await node.loseProjection(tenant);
  expect(differences(live, await node.liveImage(tenant))).toEqual([]);
  expect((await node.db.execute(tenant, "INSERT INTO t (v) VALUES (3)")).lastInsertRowid).toBe(3);
  await node.reopen();
  expect(await node.db.query(tenant, "SELECT id, v FROM t")).toEqual([
    { id: 1, v: 1 },
    { id: 3, v: 3 },
  ]);
  expect(await node.rebuildDifferences(tenant)).toEqual([]);
});
