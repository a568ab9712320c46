/** One axis for each parameter and one for the result; a line is a trial or a job, the stronger the better its result. */

import { useMemo } from "preact/hooks";
import { tick } from "../format";
import { shown } from "./spec_diff";

/** A trial of an experiment, or a job among those compared. */
export interface Trial {
  number: number;
  params: Record<string, unknown>;
  value: number | null;
  name?: string;
}
const WIDTH = 560;
const HEIGHT = 240;
const TOP = 26;
const SIDE = 50;
const LOG_FROM = 50;

export interface Axis {
  name: string;
  /** Place of a value from 0 (bottom) to 1 (top); null where it has none. */
  place: (value: unknown) => number | null;
  low: string;
  high: string;
}

/** Numbers by value, over more than a factor of 50 by their logarithm; anything else by order of appearance. */
export function axisOf(name: string, values: readonly unknown[]): Axis {
  const known = values.filter((value) => value !== null && value !== undefined);
  const numbers = known.filter((value): value is number => typeof value === "number" && Number.isFinite(value));
  if (numbers.length === known.length && numbers.length > 0) {
    const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
    const scale = low > 0 && high / low > LOG_FROM ? Math.log : (value: number) => value;
    const span = scale(high) - scale(low);
    const place = (value: unknown) => (typeof value !== "number" || !Number.isFinite(value) ? null : span ? (scale(value) - scale(low)) / span : 0.5);
    return { name, place, low: tick(low), high: tick(high) };
  }
  const order = [...new Set(known.map(shown))];
  const place = (value: unknown) => {
    const at = value === null || value === undefined ? -1 : order.indexOf(shown(value));
    return at < 0 ? null : order.length > 1 ? at / (order.length - 1) : 0.5;
  };
  return { name, place, low: order[0] ?? "", high: order.at(-1) ?? "" };
}

interface Props {
  trials: readonly Trial[];
  params: readonly string[];
  metric: string;
  direction: string | null;
}

export function ParallelCoordinates({ trials, params, metric, direction }: Props) {
  const done = useMemo(() => trials.filter((trial) => trial.value !== null && Number.isFinite(trial.value)), [trials]);
  const axes = useMemo(
    () => [
      ...params.map((name) => axisOf(name, done.map((trial) => trial.params[name]))),
      axisOf(metric, done.map((trial) => trial.value)),
    ],
    [done, params, metric],
  );
  const x = (index: number) => SIDE + (index * (WIDTH - 2 * SIDE)) / Math.max(1, axes.length - 1);
  const y = (place: number) => TOP + (1 - place) * (HEIGHT - 2 * TOP);
  const last = axes.at(-1) as Axis;
  const goodness = (trial: Trial) => {
    const place = last.place(trial.value) ?? 0;
    return direction === "min" ? 1 - place : place;
  };
  const ordered = [...done].sort((a, b) => goodness(a) - goodness(b)); // the best are drawn last, above the others
  return (
    <figure class="chart">
      <figcaption>Parameters and {metric}</figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} class="parallel" role="img" aria-label={`Parallel coordinates of ${done.length} ${done[0]?.name === undefined ? "trials" : "jobs"}`}>
        {ordered.map((trial) => {
          const places = axes.map((axis, index) => axis.place(index === axes.length - 1 ? trial.value : trial.params[axis.name]));
          const points = places.flatMap((place, index) => (place === null ? [] : [`${x(index).toFixed(1)},${y(place).toFixed(1)}`]));
          return (
            <polyline key={trial.number} points={points.join(" ")} fill="none" stroke="var(--val)" stroke-width="1.5" stroke-opacity={(0.12 + 0.88 * goodness(trial) ** 2).toFixed(2)}>
              <title>{`${trial.name ?? `trial ${trial.number}`}: ${tick(trial.value)}`}</title>
            </polyline>
          );
        })}
        {axes.map((axis, index) => (
          <g key={`${axis.name} ${index}`}>
            <line x1={x(index)} x2={x(index)} y1={TOP} y2={HEIGHT - TOP} stroke="var(--muted)" />
            <text x={x(index)} y={12} text-anchor="middle">
              {axis.name.split(".").at(-1)}
            </text>
            <text x={x(index) + (index === axes.length - 1 ? -4 : 4)} y={TOP + 10} text-anchor={index === axes.length - 1 ? "end" : "start"} class="muted">
              {axis.high}
            </text>
            <text x={x(index) + (index === axes.length - 1 ? -4 : 4)} y={HEIGHT - TOP - 2} text-anchor={index === axes.length - 1 ? "end" : "start"} class="muted">
              {axis.low}
            </text>
          </g>
        ))}
      </svg>
    </figure>
  );
}
