/** Up to 50 jobs beside each other: curves over each other, and only what differs. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api, dataOf, getJob, type Job, type Schemas } from "../api/client";
import { Chart, type ChartLine } from "../components/chart";
import { Empty, ProblemBox, StateBadge } from "../components/basics";
import { ParallelCoordinates } from "../components/parallel_coordinates";
import { Scatter } from "../components/scatter";
import { differences, shown } from "../components/spec_diff";
import { lineOf, type XAxis } from "../curves";
import { number } from "../format";
import { useLoaded } from "../hooks";
import type { Points } from "../live_series";
import { commonName, meanOfRuns } from "../replicates";
import { address, go, type Route, withQuery } from "../router";
import { resolvedColor } from "./job";

const PALETTE = 8;
const REFRESH_SECONDS = 5;
const ENDED = new Set(["succeeded", "stopped", "cancelled", "failed"]);
/** What says nothing about training. */
const NO_DIFFERENCE = /^(name|labels|group)(\.|$)/;

export function ComparePage({ route }: { route: Route }) {
  const ids = (route.query.get("jobs") ?? "").split(",").filter(Boolean);
  const baseline = route.query.get("baseline") ?? ids[0] ?? "";
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  // what has ended does not change: only while one runs is there something to ask again
  const [running, setRunning] = useState(true);
  const known = useRef(new Map<string, Job>());
  const jobs = useLoaded(
    ids.join(),
    async () => {
      const found = await Promise.all(ids.map((id) => known.current.get(id) ?? getJob(id)));
      for (const job of found) if (ENDED.has(job.state)) known.current.set(job.id, job);
      return found;
    },
    running ? REFRESH_SECONDS : undefined,
  );
  const found = jobs.data ?? [];
  useEffect(() => setRunning(!jobs.data || jobs.data.some((job) => !ENDED.has(job.state))), [jobs.data]);
  const metrics = useMemo(() => [...new Set(found.flatMap((job) => Object.keys(job.metrics.best).filter((name) => name.startsWith("val_"))))].sort(), [found]);
  const shownMetrics = route.query.get("metrics")?.split(",") ?? metrics.filter((name) => /_(loss|accuracy|r2)$/.test(name)).slice(0, 2);
  const series = useLoaded(
    ids.length && shownMetrics.length ? `${ids.join()} ${shownMetrics.join()}` : null,
    async () => dataOf(await api.GET("/v1/metrics/series", { params: { query: { jobs: ids.join(","), names: shownMetrics.join(","), max_points: 1000 } } })).jobs,
    running ? REFRESH_SECONDS : undefined,
  );
  // a colour belongs to a place among the compared: hiding a run moves no other's
  const colors = useMemo(() => new Map(ids.map((id, index) => [id, resolvedColor(`var(--c${index % PALETTE})`)])), [ids.join()]);
  const axis: XAxis = route.query.get("x") === "step" ? "step" : "epoch";
  const log = route.query.get("log") === "1";
  const set = (changes: Record<string, string | null>) => go(withQuery(route, changes), { replace: true });
  const grouped = route.query.get("group") === "seeds";
  const groups = useMemo(() => groupsOf(found), [found]);
  const result = route.query.get("sy") ?? metrics.find((name) => /_(accuracy|r2|loss)$/.test(name)) ?? "val_loss";
  const tested = route.query.get("test") ?? result;
  const toggle = (id: string) => {
    const changed = new Set(hidden);
    if (!changed.delete(id)) changed.add(id);
    setHidden(changed);
  };
  if (ids.length < 2) return <Empty>Choose two jobs or more in the list, then Compare.</Empty>;
  return (
    <article>
      <div class="heading">
        <h1>Compare {ids.length} jobs</h1>
        <label>
          x{" "}
          <select value={axis} onChange={(event) => set({ x: event.currentTarget.value })}>
            <option>epoch</option>
            <option>step</option>
          </select>
        </label>
        <label>
          <input type="checkbox" checked={log} onChange={(event) => set({ log: event.currentTarget.checked ? "1" : null })} /> log y
        </label>
        {groups.size > 0 && (
          <label>
            <input type="checkbox" checked={grouped} onChange={(event) => set({ group: event.currentTarget.checked ? "seeds" : null })} /> mean of seeds and folds
          </label>
        )}
        <details class="menu">
          <summary>Metrics</summary>
          <div>
            {metrics.map((name) => (
              <label key={name}>
                <input
                  type="checkbox"
                  checked={shownMetrics.includes(name)}
                  onChange={(event) =>
                    set({ metrics: (event.currentTarget.checked ? [...shownMetrics, name] : shownMetrics.filter((one) => one !== name)).join(",") })
                  }
                />
                {name}
              </label>
            ))}
          </div>
        </details>
      </div>
      {(jobs.problem ?? series.problem) && <ProblemBox problem={(jobs.problem ?? series.problem)!} />}
      <div class="panels">
        {shownMetrics.map((name) => (
          <ComparedCurves
            key={name}
            name={name}
            jobs={(series.data ?? []).filter((job) => !hidden.has(job.id))}
            colors={colors}
            axis={axis}
            log={log}
            groups={grouped ? groups : null}
          />
        ))}
      </div>
      <ResultTable jobs={found} metrics={metrics} baseline={baseline} hidden={hidden} colors={colors} toggle={toggle} pin={(id) => set({ baseline: id })} />
      {found.length > 1 && metrics.length > 0 && (
        <PairedTests jobs={found} groups={groups} metrics={metrics.filter((name) => !name.endsWith("_se"))} metric={tested} baseline={baseline} onMetric={(name) => set({ test: name })} />
      )}
      <SpecTable jobs={found} />
      {found.length > 1 && (
        <div class="panels">
          <Scatter jobs={found} x={route.query.get("sx") ?? "optimizer.lr"} y={result} colors={colors} onAxes={(x, y) => set({ sx: x, sy: y })} />
          <ParametersOf jobs={found} metric={result} />
        </div>
      )}
    </article>
  );
}

