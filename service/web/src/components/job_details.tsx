/** Log, timeline, files and spec of a job. */

import { dump } from "js-yaml";
import { useEffect, useRef, useState } from "preact/hooks";
import { api, dataOf, fetchBlob, getJob, type Job, type Schemas } from "../api/client";
import { asProblem, type Problem } from "../api/problem";
import { save } from "../download";
import { bytes, duration, secondsBetween, words } from "../format";
import { useLoaded, useNow } from "../hooks";
import { type LiveJob, MAX_LINES } from "../live_series";
import { address } from "../router";
import { ProblemBox } from "./basics";
import { Failure } from "./failure";
import { differences, DifferenceTable } from "./spec_diff";

const NEAR_END = 40;

/** The log follows its end until somebody scrolls up. */
export function Log({ lines }: { lines: LiveJob["lines"] }) {
  const box = useRef<HTMLDivElement>(null);
  const [follows, setFollows] = useState(true);
  useEffect(() => {
    if (follows && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, follows]);
  return (
    <>
    <p class="log-note muted" role="status">
      {follows ? "Following the end" : <button onClick={() => setFollows(true)}>Follow the end</button>}
      {lines.length >= MAX_LINES && ` The last ${MAX_LINES} lines; the whole log is among the files.`}
    </p>
    <div
      ref={box}
      class="log"
      tabIndex={0}
      role="log"
      aria-label="Log"
      onScroll={({ currentTarget: at }) => setFollows(at.scrollHeight - at.scrollTop - at.clientHeight < NEAR_END)}
    >
      {lines.map((line) => (
        <div key={line.seq} class={`line ${line.level}`}>
          <time dateTime={line.at}>{line.at.slice(11, 23)}</time> <span class="source">{line.source}</span> {line.text}
        </div>
      ))}
      {!lines.length && <p class="muted">No line yet.</p>}
    </div>
    </>
  );
}

type Attempt = Schemas["Attempt"];

/** From the submission to the end: what ran when, and every event at its time. */
function TimelineBars({ job, attempts, events, now }: { job: Job; attempts: Attempt[]; events: LiveJob["events"]; now: number }) {
  const from = Date.parse(job.created_at);
  const to = Math.max(from + 1000, job.finished_at ? Date.parse(job.finished_at) : now, ...attempts.map((one) => Date.parse(one.finished_at ?? one.started_at)));
  const place = (at: string | null) => (((at ? Date.parse(at) : to) - from) / (to - from)) * 100;
  const put = (left: number, width: number) => (element: HTMLElement | null) => {
    element?.style.setProperty("left", `${left}%`);
    element?.style.setProperty("width", width ? `max(3px, ${width}%)` : "");
  };
  return (
    <div class="timeline">
      <div class="lane" role="img" aria-label={`${attempts.length} attempts in ${duration((to - from) / 1000)}`}>
        {attempts.map((one) => {
          const seconds = ((one.finished_at ? Date.parse(one.finished_at) : to) - Date.parse(one.started_at)) / 1000;
          return (
            <span key={one.attempt} class={`run outcome-${one.outcome ?? "running"}`} title={`Attempt ${one.attempt}: ${words(one.outcome ?? "running")}, ${duration(seconds)}`} ref={put(place(one.started_at), place(one.finished_at) - place(one.started_at))}>
              {one.attempt}
            </span>
          );
        })}
        {events.map((event) => (
          <i key={event.seq} title={`${event.at.slice(11, 19)} ${event.to ?? words(event.kind)}${event.reason ? `, ${words(event.reason)}` : ""}`} ref={put(place(event.at), 0)} />
        ))}
      </div>
      <p class="ends muted">
        <span>created {job.created_at.slice(0, 19).replace("T", " ")}</span>
        <span>
          {job.finished_at ? "finished" : "now"}, after {duration((to - from) / 1000)}
        </span>
      </p>
    </div>
  );
}

export function Timeline({ job, events }: { job: Job; events: LiveJob["events"] }) {
  const attempts = useLoaded(`${job.id} ${events.length}`, async () =>
    dataOf(await api.GET("/v1/jobs/{job_id}/attempts", { params: { path: { job_id: job.id } } })).data,
  );
  const now = useNow(!job.finished_at);
  const kept = useRef<Attempt[]>([]);
  if (attempts.data) kept.current = attempts.data;
  const shown = kept.current;
  return (
    <section>
      <h2>Attempts</h2>
      <TimelineBars job={job} attempts={shown} events={events} now={now} />
      <div class="scroll">
        <table class="plain">
          <thead>
            <tr>
              <th>Attempt</th>
              <th>Worker</th>
              <th>Started</th>
              <th class="num">Time</th>
              <th>Outcome</th>
              <th class="num">Resumed from step</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((attempt) => (
              <tr key={attempt.attempt}>
                <td>{attempt.attempt}</td>
                <td>{attempt.worker}</td>
                <td>
                  <time dateTime={attempt.started_at}>{attempt.started_at.slice(0, 19).replace("T", " ")}</time>
                </td>
                <td class="num">{duration(secondsBetween(attempt.started_at, attempt.finished_at, now))}</td>
                <td>
                  {attempt.outcome ? words(attempt.outcome) : "running"}
                  {attempt.error && <Failure failure={attempt.error} />}
                </td>
                <td class="num">
                  {attempt.resumed_from_step ?? "–"}
                  {attempt.resume_exact === false && <small class="muted"> not to the last bit: {attempt.resume_reason}</small>}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <h2>Events</h2>
      <ol class="events">
        {events.map((event) => (
          <li key={event.seq}>
            <time dateTime={event.at}>{event.at.slice(0, 19).replace("T", " ")}</time> <strong>{event.to ? `${event.from ?? "new"} → ${event.to}` : words(event.kind)}</strong>{" "}
            {event.reason && words(event.reason)} <span class="muted">{event.actor}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}

export function Files({ id }: { id: string }) {
  const artifacts = useLoaded(id, async () => dataOf(await api.GET("/v1/jobs/{job_id}/artifacts", { params: { path: { job_id: id } } })).data);
  const checkpoints = useLoaded(id, async () => dataOf(await api.GET("/v1/jobs/{job_id}/checkpoints", { params: { path: { job_id: id } } })).data);
  const [problem, setProblem] = useState<Problem | null>(null);
  const download = async (name: string) => {
    try {
      save(await fetchBlob(`/v1/jobs/${encodeURIComponent(id)}/artifacts/${encodeURIComponent(name)}`), name);
      setProblem(null);
    } catch (error) {
      setProblem(asProblem(error));
    }
  };
  return (
    <section>
      {(problem ?? artifacts.problem) && <ProblemBox problem={(problem ?? artifacts.problem) as Problem} />}
      <h2>Artifacts</h2>
      <table class="plain">
        <tbody>
          {artifacts.data?.map((artifact) => (
            <tr key={artifact.name}>
              <th scope="row">{artifact.name}</th>
              <td class="num">{bytes(artifact.bytes)}</td>
              <td>
                <button onClick={() => void download(artifact.name)}>Download</button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <h2>Checkpoints</h2>
      {checkpoints.data?.length === 0 && <p class="muted">None is kept.</p>}
      <table class="plain">
        <tbody>
          {checkpoints.data?.map((checkpoint) => (
            <tr key={checkpoint.id}>
              <th scope="row">step {checkpoint.step}</th>
              <td>epoch {checkpoint.epoch}</td>
              <td class="num">{bytes(checkpoint.bytes)}</td>
              <td>{checkpoint.created_at}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

export function SpecView({ job }: { job: Job }) {
  const [isWhole, setWhole] = useState(false);
  const parent = useLoaded(job.parent?.job ?? null, () => getJob(job.parent?.job ?? ""),
  );
  const spec = isWhole && job.resolved ? job.resolved : job.spec;
  return (
    <section>
      <div class="controls">
        <label>
          <input type="checkbox" checked={isWhole} onChange={(event) => setWhole(event.currentTarget.checked)} /> with all defaults
        </label>
        <a class="button" href={address(["submit"], { job: job.id })}>
          Edit as a new job
        </a>
      </div>
      {parent.data && (
        <>
          <h2>Changed against {parent.data.name || parent.data.id}</h2>
          <DifferenceTable rows={differences(parent.data.spec, job.spec)} />
        </>
      )}
      <pre class="yaml" tabIndex={0}>
        {dump(spec, { flowLevel: 2, lineWidth: 100 })}
      </pre>
    </section>
  );
}
