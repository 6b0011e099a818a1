/** What is kept of requests that may come twice: bounded, and of none by another. */
import { expect, it } from "vitest";
import type { Clock } from "../host/clock.ts";
import { IdempotentRequests } from "./idempotency.ts";

const clock: Clock & { nowMs: number } = {
  nowMs: 1_000,
  wallTimeUs: () => 0n,
  monotonicMs: () => clock.nowMs,
};

const request = (owner: string, key: string, fingerprint = "f") => ({ owner, key, fingerprint });

it("is given again for an hour, to whoever asked for the same", async () => {
  const requests = new IdempotentRequests(clock);
  let done = 0;
  const work = async (): Promise<number> => ++done;
  expect(await requests.run(request("1", "k"), work)).toBe(1);
  clock.nowMs += 3_599_000;
  expect(await requests.run(request("1", "k"), work)).toBe(1);
  expect(() => requests.run(request("1", "k", "other"), work)).toThrow(
    expect.objectContaining({ code: "idempotency_conflict" }),
  );
  expect(await requests.run(request("2", "k", "other"), work)).toBe(2);
  clock.nowMs += 2_000;
  expect(await requests.run(request("1", "k"), work)).toBe(3);
});

it("of one tenant pushes out its own alone, and nothing that is under way", async () => {
  const requests = new IdempotentRequests(clock);
  let again = 0;
  let finish: (value: string) => void = () => undefined;
  const slow = requests.run(
    request("1", "slow"),
    () =>
      new Promise<string>((resolve) => {
        finish = resolve;
      }),
  );
  await requests.run(request("2", "k"), async () => "first");
  for (let n = 0; n < 1_000; n += 1) await requests.run(request("1", `k${n}`), async () => n);
  const twice = async (): Promise<string> => {
    again += 1;
    return "again";
  };
  expect(await requests.run(request("2", "k"), twice)).toBe("first");
  const joined = requests.run(request("1", "slow"), twice);
  finish("once");
  expect([await slow, await joined, again]).toEqual(["once", "once", 0]);
  expect(await requests.run(request("1", "k0"), twice)).toBe("again");
});

it("is tried again after a refusal", async () => {
  const requests = new IdempotentRequests(clock);
  const refusal = requests.run(request("1", "k"), async () => {
    throw new Error("refused");
  });
  await expect(refusal).rejects.toThrow("refused");
  await new Promise((resolve) => setImmediate(resolve));
  expect(await requests.run(request("1", "k"), async () => "done")).toBe("done");
});
