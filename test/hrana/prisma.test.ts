/** Prisma's client with its adapter for libSQL, unmodified. Tables are made as its migrations make them. */
import { beforeAll, describe, expect, it } from "vitest";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { prismaClient } from "./prisma-client.ts";
import { type Served, serve, tokenOf } from "./served.ts";

const MIGRATION = [
  `CREATE TABLE "Patient" (
    "id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    "name" TEXT NOT NULL,
    "big" BIGINT,
    "photo" BLOB,
    "seen" DATETIME
  )`,
  `CREATE TABLE "Visit" (
    "id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    "patientId" INTEGER NOT NULL,
    "note" TEXT NOT NULL,
    CONSTRAINT "Visit_patientId_fkey" FOREIGN KEY ("patientId") REFERENCES "Patient" ("id") ON DELETE RESTRICT ON UPDATE CASCADE
  )`,
  `CREATE UNIQUE INDEX "Patient_name_key" ON "Patient"("name")`,
];

let served: Served;
beforeAll(async () => {
  served = await serve();
});

describe.each([
  ["http", 1],
  ["ws", 2],
] as const)("over %s", (scheme, tenant) => {
  it("writes, reads, relates and rolls back, with exact values", async () => {
    await served.db.transaction(TenantId(tenant), MIGRATION);
    const prisma = prismaClient(served.url.replace("http", scheme), tokenOf(tenant));
    const alice = {
      id: 1,
      name: "Alice",
      big: 2n ** 60n,
      photo: new Uint8Array([0, 255]),
      seen: new Date("2026-01-02T03:04:05.678Z"),
    };
    const visits = [
      { id: 1, patientId: 1, note: "first" },
      { id: 2, patientId: 1, note: "second" },
    ];
    const { id: _, ...data } = alice;
    const notes = { create: visits.map(({ note }) => ({ note })) };
    expect(
      await prisma.patient.create({ data: { ...data, visits: notes }, include: { visits: true } }),
    ).toEqual({ ...alice, visits });
    const asked = {
      visits: { some: { note: "first" } },
      name: { contains: "lic" },
      seen: { lt: new Date() },
    };
    expect(
      await prisma.patient.findMany({ where: asked, include: { visits: { orderBy: { note: "desc" } } } }),
    ).toEqual([{ ...alice, visits: visits.toReversed() }]);

    const undone = prisma.$transaction(async (models) => {
      await models.patient.create({ data: { name: "Bob" } });
      expect(await models.patient.count()).toBe(2);
      throw new Error("changed its mind");
    });
    await expect(undone).rejects.toThrow("changed its mind");
    expect(await prisma.patient.count()).toBe(1);
    await prisma.$transaction([
      prisma.patient.upsert({ where: { name: "Cid" }, create: { name: "Cid" }, update: { name: "no" } }),
      prisma.patient.update({ where: { id: 1 }, data: { name: "Zoe" } }),
    ]);
    expect(await prisma.patient.createMany({ data: [{ name: "Dan" }, { name: "Eve" }] })).toEqual({
      count: 2,
    });
    await prisma.patient.delete({ where: { name: "Dan" } });
    expect(await prisma.patient.findMany({ select: { name: true }, orderBy: { name: "asc" } })).toEqual(
      ["Cid", "Eve", "Zoe"].map((name) => ({ name })),
    );
    expect(await prisma.visit.groupBy({ by: ["patientId"], _count: true })).toEqual([
      { _count: 2, patientId: 1 },
    ]);
    expect(await prisma.$queryRaw`SELECT count(*) AS n FROM Visit WHERE note <> ${"x"}`).toEqual([{ n: 2n }]);

    await expect(prisma.patient.create({ data: { name: "Zoe" } })).rejects.toThrow(
      /UNIQUE constraint failed/,
    );
    await expect(prisma.visit.create({ data: { patientId: 77, note: "x" } })).rejects.toThrow(
      /FOREIGN KEY constraint failed/,
    );
    expect(await served.db.query(TenantId(tenant), "SELECT count(*) AS n FROM Visit")).toEqual([{ n: 2 }]);
    await prisma.$disconnect();
  });
});
