import { describe, expect, it } from "vitest";
import type { Points } from "../src/live_series";
import { marksOf, pausesOf, rateChanges } from "../src/marks";

const START = Date.parse("2026-01-01T00:00:00.000Z");
const at = (seconds: number) => new Date(START + 1000 * seconds).toISOString();

function points(value: (number | null)[], stepsPerEpoch = 10): Points {
  const places = value.map((_, index) => index + 1);
  return { seq: places, step: places.map((epoch) => epoch * stepsPerEpoch), epoch: places, value, elapsed: places.map((epoch) => epoch * 2) };
}

const attempt = (number: number, started: number, finished: number | null, outcome: string | null, from: number | null = null) =>
  ({ attempt: number, worker: "w", started_at: at(started), finished_at: finished === null ? null : at(finished), outcome, error: null, resumed_from_step: from }) as never;

describe("rateChanges", () => {
  it("finds drops of a rate that stood still, and none of one that always changes", () => {
    expect(rateChanges(points([0.1, 0.1, 0.1, 0.01, 0.01, 0.001]))).toEqual([
      { index: 3, text: "rate 0.1000 → 0.01000" },
      { index: 5, text: "rate 0.01000 → 0.001000" },
    ]);
    const cosine = Array.from({ length: 50 }, (_, i) => 0.1 * (1 + Math.cos((Math.PI * i) / 50)));
    expect(rateChanges(points(cosine))).toEqual([]);
    expect(rateChanges(undefined)).toEqual([]);
  });
});

describe("marksOf", () => {
  const series = new Map([
    ["val_loss", points([3, 2, 1, 2])],
    ["train_lr", points([0.1, 0.1, 0.1, 0.05])],
  ]);
  const job = { state: "succeeded", result: { best_epoch: 3 }, progress: { step: 40 } } as never;
  const attempts = [attempt(1, 0, 5, "paused"), attempt(2, 65, 70, "lost", 20), attempt(3, 80, 90, "succeeded", 30)];
  const decisions = [{ step: 40, epoch: 4, at: at(89), action: "stop", rule: { kind: "patience" } }] as never[];
  const texts = (name: "step" | "epoch" | "time") =>
    marksOf(job, series, { attempts, decisions }, { name, stepsPerEpoch: 10, start: START }).map((mark) => [mark.x, mark.text]);

  it("puts all that happened to its place on the axis", () => {
    expect(texts("epoch")).toEqual([
      [2, "paused"],
      [2, "attempt 2 resumed from step 20"],
      [3, "best epoch 3"],
      [3, "interrupted: worker lost"],
      [3, "attempt 3 resumed from step 30"],
      [4, "rate 0.1000 → 0.05000"],
      [4, "stopped: patience"],
    ]);
    expect(texts("step").map(([x]) => x)).toEqual([20, 20, 30, 30, 30, 40, 40]);
    expect(texts("time")).toEqual([
      [5, "paused"],
      [6, "best epoch 3"],
      [8, "rate 0.1000 → 0.05000"],
      [65, "attempt 2 resumed from step 20"],
      [70, "interrupted: worker lost"],
      [80, "attempt 3 resumed from step 30"],
      [89, "stopped: patience"],
    ]);
  });
  it("shades from the end of an attempt to the next one", () => {
    expect(pausesOf(attempts, START)).toEqual([
      [5, 65],
      [70, 80],
    ]);
  });
});
