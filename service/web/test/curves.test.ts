import { describe, expect, it } from "vitest";
import { aligned, lineOf, panelsOf, smoothed, stepsBetween } from "../src/curves";
import { appended, MAX_POINTS, type Points, thinned } from "../src/live_series";

describe("smoothed", () => {
  it("is the mean of what came, without the bias of the beginning", () => {
    // by hand, b = 0.5: 4; (0.25*4 + 0.5*8)/0.75; (0.125*4 + 0.25*8 + 0.5*0)/0.875
    const values = smoothed([4, 8, 0], 0.5) as number[];
    expect(values[0]).toBe(4);
    expect(values[1]).toBeCloseTo(20 / 3, 12);
    expect(values[2]).toBeCloseTo(20 / 7, 12);
  });
  it("keeps a constant and leaves out what is missing or not finite", () => {
    expect(smoothed([3, null, 3, Number.POSITIVE_INFINITY, 3], 0.9)).toEqual([3, null, expect.closeTo(3, 12), null, expect.closeTo(3, 12)]);
  });
  it("changes nothing at 0", () => {
    expect(smoothed([1, 2, null], 0)).toEqual([1, 2, null]);
  });
});

describe("aligned", () => {
  it("joins lines with points of their own", () => {
    const joined = aligned([
      { x: [1, 3], y: [10, 30] },
      { x: [2, 3], y: [200, null] },
    ]);
    expect(joined).toEqual([
      [1, 2, 3],
      [10, undefined, 30],
      [undefined, 200, null],
    ]);
  });
});

const row = (seq: number, step: number, value: number | null, more = {}) => ({
  seq, step, value, attempt: 1, split: "val", name: "loss", epoch: step, at: "2026-01-01T00:00:00.000Z", superseded: false, ...more,
});

describe("appended", () => {
  it("takes no row twice and none that was superseded", () => {
    const series = new Map<string, Points>();
    const start = Date.parse("2025-12-31T23:59:58.500Z");
    expect(appended(series, [row(1, 1, 5), row(2, 2, 4)], start)).toBe(true);
    expect(appended(series, [row(2, 2, 4), row(3, 3, 9, { superseded: true })], start)).toBe(false);
    appended(series, [row(4, 3, null)], start);
    expect(series.get("val_loss")).toEqual({ seq: [1, 2, 4], step: [1, 2, 3], epoch: [1, 2, 3], value: [5, 4, null], elapsed: [1.5, 1.5, 1.5] });
  });
  it("does not grow for ever, and loses no extreme", () => {
    const series = new Map<string, Points>();
    const extremes = [1234, 40_321];
    for (let seq = 1; seq <= 50_000; seq += 1) {
      const value = seq === extremes[0] ? 99 : seq === extremes[1] ? -99 : Math.sin(seq);
      appended(series, [row(seq, seq, value)], 0);
    }
    const points = series.get("val_loss") as Points;
    expect(points.seq.length).toBeLessThanOrEqual(2 * MAX_POINTS);
    expect(points.seq).toEqual(expect.arrayContaining([1, ...extremes, 50_000]));
    expect(points.seq).toEqual([...points.seq].sort((a, b) => a - b));
    expect(points.value.length).toBe(points.elapsed.length);
  });
});

describe("thinned", () => {
  it("keeps what the service keeps", () => {
    // by the rule of `downsample`: 12 points in at most 8 are two buckets of five
    const value = [5, 1, 9, 3, 4, 2, 8, 0, null, 7, 6, 5];
    const points = { seq: value.map((_, i) => i + 1), step: value.map((_, i) => i), epoch: value.map(() => 1), value, elapsed: value.map((_, i) => i) };
    expect(thinned(points, 8).step).toEqual([0, 1, 2, 6, 7, 8, 11]);
    expect(thinned(points, 12)).toBe(points);
  });
});

describe("lineOf", () => {
  it("finds the standard error of the same step", () => {
    const series = new Map<string, Points>([
      ["val_loss", { seq: [1, 3], step: [10, 20], epoch: [1, 2], value: [0.5, 0.4], elapsed: [3, 60] }],
      ["val_loss_se", { seq: [4], step: [20], epoch: [2], value: [0.01], elapsed: [60] }],
    ]);
    expect(lineOf("val_loss", series, "epoch", 10)).toEqual({ name: "val_loss", x: [1, 2], y: [0.5, 0.4], se: [null, 0.01] });
    expect(lineOf("val_accuracy", series, "step", null)).toBeNull();
  });
  it("is broken where nothing ran, by time alone", () => {
    const points = { seq: [1, 2, 3], step: [10, 20, 30], epoch: [1, 2, 3], value: [3, 2, 1], elapsed: [1, 2, 101] };
    const series = new Map<string, Points>([["val_loss", points]]);
    expect(lineOf("val_loss", series, "time", 10, [[3, 100]])).toEqual({ name: "val_loss", x: [1, 2, 51.5, 101], y: [3, 2, null, 1], se: null });
    expect(lineOf("val_loss", series, "step", 10, [[3, 100]])?.x).toEqual([10, 20, 30]);
    expect(stepsBetween(series, 1.5, 200)).toEqual([20, 30]);
    expect(stepsBetween(series, 5, 6)).toBeNull();
  });
});

describe("panelsOf", () => {
  it("shows train and validation together, the loss first, and hides standard errors", () => {
    const panels = panelsOf(["val_f1", "train_loss", "val_loss", "val_loss_se", "val_accuracy", "train_accuracy", "train_lr", "layers_grad_norm.body.0"]);
    expect(panels.map((panel) => panel.title)).toEqual(["loss", "accuracy", "f1", "learning rate", "gradient norms of layers"]);
    expect(panels[0]?.names).toEqual(["train_loss", "val_loss"]);
  });
});
