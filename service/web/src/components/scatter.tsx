/** One point a job: any number of its spec or results against any other. */

import { useMemo } from "preact/hooks";
import type { Job } from "../api/client";
import { number, tick } from "../format";
import { address } from "../router";

const WIDTH = 560;
const HEIGHT = 260;
const EDGE = { left: 64, right: 14, top: 12, bottom: 34 };
const LOG_FROM = 50;

/** Return path -> number for everything numeric of a job: best metrics, and fields of its resolved spec. */
export function numbersOf(job: Job): Map<string, number> {
  const found = new Map<string, number>();
  for (const [name, value] of Object.entries(job.metrics.best)) if (typeof value === "number") found.set(name, value);
  const walk = (value: unknown, path: string) => {
    if (typeof value === "number") found.set(path, value);
    else if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      for (const [name, inner] of Object.entries(value)) walk(inner, path ? `${path}.${name}` : name);
    }
  };
  walk(job.resolved ?? job.spec, "");
  return found;
}

interface Props {
  jobs: Job[];
  x: string;
  y: string;
  colors: ReadonlyMap<string, string>;
  onAxes: (x: string, y: string) => void;
}

export function Scatter({ jobs, x, y, colors, onAxes }: Props) {
  const numbers = useMemo(() => jobs.map((job) => ({ job, values: numbersOf(job) })), [jobs]);
  const names = useMemo(() => {
    const all = [...new Set(numbers.flatMap(({ values }) => [...values.keys()]))];
    // what is the same for all says nothing
    return all.filter((name) => new Set(numbers.map(({ values }) => values.get(name))).size > 1).sort();
  }, [numbers]);
  const points = numbers.flatMap(({ job, values }) => {
    const [a, b] = [values.get(x), values.get(y)];
    return a !== undefined && b !== undefined ? [{ job, a, b }] : [];
  });
  const across = scaleOf(points.map((point) => point.a));
  const up = scaleOf(points.map((point) => point.b));
  const px = (value: number) => EDGE.left + across.place(value) * (WIDTH - EDGE.left - EDGE.right);
  const py = (value: number) => HEIGHT - EDGE.bottom - up.place(value) * (HEIGHT - EDGE.top - EDGE.bottom);
  const choice = (label: string, value: string, set: (name: string) => void) => (
    <label>
      {label}{" "}
      <select value={value} onChange={(event) => set(event.currentTarget.value)}>
        {!names.includes(value) && <option>{value}</option>}
        {names.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </label>
  );
  return (
    <figure class="chart">
      <figcaption class="controls">
        {choice("x", x, (name) => onAxes(name, y))} {choice("y", y, (name) => onAxes(x, name))}
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} class="parallel" role="group" aria-label={`Scatter of ${y} against ${x}: ${points.length} jobs`}>
        <line x1={EDGE.left} x2={WIDTH - EDGE.right} y1={HEIGHT - EDGE.bottom} y2={HEIGHT - EDGE.bottom} stroke="var(--muted)" />
        <line x1={EDGE.left} x2={EDGE.left} y1={EDGE.top} y2={HEIGHT - EDGE.bottom} stroke="var(--muted)" />
        {[0, 1].map((end) => (
          <g key={end}>
            <text x={end ? WIDTH - EDGE.right : EDGE.left} y={HEIGHT - EDGE.bottom + 16} text-anchor={end ? "end" : "start"}>
              {across.ends[end]}
            </text>
            <text x={EDGE.left - 6} y={end ? EDGE.top + 8 : HEIGHT - EDGE.bottom} text-anchor="end">
              {up.ends[end]}
            </text>
          </g>
        ))}
        {points.map(({ job, a, b }) => (
          <a key={job.id} href={address(["jobs", job.id])} aria-label={`${job.name || job.id}: ${number(a)}, ${number(b)}`}>
            <circle cx={px(a)} cy={py(b)} r="5" fill={colors.get(job.id) ?? "var(--val)"}>
              <title>{`${job.name || job.id}\n${x} ${number(a)}\n${y} ${number(b)}`}</title>
            </circle>
          </a>
        ))}
      </svg>
    </figure>
  );
}

/** Places from 0 to 1; by logarithm where positive values span more than a factor of 50. */
function scaleOf(values: number[]): { place: (value: number) => number; ends: [string, string] } {
  const finite = values.filter(Number.isFinite);
  if (!finite.length) return { place: () => 0.5, ends: ["", ""] };
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const scale = low > 0 && high / low > LOG_FROM ? Math.log : (value: number) => value;
  const span = scale(high) - scale(low);
  return { place: (value) => (span ? (scale(value) - scale(low)) / span : 0.5), ends: [tick(low), tick(high)] };
}
