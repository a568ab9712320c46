/** The curves of one job: thinned history first, then each new row once. */

import { useEffect, useRef, useState } from "preact/hooks";
import { api, dataOf, type Schemas } from "./api/client";
import { type Connection, follow } from "./api/events";
import { asProblem, type Problem } from "./api/problem";

type MetricRow = Schemas["MetricRow"];
type EventRow = Schemas["JobEvent"];
type LogRow = { seq: number; at: string; level: string; source: string; text: string };

export interface Points {
  seq: number[];
  step: number[];
  epoch: number[];
  value: (number | null)[];
  /** Seconds since the start of the job, pauses included. */
  elapsed: number[];
}

export const MAX_POINTS = 1500;
export const MAX_LINES = 2000;
const MAX_EVENTS = 1000;

const COLUMNS = ["seq", "step", "epoch", "value", "elapsed"] as const;

/** Thin a series by the service's own rule: first and last, and of equal buckets the smallest, the largest, a missing one. */
export function thinned(points: Points, most: number): Points {
  const n = points.seq.length;
  if (n <= most) return points;
  const buckets = Math.floor((most - 2) / 3);
  const kept = new Set([0, n - 1]);
  for (let bucket = 0; bucket < buckets; bucket += 1) {
    const begin = 1 + Math.floor((bucket * (n - 2)) / buckets);
    const end = 1 + Math.floor(((bucket + 1) * (n - 2)) / buckets);
    let least = -1;
    let largest = -1;
    let missing = -1;
    for (let i = begin; i < end; i += 1) {
      const value = points.value[i];
      if (value == null) missing = missing < 0 ? i : missing;
      else {
        if (least < 0 || value < (points.value[least] as number)) least = i;
        if (largest < 0 || value > (points.value[largest] as number)) largest = i;
      }
    }
    for (const place of [least, largest, missing]) if (place >= 0) kept.add(place);
  }
  const places = [...kept].sort((a, b) => a - b);
  const pick = <T>(column: T[]) => places.map((place) => column[place] as T);
  return Object.fromEntries(COLUMNS.map((name) => [name, pick<unknown>(points[name])])) as unknown as Points;
}

/**
 * Append rows that are not known yet; a row of an earlier attempt that was superseded does not count. What runs for days
 * is thinned here as the service thins it, so that the page does not grow: zooming in loads the points between.
 *
 * @param start When the job started, in milliseconds.
 */
export function appended(series: Map<string, Points>, rows: readonly MetricRow[], start: number): boolean {
  let changed = false;
  for (const row of rows) {
    if (row.superseded) continue;
    const name = `${row.split}_${row.name}`;
    let points = series.get(name);
    if (!points) series.set(name, (points = { seq: [], step: [], epoch: [], value: [], elapsed: [] }));
    if (row.seq <= (points.seq.at(-1) ?? 0)) continue;
    points.seq.push(row.seq);
    points.step.push(row.step);
    points.epoch.push(row.epoch);
    points.value.push(row.value);
    points.elapsed.push((Date.parse(row.at) - start) / 1000);
    changed = true;
    if (points.seq.length > 2 * MAX_POINTS) series.set(name, thinned(points, MAX_POINTS));
  }
  return changed;
}

export interface LiveJob {
  series: ReadonlyMap<string, Points>;
  version: number;
  /** When the job started, in milliseconds; the series count from here. */
  start: number;
  events: EventRow[];
  lines: LogRow[];
  connection: Connection;
  problem: Problem | null;
}

const NOTHING: LiveJob = { series: new Map(), version: 0, start: 0, events: [], lines: [], connection: "connecting", problem: null };

/** Follow a job. `onChange` is called at every event of the job: state, attempt, result. */
export function useLiveJob(id: string, onChange: () => void): LiveJob {
  const [state, setState] = useState<LiveJob>(NOTHING);
  const changed = useRef(onChange);
  changed.current = onChange;
  useEffect(() => {
    const abort = new AbortController();
    let series = new Map<string, Points>();
    let start = 0;
    let events: EventRow[] = [];
    let lines: LogRow[] = [];
    let frame = 0;
    /** Rows that came while the history is loaded anew, which may not have them. */
    let meanwhile: MetricRow[] | null = null;
    let attempt: number | null = null;
    const show = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        setState((old) => ({ ...old, series, start, events, lines, version: old.version + 1, problem: null }));
      });
    };
    const history = async (): Promise<number> => {
      const answer = await api.GET("/v1/jobs/{job_id}/metrics/series", {
        params: { path: { job_id: id }, query: { max_points: MAX_POINTS } },
        signal: abort.signal,
      });
      const found = dataOf(answer);
      series = new Map(Object.entries(found.series as Record<string, Points>));
      start = Date.parse(found.start);
      return Math.max(0, ...[...series.values()].map((points) => points.seq.at(-1) ?? 0));
    };
    const reload = async () => {
      if (meanwhile) return;
      meanwhile = [];
      await history().catch(() => undefined);
      appended(series, meanwhile, start);
      meanwhile = null;
      show();
    };
    const take = (rows: MetricRow[]) => {
      const [first] = rows;
      if (!first) return;
      const last = series.get(`${first.split}_${first.name}`)?.step.at(-1) ?? -1;
      // a new attempt takes back the rows beyond its checkpoint, and the first one sets the start: the service knows both
      const anew = attempt === null ? !series.size || first.step < last : first.attempt !== attempt;
      attempt = first.attempt;
      if (anew) void reload();
      meanwhile?.push(...rows);
      if (appended(series, rows, start)) show();
    };
    setState(NOTHING);
    const run = async () => {
      const last = await history();
      show();
      await follow({
        path: `/v1/jobs/${encodeURIComponent(id)}/stream`,
        lastEventId: `${last}.0.0`,
        signal: abort.signal,
        onConnection: (connection) => setState((old) => ({ ...old, connection })),
        onEvent: ({ name, data }) => {
          if (name === "metric") take(data as MetricRow[]);
          else if (name === "log") {
            lines = [...lines.slice(1 - MAX_LINES), data as LogRow];
            show();
          } else if (name === "event") {
            events = [...events.slice(1 - MAX_EVENTS), data as EventRow];
            show();
            changed.current();
          } else if (name === "end") changed.current();
        },
      });
    };
    run().catch((error: unknown) => {
      if (!abort.signal.aborted) setState((old) => ({ ...old, connection: "ended", problem: asProblem(error) }));
    });
    return () => {
      abort.abort();
      cancelAnimationFrame(frame);
    };
  }, [id]);
  return state;
}