interface ComparedProps {
  name: string;
  jobs: Schemas["JobSeries"][];
  colors: ReadonlyMap<string, string>;
  axis: XAxis;
  log: boolean;
  groups: ReadonlyMap<string, string[]> | null;
}

function ComparedCurves({ name, jobs, colors, axis, log, groups }: ComparedProps) {
  const lines = useMemo(() => {
    const found = jobs.flatMap((job) => {
      const line = lineOf(name, new Map(Object.entries(job.series as Record<string, Points>)), axis, null);
      return line ? [{ id: job.id, label: job.name || job.id, x: line.x, y: line.y }] : [];
    });
    const color = (id: string | undefined) => colors.get(id ?? "") ?? "#888";
    if (!groups) return found.map((line): ChartLine => ({ ...line, color: color(line.id) }));
    return [...groups].flatMap(([label, ids], index): ChartLine[] => {
      const runs = found.filter((line) => ids.includes(line.id));
      if (runs.length < 2) return runs.map((line) => ({ ...line, color: color(line.id) }));
      const mean = meanOfRuns(runs);
      return [{ label: `${shortened(label)} (mean of ${runs.length})`, x: mean.x, y: mean.y, se: mean.se, color: resolvedColor(`var(--c${index % PALETTE})`) }];
    });
  }, [jobs, name, axis, colors, groups]);
  return <Chart title={name.replace(/^val_/, "validation ").replace(/_/g, " ")} lines={lines} xLabel={axis} log={log} group="compare" legend={groups !== null} />;
}

interface ResultProps {
  jobs: Job[];
  metrics: string[];
  baseline: string;
  hidden: ReadonlySet<string>;
  colors: ReadonlyMap<string, string>;
  toggle: (id: string) => void;
  pin: (id: string) => void;
}

