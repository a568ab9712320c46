/** One job: live curves with the causes beside them, evaluation, log, timeline, files and spec. */

import { useEffect, useState } from "preact/hooks";
import { api, getJob, type Job } from "../api/client";
import { Confirm, ConnectionNote, ProblemBox, Progress, StateBadge } from "../components/basics";
export { resolvedColor } from "../components/chart";
import { Diagnosis } from "../components/diagnosis";
import { EvaluationView } from "../components/evaluation";
import { Failure } from "../components/failure";
import { ForkDialog } from "../components/fork";
import { Curves } from "../components/job_curves";
import { Files, Log, SpecView, Timeline } from "../components/job_details";
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
      {tab === "timeline" && <Timeline job={found} events={live.events} />}
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
    text: "",
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
      {asked === "fork" && <ForkDialog job={job} onClose={() => setAsked(null)} />}
      {asked && asked !== "fork" && (
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
