/** The curves of a job, live, with what happened to it marked on them. */

import { useEffect, useMemo, useState } from "preact/hooks";
import { api, dataOf, type Job } from "../api/client";
import { asProblem, type Problem } from "../api/problem";
import { AXES, axisOf, lineOf, type Panel, panelsOf, type Pause, stepsBetween, type XAxis } from "../curves";
import { useLoaded } from "../hooks";
import type { LiveJob } from "../live_series";
import { type Axis, type History, type Mark, type MarkKind, marksOf, pausesOf } from "../marks";
import { go, type Route, withQuery } from "../router";
import { Chart, type ChartLine, type ChartMark } from "./chart";

const SMOOTHINGS = ["0", "0.5", "0.8", "0.9", "0.95"];
const SPLIT_COLORS: Record<string, string> = { train: "var(--train)", val: "var(--val)", test: "var(--test)" };
const COLORS = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7"].map((name) => `var(${name})`);
const MARK_COLORS: Record<MarkKind, string> = { best: "var(--good)", rule: "var(--warn)", rate: "var(--c3)", break: "var(--bad)", resume: "var(--accent)" };
const FINE_POINTS = 3000;
const NO_HISTORY: History = { decisions: [], attempts: [] };
const NO_PAUSES: Pause[] = [];

type Series = LiveJob["series"];
type Range = [number, number];

/** Steps of an epoch, as the progress has both. */
function stepsPerEpoch(job: Job): number | null {
  return job.progress && job.progress.epochs ? job.progress.steps / job.progress.epochs || null : null;
}

/** Attempts and what rules decided: asked again when an event of the job comes. */
function useHistory(id: string, state: string, events: number): History {
  const path = { job_id: id };
  const found = useLoaded(`${id} ${state} ${events}`, async () => {
    const [decisions, attempts] = await Promise.all([
      api.GET("/v1/jobs/{job_id}/decisions", { params: { path, query: { limit: 100, action: "stop" } } }),
      api.GET("/v1/jobs/{job_id}/attempts", { params: { path } }),
    ]);
    return { decisions: dataOf(decisions).data, attempts: dataOf(attempts).data };
  });
  const [kept, keep] = useState(NO_HISTORY);
  useEffect(() => void (found.data && keep(found.data)), [found.data]);
  return kept;
}

interface CurvesProps {
  job: Job;
  live: LiveJob;
  route: Route;
}

