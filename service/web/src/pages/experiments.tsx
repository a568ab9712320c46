/** Experiments: trials as they come, the best so far, what each parameter did, and what may be concluded. */

import { useMemo, useState } from "preact/hooks";
import { api, dataOf, fetchBlob, type Schemas } from "../api/client";
import { asProblem, type Problem } from "../api/problem";
import { Confirm, Empty, ProblemBox, StateBadge } from "../components/basics";
import { Failure } from "../components/failure";
import { Chart } from "../components/chart";
import { ParallelCoordinates } from "../components/parallel_coordinates";
import { shown } from "../components/spec_diff";
import { save } from "../download";
import { ago, duration, number, words } from "../format";
import { useLoaded, useNow } from "../hooks";
import { address } from "../router";
import { resolvedColor } from "./job";

type Trial = Schemas["Trial"];
type Results = Schemas["ExperimentResults"];
const REFRESH_SECONDS = 3;
const ENDED = new Set(["succeeded", "stopped", "failed"]);
const MOST_COMPARED = 50;

export function ExperimentsPage() {
  const experiments = useLoaded("experiments", async () => dataOf(await api.GET("/v1/experiments", { params: { query: { limit: 500 } } })).data, REFRESH_SECONDS);
  const now = useNow();
  return (
    <section>
      <div class="heading">
        <h1>Experiments</h1>
      </div>
      {experiments.problem && <ProblemBox problem={experiments.problem} />}
      {experiments.data?.length === 0 && <Empty>No experiment yet. `POST /v1/experiments` plans folds, grids, searches and ensembles.</Empty>}
      {experiments.data && experiments.data.length > 0 && (
        <div class="scroll">
          <table class="plain">
            <thead>
              <tr>
                <th>Name</th>
                <th>Kind</th>
                <th>State</th>
                <th>Created</th>
                <th class="num">Time</th>
              </tr>
            </thead>
            <tbody>
              {experiments.data.map((one) => (
                <tr key={one.id}>
                  <td>
                    <a href={address(["experiments", one.id])}>{one.name || one.id}</a>
                  </td>
                  <td>{words(one.kind)}</td>
                  <td>
                    <StateBadge state={one.state} />
                  </td>
                  <td title={one.created_at}>{ago(one.created_at, now)}</td>
                  <td class="num">{duration(((one.finished_at ? Date.parse(one.finished_at) : now) - Date.parse(one.created_at)) / 1000)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

/** Return [trial, value, best so far] for the trials that have a value, in their order. */
export function bestSoFar(trials: readonly Trial[], direction: string | null): { x: number[]; y: number[]; best: number[] } {
  const found = { x: [] as number[], y: [] as number[], best: [] as number[] };
  const better = direction === "min" ? Math.min : Math.max;
  for (const trial of trials) {
    if (trial.value === null || !Number.isFinite(trial.value)) continue;
    found.x.push(trial.number);
    found.y.push(trial.value);
    found.best.push(found.best.length ? better(found.best.at(-1) as number, trial.value) : trial.value);
  }
  return found;
}

export interface Importance {
  name: string;
  /** Share of the variance of the result that the parameter explains by itself, less what chance would: omega squared. */
  share: number;
  levels: number;
}

const MOST_LEVELS = 4;

/**
 * One-way analysis of variance of each parameter: omega^2 = (SS_between - (k - 1) MS_within) / (SS_total + MS_within),
 * at least 0 (Hays 1963). Numbers with more values than `MOST_LEVELS` are cut into as many parts of equal size.
 */
export function importancesOf(trials: readonly Trial[], params: readonly string[]): Importance[] {
  const done = trials.filter((trial) => trial.value !== null && Number.isFinite(trial.value));
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const all = mean(done.map((trial) => trial.value as number));
  const total = done.reduce((sum, trial) => sum + ((trial.value as number) - all) ** 2, 0);
  const found = params.flatMap((name): Importance[] => {
    const levels = new Map<string, number[]>();
    const level = levelsOf(done.map((trial) => trial.params[name]));
    done.forEach((trial, index) => levels.set(level[index] as string, [...(levels.get(level[index] as string) ?? []), trial.value as number]));
    const k = levels.size;
    if (k < 2 || done.length <= k || total === 0) return [];
    const between = [...levels.values()].reduce((sum, values) => sum + values.length * (mean(values) - all) ** 2, 0);
    const within = (total - between) / (done.length - k);
    return [{ name, share: Math.max(0, (between - (k - 1) * within) / (total + within)), levels: k }];
  });
  return found.sort((a, b) => b.share - a.share);
}

function levelsOf(values: readonly unknown[]): string[] {
  const texts = values.map((value) => shown(value));
  const numbers = [...new Set(values)].filter((value): value is number => typeof value === "number");
  if (new Set(texts).size <= MOST_LEVELS || numbers.length < new Set(texts).size) return texts;
  const ordered = values.map((value) => value as number).sort((a, b) => a - b);
  const cuts = Array.from({ length: MOST_LEVELS - 1 }, (_, part) => ordered[Math.floor(((part + 1) * ordered.length) / MOST_LEVELS)] as number);
  return values.map((value) => String(cuts.filter((cut) => (value as number) >= cut).length));
}

function Importances({ found, metric }: { found: Importance[]; metric: string | null }) {
  if (!found.length) return null;
  return (
    <figure class="chart">
      <figcaption title="One-way analysis of variance (omega squared): what a parameter explains by itself, less what chance would">
        Importance of parameters for {metric}
      </figcaption>
      <table class="bars" aria-label="Importance of parameters">
        <tbody>
          {found.map(({ name, share }) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>
                <i ref={(bar) => bar?.style.setProperty("width", `${100 * share}%`)} />
              </td>
              <td class="num">{Math.round(100 * share)} %</td>
            </tr>
          ))}
        </tbody>
      </table>
    </figure>
  );
}

export function ExperimentPage({ id, mayWrite }: { id: string; mayWrite: boolean }) {
  const [asked, setAsked] = useState(false);
  const experiment = useLoaded(id, async () => dataOf(await api.GET("/v1/experiments/{experiment_id}", { params: { path: { experiment_id: id } } })), REFRESH_SECONDS);
  const results = useLoaded(id, async () => dataOf(await api.GET("/v1/experiments/{experiment_id}/results", { params: { path: { experiment_id: id } } })), REFRESH_SECONDS);
  const found = experiment.data;
  const [refused, setRefused] = useState<Problem | null>(null);
  const saveHistory = async () => {
    try {
      save(await fetchBlob(`/v1/experiments/${encodeURIComponent(id)}/history?format=markdown&limit=1000`), `${found?.name || id}-history.md`);
      setRefused(null);
    } catch (error) {
      setRefused(asProblem(error));
    }
  };
  if (experiment.problem && !found) return <ProblemBox problem={experiment.problem} />;
  if (!found) return <p class="muted">Loading</p>;
  const jobs = (results.data?.data ?? []).flatMap((trial) => (trial.job ? [trial.job] : []));
  return (
    <article>
      <div class="heading">
        <h1>{found.name || found.id}</h1>
        <StateBadge state={found.state} />
        <span class="muted">{words(found.kind)}</span>
        <span class="actions">
          {jobs.length > 1 && (
            <a class="button" href={address(["compare"], { jobs: jobs.slice(0, MOST_COMPARED).join(",") })}>
              Compare {jobs.length > MOST_COMPARED ? `the first ${MOST_COMPARED}` : "its"} jobs
            </a>
          )}
          <button title="What was tried, in which order, why, and what it gave, as Markdown" onClick={() => void saveHistory()}>
            History
          </button>
          {mayWrite && !ENDED.has(found.state) && (
            <button class="danger" onClick={() => setAsked(true)}>
              Stop
            </button>
          )}
        </span>
      </div>
      {refused && <ProblemBox problem={refused} />}
      {found.reason && <p class="muted">{words(found.reason)}</p>}
      {found.error && <Failure failure={found.error} />}
      <dl class="facts">
        {Object.entries(found.jobs).map(([state, count]) => (
          <div key={state}>
            <dt>{state}</dt>
            <dd>{count}</dd>
          </div>
        ))}
        {found.best?.job && (
          <div>
            <dt>Best {found.metric}</dt>
            <dd>
              <a href={address(["jobs", found.best.job])}>{number(found.best.value ?? found.best.chosen_value)}</a>
            </dd>
          </div>
        )}
      </dl>
      {results.problem && <ProblemBox problem={results.problem} />}
      {results.data && <ResultsView results={results.data} />}
      {asked && (
        <Confirm
          title={`Stop ${found.name || found.id}?`}
          text="No further job is started. Jobs that run are stopped and keep a usable model."
          action="Stop"
          danger
          run={() => api.POST("/v1/experiments/{experiment_id}/stop", { params: { path: { experiment_id: id } }, body: { running: "stop" } })}
          onClose={() => setAsked(false)}
        />
      )}
    </article>
  );
}

function ResultsView({ results }: { results: Results }) {
  const trials = results.data;
  const params = useMemo(() => [...new Set(trials.flatMap((trial) => Object.keys(trial.params)))], [trials.length]);
  const progress = useMemo(() => bestSoFar(trials, results.direction), [trials, results.direction]);
  const importances = useMemo(() => importancesOf(trials, params), [trials, params]);
  const lines = useMemo(
    () => [
      { label: "trial", x: progress.x, y: progress.y, color: resolvedColor("var(--train)"), points: true },
      { label: "best so far", x: progress.x, y: progress.best, color: resolvedColor("var(--val)") },
    ],
    [progress],
  );
  return (
    <>
      {results.summaries.length > 0 && (
        <table class="plain">
          <caption>Means with their intervals</caption>
          <thead>
            <tr>
              <th>Variant</th>
              <th>Metric</th>
              <th class="num">n</th>
              <th class="num">Mean</th>
              <th class="num">Interval</th>
            </tr>
          </thead>
          <tbody>
            {results.summaries.map((one) => (
              <tr key={`${one.variant} ${one.metric}`}>
                <th scope="row">{one.variant}</th>
                <td>{one.metric}</td>
                <td class="num">{one.n}</td>
                <td class="num">{number(one.mean)}</td>
                <td class="num">
                  {number(one.low)} to {number(one.high)} <span class="muted">({Math.round(100 * one.confidence)} %)</span>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {results.comparisons.map((one) => (
        <p key={`${one.a} ${one.b} ${one.metric}`}>
          <strong>{words(one.verdict)}</strong> {one.summary}
        </p>
      ))}
      {results.steps?.map((step) => (
        <section key={step.index} class="recommendation">
          <h3>Step {step.index}</h3>
          <p>{step.text}</p>
        </section>
      ))}
      <div class="panels">
        {progress.x.length > 1 && <Chart title={results.metric ?? "value"} lines={lines} xLabel="trial" group={results.id} />}
        {params.length > 0 && progress.x.length > 1 && <ParallelCoordinates trials={trials} params={params} metric={results.metric ?? "value"} direction={results.direction} />}
        <Importances found={importances} metric={results.metric} />
      </div>
      <div class="scroll">
        <table class="plain">
          <caption>Trials</caption>
          <thead>
            <tr>
              <th class="num">Trial</th>
              <th>State</th>
              {params.map((name) => (
                <th key={name}>{name}</th>
              ))}
              <th class="num">{results.metric}</th>
              <th class="num">Best epoch</th>
              <th class="num">Time</th>
              <th>Job</th>
            </tr>
          </thead>
          <tbody>
            {trials.map((trial) => (
              <tr key={trial.number} class={results.best?.number === trial.number ? "selected" : undefined}>
                <td class="num">{trial.number}</td>
                <td>
                  <StateBadge state={trial.state} />
                  {trial.error && <span class="muted"> {trial.error.code}</span>}
                </td>
                {params.map((name) => (
                  <td key={name}>{shown(trial.params[name])}</td>
                ))}
                <td class="num">{number(trial.value)}</td>
                <td class="num">{trial.best_epoch ?? "–"}</td>
                <td class="num">{duration(trial.seconds)}</td>
                <td>{trial.job && <a href={address(["jobs", trial.job])}>Open</a>}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