function ResultTable({ jobs, metrics, baseline, hidden, colors, toggle, pin }: ResultProps) {
  const base = jobs.find((job) => job.id === baseline);
  return (
    <div class="scroll">
      <table class="plain">
        <caption>Best values; differences from the baseline</caption>
        <thead>
          <tr>
            <th>Shown</th>
            <th>Job</th>
            <th>State</th>
            {metrics.map((name) => (
              <th key={name} class="num">
                {name}
              </th>
            ))}
            <th>Baseline</th>
          </tr>
        </thead>
        <tbody>
          {jobs.map((job) => (
            <tr key={job.id} class={job.id === baseline ? "selected" : undefined}>
              <td>
                <label class="swatch">
                  <input type="checkbox" checked={!hidden.has(job.id)} aria-label={`Show ${job.name}`} onChange={() => toggle(job.id)} />
                  <i ref={(mark) => mark?.style.setProperty("background", colors.get(job.id) ?? "")} />
                </label>
              </td>
              <td>
                <a href={address(["jobs", job.id])}>{job.name || job.id}</a>
              </td>
              <td>
                <StateBadge state={job.state} />
              </td>
              {metrics.map((name) => {
                const value = job.metrics.best[name];
                const from = base?.metrics.best[name];
                const delta = value != null && from != null && job.id !== baseline ? Number((value - from).toFixed(12)) : null;
                return (
                  <td key={name} class="num">
                    {number(value)}
                    {delta !== null && <small class="muted"> {delta > 0 ? "+" : ""}{number(delta)}</small>}
                  </td>
                );
              })}
              <td>
                <input type="radio" name="baseline" aria-label={`Baseline ${job.name}`} checked={job.id === baseline} onChange={() => pin(job.id)} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

type Replicates = Schemas["Replicates"];
const VERDICTS = { better: "better", worse: "worse", cannot_tell: "no difference shown" };

interface PairedProps {
  jobs: Job[];
  groups: ReadonlyMap<string, string[]>;
  metrics: string[];
  metric: string;
  baseline: string;
  onMetric: (name: string) => void;
}

/** Means over seeds and folds, and a paired test of each group against that of the baseline, as the service computes them. */
function PairedTests({ jobs, groups, metrics, metric, baseline, onMetric }: PairedProps) {
  const stamp = jobs.map((job) => `${job.id}${ENDED.has(job.state) ? "" : job.state}`).join();
  const found = useLoaded(groups.size ? `${stamp} ${metric} ${baseline}` : null, async () =>
    dataOf(await api.GET("/v1/metrics/comparison", { params: { query: { jobs: jobs.map((job) => job.id).join(","), metric, baseline } } })),
  );
  if (!groups.size) {
    return (
      <p class="muted">
        No paired test: no two of these jobs repeat each other. Train each spec with the same three seeds or folds, or more, and compare all of them.
      </p>
    );
  }
  const labels = new Map([...groups].map(([label, ids]) => [ids[0], label]));
  const label = (group: Replicates) => labels.get(group.jobs[0] ?? "") ?? group.name;
  return (
    <section class="scroll">
      <h2>
        Groups of seeds and folds{" "}
        <select aria-label="Metric of the test" value={metric} onChange={(event) => onMetric(event.currentTarget.value)}>
          {[...new Set([...metrics, metric])].map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </h2>
      {found.problem && <ProblemBox problem={found.problem} />}
      {found.data && (
        <table class="plain">
          <caption>Means with 95 % intervals, and Student's paired test against the baseline</caption>
          <thead>
            <tr>
              <th>Group</th>
              <th class="num">Runs</th>
              <th class="num">Mean</th>
              <th class="num">Interval</th>
              <th class="num">Pairs</th>
              <th class="num">Difference</th>
              <th class="num">Interval</th>
              <th class="num">p</th>
              <th>Result</th>
            </tr>
          </thead>
          <tbody>
            {found.data.groups.map((group) => (
              <GroupTest key={group.key} group={group} label={label(group)} isBaseline={group.key === found.data?.baseline} />
            ))}
          </tbody>
        </table>
      )}
      <p class="muted">
        p is corrected for the number of groups (Holm), and for training data that folds share (Nadeau and Bengio). Values are of the weights that each job kept.
      </p>
    </section>
  );
}

function GroupTest({ group, label, isBaseline }: { group: Replicates; label: string; isBaseline: boolean }) {
  const test = group.comparison;
  return (
    <tr class={isBaseline ? "selected" : undefined}>
      <th scope="row">{label}</th>
      <td class="num">{group.n}</td>
      <td class="num">{number(group.mean)}</td>
      <td class="num">{group.low === null ? "–" : `${number(group.low)} to ${number(group.high)}`}</td>
      {test ? (
        <>
          <td class="num">{test.n}</td>
          <td class="num">
            {(test.difference ?? 0) > 0 && "+"}
            {number(test.difference)}
          </td>
          <td class="num">{test.low === null ? "–" : `${number(test.low)} to ${number(test.high)}`}</td>
          <td class="num">{group.p_adjusted === null ? "–" : group.p_adjusted < 0.001 ? "< 0.001" : number(group.p_adjusted)}</td>
          <td title={test.summary}>
            {test.p === null ? test.summary : VERDICTS[(group.p_adjusted ?? 1) < 1 - group.confidence ? test.verdict : "cannot_tell"]}
          </td>
        </>
      ) : (
        <td colSpan={5} class="muted">
          {isBaseline ? "baseline" : group.not_compared}
        </td>
      )}
    </tr>
  );
}

const MOST_AXES = 8;

/** What differs between the jobs, and what came of it. */
function ParametersOf({ jobs, metric }: { jobs: Job[]; metric: string }) {
  const fields = useMemo(() => differingFields(jobs).slice(0, MOST_AXES), [jobs]);
  const trials = useMemo(
    () =>
      jobs.map((job, index) => ({
        number: index,
        name: job.name || job.id,
        params: Object.fromEntries(fields.map(([path, values]) => [path, values[index] ?? null])),
        value: job.metrics.best[metric] ?? null,
      })),
    [jobs, fields, metric],
  );
  if (!fields.length) return null;
  return <ParallelCoordinates trials={trials} params={fields.map(([path]) => path)} metric={metric} direction={/_(loss|mse|mae)$/.test(metric) ? "min" : "max"} />;
}

function SpecTable({ jobs }: { jobs: Job[] }) {
  const rows = useMemo(() => differingFields(jobs), [jobs]);
  return (
    <div class="scroll">
      <table class="plain">
        <caption>Fields of the specs that differ</caption>
        <thead>
          <tr>
            <th>Field</th>
            {jobs.map((job) => (
              <th key={job.id}>{job.name || job.id}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(([path, values]) => (
            <tr key={path}>
              <th scope="row">{path}</th>
              {values.map((value, index) => (
                <td key={index}>{shown(value)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {!rows.length && <p class="muted">The specs are the same.</p>}
    </div>
  );
}

/** Return [path, the value of each job] for what differs between any two of the resolved specs. */
export function differingFields(jobs: Job[]): [string, unknown[]][] {
  const specs = jobs.map((job) => job.resolved ?? job.spec);
  const paths = new Set<string>();
  for (const spec of specs.slice(1)) for (const one of differences(specs[0], spec)) paths.add(one.path);
  const valueAt = (spec: unknown, path: string) =>
    path.split(".").reduce<unknown>((value, name) => (typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined), spec);
  return [...paths].filter((path) => !NO_DIFFERENCE.test(path)).sort().map((path) => [path, specs.map((spec) => valueAt(spec, path))]);
}

const LONGEST_LABEL = 48;

function shortened(label: string): string {
  return label.length > LONGEST_LABEL ? `${label.slice(0, LONGEST_LABEL)}…` : label;
}

/** Return label -> ids of jobs whose specs differ in seeds and folds alone; empty where no two are. */
export function groupsOf(jobs: Job[]): ReadonlyMap<string, string[]> {
  const members = new Map<string, Job[]>();
  for (const job of jobs) members.set(job.replicate_key, [...(members.get(job.replicate_key) ?? []), job]);
  if (members.size === jobs.length) return new Map();
  const representatives = [...members.values()].map((found) => found[0] as Job);
  const fields = differingFields(representatives).filter(([path]) => !DRAWN.test(path));
  const labels = representatives.map((_, index) =>
    fields.filter(([, values]) => values[index] != null).map(([path, values]) => `${path.split(".").at(-1)}=${shown(values[index])}`).join(", "),
  );
  return new Map(
    [...members.values()].map((found, index) => {
      const label = labels[index] || commonName(found.map((job) => job.name || job.id));
      return [labels.indexOf(labels[index] as string) === index ? label : `${label} (${found[0]?.id})`, found.map((job) => job.id)];
    }),
  );
}

/** What differs between repetitions of one run. */
const DRAWN = /^(train\.seed|split\.(seed|fold|resample_seed))$/;
