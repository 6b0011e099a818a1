/** Who gets which lane, and when. */
import { afterAll, describe, expect, it } from "vitest";
import { Lanes } from "./lanes.ts";

const lanes = new Lanes({ work: 2, hold: 1 });
afterAll(() => lanes.close());

interface Held {
  readonly name: string;
  readonly end: () => void;
  readonly done: Promise<void>;
}

const got: string[] = [];

function take(name: string, use: "work" | "hold" = "work"): Held {
  const end = Promise.withResolvers<void>();
  const path = name.slice(0, 1);
  const work = async (): Promise<void> => {
    got.push(name);
    await end.promise;
  };
  return { name, end: () => end.resolve(), done: lanes.lease(path, work, use) };
}

describe("lanes", () => {
  it("that are held keep nobody from those for work", async () => {
    const held = take("a1", "hold");
    const waiting = take("b1", "hold");
    const work = take("a2");
    await expect.poll(() => got).toEqual(["a1", "a2"]);
    for (const each of [work, held, waiting]) each.end();
    await Promise.all([work.done, held.done, waiting.done]);
    expect(got.splice(0)).toEqual(["a1", "a2", "b1"]);
  });

  it("go next to who has the fewest, however many of another wait", async () => {
    const first = [take("a1"), take("a2")] as const;
    const waiting = [take("a3"), take("a4"), take("b1"), take("b2"), take("c1")];
    await expect.poll(() => got).toEqual(["a1", "a2"]);
    first[0].end();
    // One of a's is left, and b has none.
    await expect.poll(() => got.at(2)).toBe("b1");
    first[1].end();
    await expect.poll(() => got.at(3)).toBe("a3");
    for (const each of waiting) each.end();
    await Promise.all([...first, ...waiting].map(({ done }) => done));
    expect(got.splice(0).slice(4).sort()).toEqual(["a4", "b2", "c1"]);
  });
});
