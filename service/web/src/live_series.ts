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
}

export const MAX_POINTS = 1500;
export const MAX_LINES = 2000;

/** Append rows that are not known yet; a row of an earlier attempt that was superseded does not count. */
export function appended(series: Map<string, Points>, rows: readonly MetricRow[]): boolean {
  let changed = false;
  for (const row of rows) {
    if (row.superseded) continue;
    const name = `${row.split}_${row.name}`;
    let points = series.get(name);
    if (!points) series.set(name, (points = { seq: [], step: [], epoch: [], value: [] }));
    if (row.seq <= (points.seq.at(-1) ?? 0)) continue;
    points.seq.push(row.seq);
    points.step.push(row.step);
    points.epoch.push(row.epoch);
    points.value.push(row.value);
    changed = true;
  }
  return changed;
}

export interface LiveJob {
  series: ReadonlyMap<string, Points>;
  version: number;
  events: EventRow[];
  lines: LogRow[];
  connection: Connection;
  problem: Problem | null;
}

const NOTHING: LiveJob = { series: new Map(), version: 0, events: [], lines: [], connection: "connecting", problem: null };

/** Follow a job. `onChange` is called at every event of the job: state, attempt, result. */
export function useLiveJob(id: string, onChange: () => void): LiveJob {
  const [state, setState] = useState<LiveJob>(NOTHING);
  const changed = useRef(onChange);
  changed.current = onChange;
  useEffect(() => {
    const abort = new AbortController();
    let series = new Map<string, Points>();
    let events: EventRow[] = [];
    let lines: LogRow[] = [];
    let frame = 0;
    const show = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        setState((old) => ({ ...old, series, events, lines, version: old.version + 1, problem: null }));
      });
    };
    const history = async (): Promise<number> => {
      const answer = await api.GET("/v1/jobs/{job_id}/metrics/series", {
        params: { path: { job_id: id }, query: { max_points: MAX_POINTS } },
        signal: abort.signal,
      });
      series = new Map(Object.entries(dataOf(answer).series as Record<string, Points>));
      return Math.max(0, ...[...series.values()].map((points) => points.seq.at(-1) ?? 0));
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
          if (name === "metric") appended(series, Array.isArray(data) ? data : [data as MetricRow]) && show();
          else if (name === "log") {
            lines = [...lines.slice(1 - MAX_LINES), data as LogRow];
            show();
          } else if (name === "event") {
            const event = data as EventRow;
            events = [...events, event];
            show();
            changed.current();
            // a resume takes back the rows beyond its checkpoint: only the service knows which
            if (event.to === "running" && series.size) void history().then(show, () => undefined);
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
