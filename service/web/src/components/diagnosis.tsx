/** What is wrong with the run, the evidence, and the next spec to submit. */

import { useEffect, useState } from "preact/hooks";
import { api, dataOf, type Job, type Schemas } from "../api/client";
import { number, words } from "../format";
import { useLoaded } from "../hooks";
import { address, go } from "../router";
import { ApiImage, Confirm, ProblemBox } from "./basics";
import { PatchView } from "./spec_diff";

const INVESTIGATION_SECONDS = 3;
const ENDED = new Set(["succeeded", "stopped", "cancelled", "failed"]);

export function Diagnosis({ job, mayWrite, epoch }: { job: Job; mayWrite: boolean; epoch: number }) {
  const [shown, setShown] = useState<number | null>(null);
  const [asked, setAsked] = useState<number | null>(null);
  const ended = ENDED.has(job.state);
  const diagnosis = useLoaded(job.resolved ? `${job.id} ${job.state} ${epoch}` : null, async () =>
    dataOf(await api.GET("/v1/jobs/{job_id}/diagnosis", { params: { path: { job_id: job.id } } })),
  );
  const found = diagnosis.data;
  return (
    <aside class="diagnosis" aria-label="Diagnosis">
      <h2>Diagnosis {found && !found.final && <span class="muted">so far</span>}</h2>
      {diagnosis.problem && <ProblemBox problem={diagnosis.problem} />}
      {found?.verdicts.map((verdict, index) => (
        <section key={`${verdict.code} ${index}`} class={`verdict ${verdict.code === "healthy" ? "good" : index === 0 ? "main" : ""}`}>
          <h3>
            {words(verdict.code)} <span class="muted">{Math.round(verdict.confidence * 100)} %{verdict.source === "investigation" ? ", measured" : ""}</span>
          </h3>
          <p>{verdict.message}</p>
          <button class="quiet" aria-expanded={shown === index} onClick={() => setShown(shown === index ? null : index)}>
            Evidence
          </button>
          {shown === index && (
            <>
              <ApiImage path={verdict.plot.slice(verdict.plot.indexOf("/v1"))} alt={`Evidence of ${words(verdict.code)}`} />
              <Evidence evidence={verdict.evidence} />
            </>
          )}
        </section>
      ))}
      {found?.recommendations.map((recommendation, index) => (
        <section key={index} class="recommendation">
          <h3>Try next</h3>
          <p>{recommendation.why}</p>
          <PatchView patch={recommendation.patch} spec={job.spec} />
          {recommendation.measured ? (
            <p>
              <strong>Measured</strong> {effectText(recommendation.measured)}
            </p>
          ) : (
            <p class="muted">
              Expected: {words(recommendation.expected.metric)} {recommendation.expected.direction}, {recommendation.expected.size} (
              {recommendation.expected.source})
            </p>
          )}
          {mayWrite && ended && (
            <p class="actions">
              <button class="primary" onClick={() => setAsked(index)}>
                Submit this
              </button>
              <a class="button" href={address(["submit"], { job: job.id, recommendation: String(index) })}>
                Edit first
              </a>
            </p>
          )}
        </section>
      ))}
      {found && found.harmful.length > 0 && (
        <section class="recommendation">
          <h3>Tried, and worse</h3>
          {found.harmful.map((one, index) => (
            <div key={index}>
              <PatchView patch={one.patch} spec={job.spec} />
              {one.measured && <p class="muted">{effectText(one.measured)}</p>}
            </div>
          ))}
        </section>
      )}
      {found && found.suspects.length > 0 && (
        <section class="verdict">
          <h3>Possible, and not shown</h3>
          <ul>
            {found.suspects.map((suspect) => (
              <li key={suspect.code}>
                <strong>{words(suspect.code)}</strong> {suspect.why}
              </li>
            ))}
          </ul>
        </section>
      )}
      {found && <Investigation job={job} found={found} mayWrite={mayWrite && ended} reload={diagnosis.reload} />}
      {asked !== null && (
        <Confirm
          title="Submit the recommended spec?"
          text="A new job with this change is queued. This job stays as it is."
          action="Submit"
          run={async () => {
            const created = dataOf(await api.POST("/v1/jobs", { body: { from_diagnosis: { job: job.id, index: asked } } }));
            go(address(["jobs", created.id]));
          }}
          onClose={() => setAsked(null)}
        />
      )}
    </aside>
  );
}

