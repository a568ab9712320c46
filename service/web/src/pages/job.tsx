/** One job: live curves with the causes beside them, evaluation, log, timeline, files and spec. */

import { useEffect, useMemo, useState } from "preact/hooks";
import { api, dataOf, getJob, type Job } from "../api/client";
import { asProblem, type Problem } from "../api/problem";
import { Chart, type ChartLine, type Mark } from "../components/chart";
import { Confirm, ConnectionNote, ProblemBox, Progress, StateBadge } from "../components/basics";
import { Diagnosis } from "../components/diagnosis";
import { EvaluationView } from "../components/evaluation";
import { Failure } from "../components/failure";
import { Files, Log, SpecView, Timeline } from "../components/job_details";
import { lineOf, panelsOf, type XAxis } from "../curves";
import { duration, number, secondsBetween, words } from "../format";
import { useLoaded, useNow } from "../hooks";
import { useLiveJob } from "../live_series";
import { address, go, type Route, withQuery } from "../router";

const ENDED = new Set(["succeeded", "stopped", "cancelled", "failed"]);
const TABS: [string, string][] = [
  ["curves", "Curves"],
  ["evaluation", "Evaluation"],
  ["log", "Log"],
  ["timeline", "Timeline"],
  ["files", "Files"],
  ["spec", "Spec"],
];
const SMOOTHINGS = ["0", "0.5", "0.8", "0.9", "0.95"];
export const SPLIT_COLORS: Record<string, string> = { train: "var(--train)", val: "var(--val)", test: "var(--test)" };
const COLORS = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7"].map((name) => `var(${name})`);

export function resolvedColor(color: string): string {
  const name = /^var\((--[\w-]+)\)$/.exec(color)?.[1];
  return name ? getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#888" : color;
}

interface Props {
  id: string;
  route: Route;
  mayWrite: boolean;
}

export function JobPage({ id, route, mayWrite }: Props) {
  const job = useLoaded(id, () => getJob(id), 10);
  const live = useLiveJob(id, job.reload);
  const tab = route.query.get("tab") ?? "curves";
  const found = job.data;
  useEffect(() => {
    document.title = found ? `${found.name || found.id} · trainkit` : "trainkit";
    return () => void (document.title = "trainkit");
  }, [found?.name]);
  if (job.problem && !found) return <ProblemBox problem={job.problem} />;
  if (!found) return <p class="muted">Loading</p>;
  const ended = ENDED.has(found.state);
  return (
    <article>
      <div class="heading">
        <h1>{found.name || found.id}</h1>
        <StateBadge state={found.state} />
        {!ended && <ConnectionNote connection={live.connection} />}
        <Actions job={found} mayWrite={mayWrite} reload={job.reload} />
      </div>
      <Summary job={found} />
      {found.error && <Failure failure={found.error} />}
      {live.problem && <ProblemBox problem={live.problem} />}
      <nav class="tabs" aria-label="Parts of the job">
        {TABS.map(([name, title]) => (
          <a key={name} href={withQuery(route, { tab: name === "curves" ? null : name })} aria-current={tab === name ? "page" : undefined}>
            {title}
          </a>
        ))}
      </nav>
      {tab === "curves" && (
        <div class="split">
          <Curves job={found} live={live} route={route} />
          <Diagnosis job={found} mayWrite={mayWrite} epoch={found.progress?.epoch ?? 0} />
        </div>
      )}
      {tab === "evaluation" && <EvaluationView job={found} />}
      {tab === "log" && <Log lines={live.lines} />}
      {tab === "timeline" && <Timeline id={id} events={live.events} />}
      {tab === "files" && <Files id={id} />}
      {tab === "spec" && <SpecView job={found} />}
    </article>
  );
}

