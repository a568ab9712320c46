/** Why a job, an attempt, a dataset or an experiment failed: code, message, what to do, and the numbers behind it. */

import type { Schemas } from "../api/client";
import { number, words } from "../format";

/** `code`, and what else is known: places that name a failure in short hold no more than its code. */
export type FailureDocument = Pick<Schemas["Failure"], "code"> & Partial<Schemas["Failure"]>;

function shown(value: unknown): string {
  if (typeof value === "number") return number(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

export function Failure({ failure }: { failure: FailureDocument }) {
  // a log or a list of problems has lines of its own
  const evidence = Object.entries(failure.evidence ?? {}).filter(([, value]) => value !== null && value !== "");
  return (
    <div class="problem failure" role="alert">
      <strong>{words(failure.code)}</strong>
      {failure.message && <p>{failure.message}</p>}
      {failure.hint && <p>{failure.hint}</p>}
      {failure.retryable && <p class="muted">Another try may succeed.</p>}
      {evidence.length > 0 && (
        <details>
          <summary>Evidence</summary>
          <dl class="evidence">
            {evidence.map(([name, value]) => (
              <div key={name}>
                <dt>{words(name)}</dt>
                <dd>{shown(value)}</dd>
              </div>
            ))}
          </dl>
        </details>
      )}
    </div>
  );
}
