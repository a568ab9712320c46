/** What is wrong with the run, the evidence, and the next spec to submit. */

import { useState } from "preact/hooks";
import { api, dataOf, type Job } from "../api/client";
import { number, words } from "../format";
import { useLoaded } from "../hooks";
import { address, go } from "../router";
import { ApiImage, Confirm, ProblemBox } from "./basics";
import { PatchView } from "./spec_diff";

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
            {words(verdict.code)} <span class="muted">{Math.round(verdict.confidence * 100)} %</span>
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
          <p class="muted">
            Expected: {words(recommendation.expected.metric)} {recommendation.expected.direction}, {recommendation.expected.size} (
            {recommendation.expected.source})
          </p>
          {mayWrite && ended && (
            <button class="primary" onClick={() => setAsked(index)}>
              Submit this
            </button>
          )}
        </section>
      ))}
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
