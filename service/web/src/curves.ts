/** What is drawn: smoothing, axes, panels. Pure functions of the series. */

import type { Points } from "./live_series";

export const AXES = ["epoch", "step", "time"] as const;
export type XAxis = (typeof AXES)[number];

export function axisOf(name: string | null): XAxis {
  return AXES.find((axis) => axis === name) ?? "epoch";
}

/** From when to when nothing ran, in seconds since the job's start. */
export type Pause = readonly [number, number];

/**
 * Exponential moving average without the bias of its beginning: m_t = b m_(t-1) + (1-b) x_t, shown m_t / (1 - b^t)
 * (Kingma and Ba 2015). Missing values stay missing and do not count. b = 0 changes nothing.
 */
export function smoothed(values: readonly (number | null)[], b: number): (number | null)[] {
  if (b <= 0) return [...values];
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return null;
    mean = b * mean + (1 - b) * value;
    weight = b * weight + (1 - b);
    return mean / weight;
  });
}

export interface Line {
  name: string;
  x: number[];
  y: (number | null)[];
  /** One standard error, where it is logged. */
  se: (number | null)[] | null;
}

/** The part of an epoch where a step lies, so that several rows of an epoch do not fall upon each other. */
export function epochsOf(points: Points, stepsPerEpoch: number | null): number[] {
  return stepsPerEpoch ? points.step.map((step) => step / stepsPerEpoch) : points.epoch;
}

export function lineOf(
  name: string,
  series: ReadonlyMap<string, Points>,
  axis: XAxis,
  stepsPerEpoch: number | null,
  pauses: readonly Pause[] = [],
): Line | null {
  const points = series.get(name);
  if (!points) return null;
  const x = axis === "step" ? points.step : axis === "time" ? points.elapsed : epochsOf(points, stepsPerEpoch);
  const errors = series.get(`${name}_se`);
  const bySteps = errors && new Map(errors.step.map((step, index) => [step, errors.value[index] ?? null]));
  const line: Line = { name, x, y: points.value, se: bySteps ? points.step.map((step) => bySteps.get(step) ?? null) : null };
  return axis === "time" && pauses.length ? broken(line, pauses) : line;
}

/** Put a missing value into each pause, so that nothing is drawn where nothing ran. */
export function broken(line: Line, pauses: readonly Pause[]): Line {
  const x: number[] = [];
  const y: (number | null)[] = [];
  const se: (number | null)[] = [];
  let next = 0;
  line.x.forEach((at, index) => {
    let gap: Pause | undefined;
    for (let pause = pauses[next]; pause && at >= pause[1]; pause = pauses[++next]) gap = pause;
    if (gap && x.length) {
      x.push((gap[0] + gap[1]) / 2);
      y.push(null);
      se.push(null);
    }
    x.push(at);
    y.push(line.y[index] ?? null);
    se.push(line.se?.[index] ?? null);
  });
  return { name: line.name, x, y, se: line.se && se };
}

/**
 * Join lines with points of their own on one axis, as uPlot takes them: undefined where a line has no point, which the
 * line goes over, and null where its value is missing.
 */
export function aligned(lines: readonly { x: readonly number[]; y: readonly (number | null)[] }[]): (number | null | undefined)[][] {
  const all = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const place = new Map(all.map((x, index) => [x, index]));
  const columns = lines.map((line) => {
    const column: (number | null | undefined)[] = new Array<undefined>(all.length).fill(undefined);
    line.x.forEach((x, index) => (column[place.get(x) as number] = line.y[index] ?? null));
    return column;
  });
  return [all, ...columns];
}

/** Return the steps between which a part of the axis of time lies. */
export function stepsBetween(series: ReadonlyMap<string, Points>, from: number, to: number): [number, number] | null {
  let range: [number, number] | null = null;
  for (const points of series.values()) {
    points.elapsed.forEach((at, index) => {
      if (at < from || at > to) return;
      const step = points.step[index] as number;
      range = range ? [Math.min(range[0], step), Math.max(range[1], step)] : [step, step];
    });
  }
  return range;
}

export interface Panel {
  title: string;
  names: string[];
}

const SPLITS = ["train", "val", "test"];
const HIDDEN = /_(se|rise_se)$/;
const FIRST = ["loss", "accuracy", "r2", "mae", "mse"];

/** Train and validation of one metric together; then rates, norms, units, layers and the machine. */
export function panelsOf(names: readonly string[]): Panel[] {
  const shown = names.filter((name) => !HIDDEN.test(name));
  const metrics = new Map<string, string[]>();
  for (const name of shown) {
    if (!name.startsWith("val_")) continue;
    const metric = name.slice(4);
    metrics.set(
      metric,
      SPLITS.slice(0, 2)
        .map((split) => `${split}_${metric}`)
        .filter((one) => shown.includes(one)),
    );
  }
  if (!metrics.has("loss") && shown.includes("train_loss")) metrics.set("loss", ["train_loss"]);

  const rank = (metric: string) => (FIRST.includes(metric) ? FIRST.indexOf(metric) : FIRST.length);
  const ordered = [...metrics].sort(
    ([a], [b]) => rank(a) - rank(b) || a.localeCompare(b),
  );
  const panels = ordered.map(([metric, lines]) => ({ title: metric.replace(/_/g, " "), names: lines }));
  const rest: [string, (name: string) => boolean][] = [
    ["loss of a batch", (name) => name === "train_batch_loss"],
    ["learning rate", (name) => name === "train_lr"],
    ["norms", (name) => name === "train_grad_norm" || name === "train_weight_norm"],
    ["idle units", (name) => name === "train_dead_units" || name === "train_saturated_units"],
    ["gradient norms of layers", (name) => name.startsWith("layers_grad_norm.")],
    ["memory", (name) => name.startsWith("system_") && name.includes("bytes")],
    ["processor", (name) => name === "system_cpu_percent" || name === "system_gpu_percent"],
    ["samples a second", (name) => name === "train_samples_per_second"],
  ];
  for (const [title, belongs] of rest) {
    const found = shown.filter(belongs);
    if (found.length) panels.push({ title, names: found });
  }
  return panels;
}
