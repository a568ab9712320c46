/** Runs that repeat each other: one spec but for seeds and folds. Their mean, and how far they scatter. */

import type { JobRow } from "./live_jobs";

export interface Run {
  x: readonly number[];
  y: readonly (number | null)[];
}

export interface MeanLine {
  x: number[];
  y: number[];
  /** Standard error of the mean: s / sqrt(n), s with n - 1. */
  se: number[];
  /** Standard deviation over runs, n - 1. */
  sd: number[];
  runs: number;
}

const MOST_PLACES = 1500;

/**
 * Return the mean over runs at each x that at least half of them cover, and two at least. Where a run has ended early the
 * mean is over those that go on. Between its points a run is a straight line: thinned runs have few points in common.
 */
export function meanOfRuns(runs: readonly Run[], mostPlaces = MOST_PLACES): MeanLine {
  const finite = runs.map(({ x, y }) => x.flatMap((at, index) => (Number.isFinite(y[index] ?? NaN) ? [[at, y[index] as number] as const] : [])));
  let places = [...new Set(finite.flatMap((points) => points.map(([x]) => x)))].sort((a, b) => a - b);
  if (places.length > mostPlaces) {
    const step = (places.length - 1) / (mostPlaces - 1);
    places = Array.from({ length: mostPlaces }, (_, index) => places[Math.round(index * step)] as number);
  }
  const at = finite.map(() => 0);
  const least = Math.max(2, runs.length / 2);
  const mean: MeanLine = { x: [], y: [], se: [], sd: [], runs: runs.length };
  for (const place of places) {
    const values = finite.flatMap((points, run) => {
      while (at[run]! < points.length - 1 && (points[at[run]! + 1] as readonly [number, number])[0] <= place) at[run]! += 1;
      return valueAt(points, at[run] as number, place);
    });
    if (values.length < least) continue;
    const { mean: middle, sd } = moments(values);
    mean.x.push(place);
    mean.y.push(middle);
    mean.sd.push(sd as number);
    mean.se.push((sd as number) / Math.sqrt(values.length));
  }
  return mean;
}

function valueAt(points: readonly (readonly [number, number])[], index: number, place: number): number[] {
  const [here, next] = [points[index], points[index + 1]];
  if (!here || place < here[0]) return [];
  if (here[0] === place) return [here[1]];
  return next ? [here[1] + ((next[1] - here[1]) * (place - here[0])) / (next[0] - here[0])] : [];
}

/** Mean and standard deviation (n - 1); the latter null for a single value. */
export function moments(values: readonly number[]): { mean: number; sd: number | null; n: number } {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const sd = n > 1 ? Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1)) : null;
  return { mean, sd, n };
}

/** What names begin with, without the number of a fold or seed: `cv` of `cv: fold 1` and `cv: fold 2`. */
export function commonName(names: readonly string[]): string {
  const [first = "", last = ""] = [[...names].sort()[0], [...names].sort().at(-1)];
  if (first === last) return first;
  let end = 0;
  while (end < first.length && first[end] === last[end]) end += 1;
  return first.slice(0, end).replace(/[\W_]*(?:fold|seed|draw|run)?[\W_]*\d*$/, "") || first;
}

/** A row of the list that stands for several jobs; its metrics are means. */
export interface GroupRow extends JobRow {
  members: JobRow[];
}

export function isGroup(row: JobRow): row is GroupRow {
  return "members" in row;
}

/** Put jobs with the same key into one row; a job without others stays as it is. */
export function groupedRows(rows: Iterable<JobRow>): JobRow[] {
  const groups = new Map<string, JobRow[]>();
  for (const row of rows) {
    const key = row.replicate_key ?? row.id;
    const found = groups.get(key);
    if (found) found.push(row);
    else groups.set(key, [row]);
  }
  return [...groups].map(([key, members]) => (members.length > 1 ? groupRow(key, members) : (members[0] as JobRow)));
}

function groupRow(key: string, members: JobRow[]): GroupRow {
  const newest = members.reduce((a, b) => (a.created_at > b.created_at ? a : b));
  return {
    ...newest,
    id: key,
    name: commonName(members.map((one) => one.name)),
    members,
    metrics: { best: meansOf(members, "best"), last: meansOf(members, "last") },
  };
}

function meansOf(members: readonly JobRow[], which: "best" | "last"): Record<string, number | null> {
  const names = new Set(members.flatMap((one) => Object.keys(one.metrics?.[which] ?? {})));
  return Object.fromEntries(
    [...names].map((name) => {
      const values = valuesOf(members, which, name);
      return [name, values.length ? moments(values).mean : null];
    }),
  );
}

export function valuesOf(members: readonly JobRow[], which: "best" | "last", name: string): number[] {
  return members.flatMap((one) => {
    const value = one.metrics?.[which]?.[name];
    return typeof value === "number" && Number.isFinite(value) ? [value] : [];
  });
}

/** How many members are in each state, those under way first: a group of which one still runs has not ended. */
export function statesOf(members: readonly JobRow[]): [string, number][] {
  const order = ["running", "starting", "stopping", "pausing", "queued", "paused", "failed", "cancelled", "stopped", "succeeded"];
  const counts = new Map<string, number>();
  for (const { state } of members) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => order.indexOf(a) - order.indexOf(b));
}