export function Curves({ job, live, route }: CurvesProps) {
  const x = axisOf(route.query.get("x"));
  const log = route.query.get("log") === "1";
  const smoothing = Number(route.query.get("smoothing") ?? 0);
  const [range, setRange] = useState<Range | null>(null);
  const perEpoch = stepsPerEpoch(job);
  const axis: Axis = { name: x, stepsPerEpoch: perEpoch, start: live.start };
  const history = useHistory(job.id, job.state, live.events.length);
  const pauses = useMemo(() => (x === "time" ? pausesOf(history.attempts, live.start) : NO_PAUSES), [history, live.start, x]);
  const fine = useFineSeries(job.id, live.series, range, axis);
  const marks = useMarks(job, live, history, axis);
  const names = [...live.series.keys()];
  const panels = useMemo(() => panelsOf(names), [names.join()]);
  const set = (changes: Record<string, string | null>) => go(withQuery(route, changes), { replace: true });
  if (!names.length) return <p class="empty">No metric has been logged yet.</p>;
  return (
    <section aria-label="Curves">
      <div class="controls">
        <label>
          x{" "}
          <select aria-label="x axis" value={x} onChange={(event) => (setRange(null), set({ x: event.currentTarget.value === "epoch" ? null : event.currentTarget.value }))}>
            {AXES.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <label>
          Smoothing{" "}
          <select value={String(smoothing)} onChange={(event) => set({ smoothing: event.currentTarget.value === "0" ? null : event.currentTarget.value })}>
            {SMOOTHINGS.map((value) => (
              <option key={value}>{value}</option>
            ))}
          </select>
        </label>
        <label>
          <input type="checkbox" checked={log} onChange={(event) => set({ log: event.currentTarget.checked ? "1" : null })} /> log y
        </label>
        {range && <button onClick={() => setRange(null)}>Whole range</button>}
        {fine.problem && <span class="muted">{fine.problem.detail}</span>}
      </div>
      <MarkList marks={marks} />
      <div class="panels">
        {panels.map((panel) => (
          <CurvePanel
            key={panel.title}
            panel={panel}
            series={fine.series}
            version={live.version}
            axis={x}
            perEpoch={perEpoch}
            log={log || panel.title.includes("norms")}
            smoothing={smoothing}
            marks={marks}
            pauses={pauses}
            range={range}
            setRange={setRange}
            group={job.id}
          />
        ))}
      </div>
    </section>
  );
}

/** The marks change with every row of the log, and are the same most of the time. */
function useMarks(job: Job, live: LiveJob, history: History, axis: Axis): Mark[] {
  const found = marksOf(job, live.series, history, axis);
  const key = JSON.stringify(found);
  return useMemo(() => found, [key]);
}

function MarkList({ marks }: { marks: Mark[] }) {
  if (!marks.length) return null;
  return (
    <ol class="marks" aria-label="Marks on the curves">
      {marks.map((mark, index) => (
        <li key={`${index} ${mark.text}`} class={`mark-${mark.kind}`}>
          <b>{index + 1}</b> {mark.text}
        </li>
      ))}
    </ol>
  );
}

interface PanelProps {
  panel: Panel;
  series: Series;
  version: number;
  axis: XAxis;
  perEpoch: number | null;
  log: boolean;
  smoothing: number;
  marks: Mark[];
  pauses: Pause[];
  range: Range | null;
  setRange: (range: Range | null) => void;
  group: string;
}

function CurvePanel({ panel, series, version, axis, perEpoch, log, smoothing, marks, pauses, range, setRange, group }: PanelProps) {
  const { title, names } = panel;
  const lines = useMemo(() => {
    const found: ChartLine[] = [];
    names.forEach((name, index) => {
      const line = lineOf(name, series, axis, perEpoch, pauses);
      if (!line) return;
      const split = name.split("_", 1)[0] as string;
      const color = names.length <= 2 && SPLIT_COLORS[split] && names.some((one) => one.startsWith("val_")) ? SPLIT_COLORS[split] : COLORS[index % COLORS.length];
      found.push({ label: labelOf(name), x: line.x, y: line.y, se: line.se, color: color as string });
    });
    return found;
  }, [names, series, version, axis, perEpoch, pauses]);
  const drawn = useMemo(() => marks.map((mark, index): ChartMark => ({ x: mark.x, label: String(index + 1), color: MARK_COLORS[mark.kind] })), [marks]);
  return (
    <Chart title={title} lines={lines} marks={drawn} shades={pauses} xLabel={axis} log={log} smoothing={smoothing} group={group} range={range} onZoom={setRange} />
  );
}

function labelOf(name: string): string {
  return name.replace(/^layers_(grad|weight)_norm\./, "").replace(/^val_/, "validation ").replace(/^train_/, "train ").replace(/^system_/, "").replace(/_/g, " ");
}

/** While zoomed in: the points of that range, finer than the thinned whole. */
function useFineSeries(id: string, whole: Series, range: Range | null, axis: Axis): { series: Series; problem: Problem | null } {
  const [fine, setFine] = useState<{ key: string; series: Series } | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const steps = useMemo(() => {
    if (!range) return null;
    if (axis.name === "time") return stepsBetween(whole, ...range);
    const scale = axis.name === "step" ? 1 : axis.stepsPerEpoch;
    return scale ? (range.map((x) => Math.max(0, Math.round(x * scale))) as Range) : null;
  }, [range, axis.name, axis.stepsPerEpoch]);
  const key = steps ? `${id} ${steps.join("-")}` : "";
  useEffect(() => {
    if (!steps) return;
    let current = true;
    const query = { from_step: steps[0], to_step: steps[1], max_points: FINE_POINTS };
    api.GET("/v1/jobs/{job_id}/metrics/series", { params: { path: { job_id: id }, query } }).then(
      (answer) => current && (setFine({ key, series: new Map(Object.entries(dataOf(answer).series)) }), setProblem(null)),
      (error: unknown) => current && setProblem(asProblem(error)),
    );
    return () => void (current = false);
  }, [key]);
  return { series: fine && fine.key === key && key ? fine.series : whole, problem: key ? problem : null };
}
