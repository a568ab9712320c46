import { describe, expect, it } from "vitest";
import type { JobRow } from "../src/live_jobs";
import { commonName, groupedRows, isGroup, meanOfRuns, statesOf } from "../src/replicates";

describe("meanOfRuns", () => {
  it("is the mean with its standard error where half of the runs or more have a point", () => {
    const mean = meanOfRuns([
      { x: [1, 2, 3], y: [1, 2, 9] },
      { x: [1, 2], y: [3, 6] },
      { x: [1, 2], y: [5, null] },
    ]);
    expect(mean.x).toEqual([1, 2]);
    expect(mean.y).toEqual([3, 4]);
    // s = 2 of three, s = sqrt(8) of two
    expect(mean.se[0]).toBeCloseTo(2 / Math.sqrt(3), 12);
    expect(mean.se[1]).toBeCloseTo(2, 12);
  });

  it("joins runs whose points were thinned to different steps", () => {
    const whole = Array.from({ length: 101 }, (_, x) => x);
    const thinned = (keep: (x: number) => boolean, slope: number) => {
      const x = whole.filter((one) => keep(one) || one === 0 || one === 100);
      return { x, y: x.map((one) => slope * one) };
    };
    const mean = meanOfRuns([thinned((x) => x % 7 === 0, 1), thinned((x) => x % 5 === 3, 3)]);
    expect(mean.x.length).toBeGreaterThan(30);
    mean.x.forEach((x, index) => expect(mean.y[index]).toBeCloseTo(2 * x, 9));
    expect(meanOfRuns([thinned(() => true, 1), thinned(() => true, 3)], 11).x).toEqual([0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
  });
});

const row = (id: string, key: string, state: JobRow["state"], loss: number | null): JobRow => ({
  id, name: `mlp-${id}`, state, replicate_key: key, created_at: `2026-01-0${id}`, finished_at: null,
  metrics: { best: { val_loss: loss }, last: {} }, stop_reason: null, error: null, labels: {}, group: null, dataset: { name: "iris", version: 1 },
});

describe("groupedRows", () => {
  it("makes one row of repetitions, with means over those that have a value", () => {
    const [group, other] = groupedRows([row("1", "a", "succeeded", 0.1), row("2", "b", "succeeded", 9), row("3", "a", "running", 0.3), row("4", "a", "queued", null)]);
    expect(group && isGroup(group) && group.members.map((one) => one.id)).toEqual(["1", "3", "4"]);
    expect(group?.metrics?.best?.val_loss).toBeCloseTo(0.2, 12);
    expect([group?.name, group?.created_at, other?.id]).toEqual(["mlp", "2026-01-04", "2"]);
    expect(group && isGroup(group) && statesOf(group.members)).toEqual([["running", 1], ["queued", 1], ["succeeded", 1]]);
  });
});

describe("commonName", () => {
  it("ends before the number of a fold or seed", () => {
    expect(commonName(["cv: fold 1", "cv: fold 2"])).toBe("cv");
    expect(commonName(["mlp-10", "mlp-11"])).toBe("mlp");
    expect(commonName(["same", "same"])).toBe("same");
    expect(commonName(["alpha", "beta"])).toBe("alpha");
  });
});