type Effect = NonNullable<Schemas["RecommendedSpec"]["measured"]>;

function effectText({ metric, before, after, gain, low, high }: Effect): string {
  const interval = low != null && high != null ? ` (95 % interval ${number(low)} to ${number(high)})` : "";
  return `${words(metric ?? "")} ${number(before)} → ${number(after)}, gain ${number(gain)}${interval}`;
}

interface InvestigationProps {
  job: Job;
  found: Pick<Schemas["Diagnosis"], "investigation" | "active_investigation">;
  mayWrite: boolean;
  reload: () => void;
}

/** Short runs with one change each, which tell the cause; they are a job of their own. */
function Investigation({ job, found, mayWrite, reload }: InvestigationProps) {
  const [asking, setAsking] = useState(false);
  const running = found.active_investigation;
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(reload, INVESTIGATION_SECONDS * 1000);
    return () => clearInterval(timer);
  }, [running]);
  return (
    <section>
      {found.investigation && (
        <p>
          <a href={address(["jobs", found.investigation.job])}>Investigated</a>: {found.investigation.message}
        </p>
      )}
      {found.investigation && found.investigation.tried.length > 0 && <Tried runs={found.investigation.tried} />}
      {running && (
        <p role="status">
          <a href={address(["jobs", running])}>An investigation</a> is under way.
        </p>
      )}
      {mayWrite && !running && (
        <button onClick={() => setAsking(true)}>Investigate{found.investigation ? " again" : ""}</button>
      )}
      {asking && (
        <Confirm
          title="Investigate this run?"
          text="A job trains the run again, several times for up to a minute in all, each time with one change, and compares. It is charged to the project as every job."
          action="Investigate"
          run={() => api.POST("/v1/jobs/{job_id}/diagnosis:investigate", { params: { path: { job_id: job.id } }, body: {} })}
          onClose={(done) => {
            setAsking(false);
            if (done) reload();
          }}
        />
      )}
    </section>
  );
}

type Run = Schemas["Tried"];

/** Every run of an investigation with its gain; the bar is the 95 % interval, the line in its middle no change. */
function Tried({ runs }: { runs: Run[] }) {
  const most = Math.max(...runs.flatMap((run) => [run.gain, run.low, run.high].map((value) => Math.abs(value ?? 0)))) || 1;
  const percent = (value: number) => 50 + (50 * value) / most;
  const interval = (run: Run) => (bar: HTMLElement | null) => {
    const [low, high] = [percent(run.low ?? run.gain ?? 0), percent(run.high ?? run.gain ?? 0)];
    bar?.style.setProperty("left", `${low}%`);
    bar?.style.setProperty("width", `max(3px, ${high - low}%)`);
  };
  return (
    <details class="tried">
      <summary>
        {runs.length} experiments
      </summary>
      <ul>
        {runs.map((run, index) => (
          <li key={index}>
            {run.change} <span class="muted">{run.gain == null ? words(run.outcome ?? run.state ?? "") : `${words(run.metric ?? "gain")} ${run.gain > 0 ? "+" : ""}${number(run.gain)}`}</span>
            {run.gain != null && (
              <span class="interval" role="img" aria-label={run.low != null && run.high != null ? `95 % interval ${number(run.low)} to ${number(run.high)}` : `gain ${number(run.gain)}`}>
                <i class={(run.low ?? 0) > 0 ? "gain" : (run.high ?? 0) < 0 ? "loss" : ""} ref={interval(run)} />
              </span>
            )}
          </li>
        ))}
      </ul>
    </details>
  );
}

function Evidence({ evidence }: { evidence: Record<string, unknown> }) {
  const simple = Object.entries(evidence).filter(([name, value]) => name !== "series" && (typeof value === "number" || typeof value === "string"));
  return (
    <dl class="evidence">
      {simple.map(([name, value]) => (
        <div key={name}>
          <dt>{words(name)}</dt>
          <dd>{typeof value === "number" ? number(value) : String(value)}</dd>
        </div>
      ))}
    </dl>
  );
}
