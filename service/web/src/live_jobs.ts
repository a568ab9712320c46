/** The list of jobs, kept up to date by one stream for the whole list. */

import { useEffect, useState } from "preact/hooks";
import type { Schemas } from "./api/client";
import { type Connection, follow, type StreamEvent } from "./api/events";
import { asProblem, type Problem } from "./api/problem";

/** What the table asks for: a row of the list, with the time left and the time of its start. */
export type JobRow = Omit<Schemas["JobRow"], "progress" | "metrics"> & {
  metrics?: { best?: Record<string, number | null>; last?: Record<string, number | null> } | null;
  progress?: { percent?: number | null; eta_seconds?: number | null } | null;
  started_at?: string | null;
  replicate_key?: string;
};
export const LONGEST_LIST = 1000;

/** Apply one event of the stream. `sync` names all that are in the list, `jobs` what is new or changed, `left` what went. */
export function applied(rows: ReadonlyMap<string, JobRow>, event: StreamEvent): ReadonlyMap<string, JobRow> {
  if (event.name === "sync") {
    const { ids } = event.data as { ids: string[] };
    const kept = new Set(ids);
    return new Map([...rows].filter(([id]) => kept.has(id)));
  }
  if (event.name === "jobs") {
    const changed = new Map(rows);
    for (const row of event.data as JobRow[]) changed.set(row.id, row);
    return changed;
  }
  if (event.name === "left") {
    const changed = new Map(rows);
    const data = event.data as { ids: string[] } | string[];
    for (const id of Array.isArray(data) ? data : data.ids) changed.delete(id);
    return changed;
  }
  return rows;
}

export interface LiveJobs {
  rows: ReadonlyMap<string, JobRow>;
  connection: Connection;
  problem: Problem | null;
}

/** Follow the jobs that match a query of `GET /v1/jobs`. */
export function useLiveJobs(query: string): LiveJobs {
  const [state, setState] = useState<LiveJobs>({ rows: new Map(), connection: "connecting", problem: null });
  useEffect(() => {
    const abort = new AbortController();
    let rows: ReadonlyMap<string, JobRow> = new Map();
    let frame = 0;
    // many events of a moment are one change of the page
    const show = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        setState((old) => ({ ...old, rows, problem: null }));
      });
    };
    setState({ rows, connection: "connecting", problem: null });
    follow({
      path: `/v1/jobs/stream?${query}`,
      signal: abort.signal,
      onConnection: (connection) => setState((old) => ({ ...old, connection })),
      onEvent: (event) => {
        rows = applied(rows, event);
        show();
      },
    }).catch((error: unknown) => setState((old) => ({ ...old, connection: "ended", problem: asProblem(error) })));
    return () => {
      abort.abort();
      cancelAnimationFrame(frame);
    };
  }, [query]);
  return state;
}
