/** Log, timeline, files and spec of a job. */

import { dump } from "js-yaml";
import { useEffect, useRef, useState } from "preact/hooks";
import { api, dataOf, fetchBlob, getJob, type Job } from "../api/client";
import { asProblem, type Problem } from "../api/problem";
import { save } from "../download";
import { bytes, words } from "../format";
import { useLoaded } from "../hooks";
import type { LiveJob } from "../live_series";
import { address } from "../router";
import { ProblemBox } from "./basics";
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
  );
}

export function Timeline({ id, events }: { id: string; events: LiveJob["events"] }) {
  const attempts = useLoaded(`${id} ${events.length}`, async () =>
    dataOf(await api.GET("/v1/jobs/{job_id}/attempts", { params: { path: { job_id: id } } })).data,
  );
  return (
    <section>
      <h2>Attempts</h2>
      <table class="plain">
        <thead>
          <tr>
            <th>Attempt</th>
            <th>Worker</th>
            <th>Started</th>
            <th>Outcome</th>
            <th>Resumed from step</th>
          </tr>
        </thead>
        <tbody>
          {attempts.data?.map((attempt) => (
            <tr key={attempt.attempt}>
              <td>{attempt.attempt}</td>
              <td>{attempt.worker}</td>
              <td>{attempt.started_at}</td>
              <td>
                {attempt.outcome ? words(attempt.outcome) : "running"}
                {attempt.error && <p class="muted">{attempt.error.message}</p>}
              </td>
              <td>{attempt.resumed_from_step ?? "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
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