function Summary({ job }: { job: Job }) {
  const now = useNow(!ENDED.has(job.state));
  const { progress, result } = job;
  const tests = Object.entries(result?.test ?? {}).filter(([name]) => ["accuracy", "loss", "r2", "mae", "f1"].includes(name));
  return (
    <dl class="facts">
      {progress && (
        <div class="wide">
          <dt>
            Epoch {progress.epoch} of {progress.epochs}
          </dt>
          <dd>
            <Progress percent={progress.percent} label="Progress" /> {Math.round(progress.percent)} %
            {!ENDED.has(job.state) && progress.eta_seconds !== null && <span class="muted"> {duration(progress.eta_seconds)} left</span>}
          </dd>
        </div>
      )}
      {job.phase && <Fact name="Phase" value={job.phase} />}
      {job.stop_reason && <Fact name="Ended by" value={words(job.stop_reason)} />}
      <Fact name="Time" value={duration(secondsBetween(job.started_at, job.finished_at, now))} />
      {result?.best_epoch != null && <Fact name="Best epoch" value={String(result.best_epoch)} />}
      {tests.map(([name, value]) => (
        <Fact key={name} name={`Test ${name}`} value={number(value)} />
      ))}
      <div>
        <dt>Dataset</dt>
        <dd>
          <a href={address(["datasets", job.dataset.id])}>
            {job.dataset.name}:{job.dataset.version}
          </a>
        </dd>
      </div>
      {result?.model && (
        <div>
          <dt>Model</dt>
          <dd>
            <a href={address(["models", result.model])}>Open</a>
          </dd>
        </div>
      )}
      {job.parent && (
        <div>
          <dt>{words(job.parent.relation)} of</dt>
          <dd>
            <a href={address(["jobs", job.parent.job])}>{job.parent.job}</a>
          </dd>
        </div>
      )}
      {job.runtime && <Fact name="Runs on" value={`${job.runtime.device}, ${job.runtime.precision}`} />}
    </dl>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

type Action = "stop" | "cancel" | "pause" | "resume" | "retry" | "delete" | "fork";
const ACTIONS: Record<Action, { title: string; text: string; danger?: boolean; when: (job: Job) => boolean }> = {
  stop: {
    title: "Stop",
    text: "The job ends after its present step and keeps the best weights as a model.",
    when: (job) => ["running", "starting", "paused"].includes(job.state),
  },
  pause: { title: "Pause", text: "The job writes a checkpoint and frees its slot. It can be resumed.", when: (job) => job.state === "running" },
  resume: { title: "Resume", text: "The job continues from its checkpoint.", when: (job) => job.state === "paused" },
  fork: {
    title: "Fork",
    text: "A new job continues from the last checkpoint of this one, with the same spec.",
    when: (job) => ENDED.has(job.state) && job.state !== "failed",
  },
  retry: { title: "Retry", text: "The job is queued once more.", when: (job) => job.state === "failed" },
  cancel: {
    title: "Cancel",
    text: "The job ends at once and keeps no model.",
    danger: true,
    when: (job) => !ENDED.has(job.state),
  },
  delete: {
    title: "Delete",
    text: "The job goes with its metrics, logs and files. This cannot be undone.",
    danger: true,
    when: (job) => ENDED.has(job.state),
  },
};

async function run(action: Action, id: string): Promise<void> {
  const params = { params: { path: { job_id: id } } };
  if (action === "delete") {
    await api.DELETE("/v1/jobs/{job_id}", params);
    return go(address(["jobs"]));
  }
  if (action === "fork") {
    const forked = dataOf(await api.POST("/v1/jobs/{job_id}/fork", { ...params, body: { patch: {} } }));
    return go(address(["jobs", (forked as Job).id]));
  }
  if (action === "stop") await api.POST("/v1/jobs/{job_id}/stop", { ...params, body: { keep: "best" } });
  else if (action === "pause") await api.POST("/v1/jobs/{job_id}/pause", params);
  else if (action === "resume") await api.POST("/v1/jobs/{job_id}/resume", params);
  else if (action === "retry") await api.POST("/v1/jobs/{job_id}/retry", params);
  else await api.POST("/v1/jobs/{job_id}/cancel", params);
}

function Actions({ job, mayWrite, reload }: { job: Job; mayWrite: boolean; reload: () => void }) {
  const [asked, setAsked] = useState<Action | null>(null);
  if (!mayWrite) return null;
  const possible = (Object.keys(ACTIONS) as Action[]).filter((name) => ACTIONS[name].when(job));
  return (
    <span class="actions">
      {possible.map((name) => (
        <button key={name} class={ACTIONS[name].danger ? "danger" : undefined} onClick={() => setAsked(name)}>
          {ACTIONS[name].title}
        </button>
      ))}
      {asked && (
        <Confirm
          title={`${ACTIONS[asked].title} ${job.name || job.id}?`}
          text={ACTIONS[asked].text}
          action={ACTIONS[asked].title}
          danger={ACTIONS[asked].danger ?? false}
          run={() => run(asked, job.id)}
          onClose={(done) => {
            setAsked(null);
            if (done) reload();
          }}
        />
      )}
    </span>
  );
}

/** Steps of an epoch, from the last row that has both. */
function stepsPerEpoch(job: Job): number | null {
  return job.progress && job.progress.epochs ? job.progress.steps / job.progress.epochs || null : null;
}

function useMarks(job: Job, axis: XAxis, events: number): Mark[] {
  const id = job.id;
  const decisions = useLoaded(`${id} ${job.state} ${Math.floor((job.progress?.epoch ?? 0) / 5)}`, async () =>
    dataOf(await api.GET("/v1/jobs/{job_id}/decisions", { params: { path: { job_id: id }, query: { limit: 500 } } })).data,
  );
  const attempts = useLoaded(`${id} ${events}`, async () =>
    dataOf(await api.GET("/v1/jobs/{job_id}/attempts", { params: { path: { job_id: id } } })).data,
  );
  const perEpoch = stepsPerEpoch(job);
  return useMemo(() => {
    const at = (step: number, epoch: number) => (axis === "step" ? step : perEpoch ? step / perEpoch : epoch);
    const marks: Mark[] = [];
    const best = job.result?.best_epoch;
    if (best != null && perEpoch) marks.push({ x: axis === "step" ? best * perEpoch : best, text: `best epoch ${best}`, color: resolvedColor("var(--good)") });
    for (const decision of decisions.data ?? []) {
      if (decision.action === "continue" || decision.action === "none") continue;
      const text = `${words((decision.rule as { kind: string }).kind)}: ${decision.action}`;
      marks.push({ x: at(decision.step, decision.epoch), text, color: resolvedColor("var(--warn)") });
    }
    for (const attempt of attempts.data ?? []) {
      if (attempt.resumed_from_step == null) continue;
      marks.push({ x: at(attempt.resumed_from_step, 0), text: `attempt ${attempt.attempt} resumed here`, color: resolvedColor("var(--muted)") });
    }
    return marks;
  }, [decisions.data, attempts.data, axis, perEpoch, job.result?.best_epoch]);
}

interface CurvesProps {
  job: Job;
  live: ReturnType<typeof useLiveJob>;
  route: Route;
}

function Curves({ job, live, route }: CurvesProps) {
  const axis: XAxis = route.query.get("x") === "step" ? "step" : "epoch";
  const log = route.query.get("log") === "1";
  const smoothing = Number(route.query.get("smoothing") ?? 0);
  const [range, setRange] = useState<[number, number] | null>(null);
  const marks = useMarks(job, axis, live.events.length);
  const perEpoch = stepsPerEpoch(job);
  const fine = useFineSeries(job.id, live.series, range, axis, perEpoch);
  const names = [...live.series.keys()];
  const panels = useMemo(() => panelsOf(names), [names.join()]);
  const set = (changes: Record<string, string | null>) => go(withQuery(route, changes), { replace: true });
  if (!names.length) return <p class="empty">No metric has been logged yet.</p>;
  return (
    <section aria-label="Curves">
      <div class="controls">
        <label>
          x{" "}
          <select value={axis} onChange={(event) => (setRange(null), set({ x: event.currentTarget.value === "epoch" ? null : "step" }))}>
            <option>epoch</option>
            <option>step</option>
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
        {fine.problem && <ProblemNote problem={fine.problem} />}
      </div>
      <div class="panels">
        {panels.map((panel) => (
          <CurvePanel
            key={panel.title}
            title={panel.title}
            names={panel.names}
            series={fine.series}
            version={live.version}
            axis={axis}
            perEpoch={perEpoch}
            log={log || panel.title.includes("norms")}
            smoothing={smoothing}
            marks={marks}
            range={range}
            setRange={setRange}
            group={job.id}
          />
        ))}
      </div>
    </section>
  );
}

function ProblemNote({ problem }: { problem: Problem }) {
  return <span class="muted">{problem.detail}</span>;
}

interface PanelProps {
  title: string;
  names: string[];
  series: ReturnType<typeof useLiveJob>["series"];
  version: number;
  axis: XAxis;
  perEpoch: number | null;
  log: boolean;
  smoothing: number;
  marks: Mark[];
  range: [number, number] | null;
  setRange: (range: [number, number] | null) => void;
  group: string;
}

function CurvePanel({ title, names, series, version, axis, perEpoch, log, smoothing, marks, range, setRange, group }: PanelProps) {
  const lines = useMemo(() => {
    const found: ChartLine[] = [];
    names.forEach((name, index) => {
      const line = lineOf(name, series, axis, perEpoch);
      if (!line) return;
      const split = name.split("_", 1)[0] as string;
      const color = names.length <= 2 && SPLIT_COLORS[split] && names.some((one) => one.startsWith("val_")) ? SPLIT_COLORS[split] : COLORS[index % COLORS.length];
      found.push({ label: labelOf(name), x: line.x, y: line.y, se: line.se, color: resolvedColor(color as string) });
    });
    return found;
  }, [names, series, version, axis, perEpoch]);
  return <Chart title={title} lines={lines} marks={marks} xLabel={axis} log={log} smoothing={smoothing} group={group} range={range} onZoom={setRange} />;
}

function labelOf(name: string): string {
  return name.replace(/^layers_(grad|weight)_norm\./, "").replace(/^val_/, "validation ").replace(/^train_/, "train ").replace(/^system_/, "").replace(/_/g, " ");
}

/** While zoomed in: the points of that range, finer than the thinned whole. */
function useFineSeries(
  id: string,
  whole: ReturnType<typeof useLiveJob>["series"],
  range: [number, number] | null,
  axis: XAxis,
  perEpoch: number | null,
): { series: ReturnType<typeof useLiveJob>["series"]; problem: Problem | null } {
  const [fine, setFine] = useState<{ key: string; series: ReturnType<typeof useLiveJob>["series"] } | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const scale = axis === "step" ? 1 : perEpoch;
  const steps = range && scale ? range.map((x) => Math.max(0, Math.round(x * scale))) : null;
  const key = steps ? steps.join("-") : "";
  useEffect(() => {
    if (!steps) return;
    let current = true;
    const query = { from_step: steps[0] as number, to_step: steps[1] as number, max_points: 3000 };
    api.GET("/v1/jobs/{job_id}/metrics/series", { params: { path: { job_id: id }, query } }).then(
      (answer) => current && setFine({ key, series: new Map(Object.entries(dataOf(answer).series)) }),
      (error: unknown) => current && setProblem(asProblem(error)),
    );
    return () => void (current = false);
  }, [key, id]);
  return { series: fine && fine.key === key && key ? fine.series : whole, problem: key ? problem : null };
}
