/** A fork: the spec of the parent, edited; the difference, and what the service says of it, while it is written. */

import { dump } from "js-yaml";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api, dataOf, type Job, type Schemas } from "../api/client";
import { asProblem, type Problem } from "../api/problem";
import { parsedSpec } from "../pages/submit";
import { address, go } from "../router";
import { Dialog, ProblemBox } from "./basics";
import { differences, DifferenceTable, mergePatch } from "./spec_diff";

const CHECK_AFTER = 350;

interface Props {
  job: Job;
  onClose: () => void;
}

export function ForkDialog({ job, onClose }: Props) {
  const [text, setText] = useState(() => dump(job.spec, { flowLevel: 2, lineWidth: 90 }));
  const [checked, setChecked] = useState<Pick<Schemas["ValidatedSpec"], "valid" | "warnings"> | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const key = useRef("");
  const { spec, problem: unreadable } = useMemo(() => parsedSpec(text), [text]);

  useEffect(() => {
    let current = true;
    key.current = crypto.randomUUID(); // another spec is another fork
    setChecked(null);
    setProblem(unreadable);
    if (!spec) return;
    const timer = setTimeout(() => {
      api.POST("/v1/specs:validate", { body: spec as never }).then(
        (answer) => current && setChecked(dataOf(answer)),
        (error: unknown) => current && setProblem(asProblem(error)),
      );
    }, CHECK_AFTER);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [text]);

  const fork = async (event: Event) => {
    event.preventDefault();
    if (!spec) return;
    setBusy(true);
    try {
      const params = { path: { job_id: job.id }, header: { "idempotency-key": key.current } };
      const forked = dataOf(await api.POST("/v1/jobs/{job_id}/fork", { params, body: { patch: mergePatch(job.spec, spec) as Record<string, unknown> } }));
      onClose();
      go(address(["jobs", forked.id]));
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  return (
    <Dialog title={`Fork ${job.name || job.id}`} onClose={onClose}>
      <form class="fork" onSubmit={fork}>
        <p class="muted">A new job continues from the last checkpoint of this one. Model, data and optimizer stay; rates, epochs, rules and regularisation may change.</p>
        <label class="editor">
          <span>Spec of the fork (YAML or JSON)</span>
          <textarea spellcheck={false} rows={14} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <div aria-live="polite">
          <h3>Changes</h3>
          {spec && <DifferenceTable rows={differences(job.spec, spec)} />}
          {problem && <ProblemBox problem={problem} />}
          {checked?.valid && !problem && <p class="good">The spec is valid.</p>}
          {checked?.warnings.map((warning, index) => (
            <p key={index} class="warning">
              {warning.pointer && <code>{warning.pointer}</code>} {warning.message}
            </p>
          ))}
        </div>
        <p class="buttons">
          <button type="button" onClick={onClose}>
            Keep
          </button>
          <button class="primary" disabled={busy || !checked?.valid}>
            Fork
          </button>
        </p>
      </form>
    </Dialog>
  );
}
