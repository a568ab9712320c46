import { describe, expect, it } from "vitest";
import { aligned, lineOf, panelsOf, smoothed } from "../src/curves";
import { appended, type Points } from "../src/live_series";

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
      [10, null, 30],
      [null, 200, null],
    ]);
  });
});

const row = (seq: number, step: number, value: number | null, more = {}) => ({
  seq, step, value, attempt: 1, split: "val", name: "loss", epoch: step, at: "2026-01-01T00:00:00.000Z", superseded: false, ...more,
});

describe("appended", () => {
  it("takes no row twice and none that was superseded", () => {
    const series = new Map<string, Points>();
    expect(appended(series, [row(1, 1, 5), row(2, 2, 4)])).toBe(true);
    expect(appended(series, [row(2, 2, 4), row(3, 3, 9, { superseded: true })])).toBe(false);
    appended(series, [row(4, 3, null)]);
    expect(series.get("val_loss")).toEqual({ seq: [1, 2, 4], step: [1, 2, 3], epoch: [1, 2, 3], value: [5, 4, null] });
  });
});

describe("lineOf", () => {
  it("finds the standard error of the same step", () => {
    const series = new Map<string, Points>([
      ["val_loss", { seq: [1, 3], step: [10, 20], epoch: [1, 2], value: [0.5, 0.4] }],
      ["val_loss_se", { seq: [4], step: [20], epoch: [2], value: [0.01] }],
    ]);
    expect(lineOf("val_loss", series, "epoch", 10)).toEqual({ name: "val_loss", x: [1, 2], y: [0.5, 0.4], se: [null, 0.01] });
    expect(lineOf("val_accuracy", series, "step", null)).toBeNull();
  });
});

describe("panelsOf", () => {
  it("shows train and validation together, the loss first, and hides standard errors", () => {
    const panels = panelsOf(["val_f1", "train_loss", "val_loss", "val_loss_se", "val_accuracy", "train_accuracy", "train_lr", "layers_grad_norm.body.0"]);
    expect(panels.map((panel) => panel.title)).toEqual(["loss", "accuracy", "f1", "learning rate", "gradient norms of layers"]);
    expect(panels[0]?.names).toEqual(["train_loss", "val_loss"]);
  });
});
