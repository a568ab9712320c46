/** An empty service: from here it is three clicks to a trained model, on a dataset that comes along. */

import { useEffect, useState } from "preact/hooks";
import { api, dataOf, type Schemas } from "../api/client";
import { ApiError, asProblem, type Problem, problemOf } from "../api/problem";
import { authorization, ROOT } from "../api/session";
import { ProblemBox } from "../components/basics";
import { address, go } from "../router";
import { exampleSpec } from "./submit";

const SAMPLE = { name: "iris", file: "samples/iris.csv", target: "species" };
const LOOK_EVERY = 500;

async function uploadSample(): Promise<string> {
  const file = await (await fetch(SAMPLE.file)).blob();
  const query = new URLSearchParams({ name: SAMPLE.name, target: SAMPLE.target });
  const answer = await fetch(`${ROOT}/v1/datasets?${query}`, {
    method: "PUT",
    body: file,
    credentials: "same-origin",
    headers: { ...authorization(), "Content-Type": "text/csv" },
  });
  const body: unknown = await answer.json().catch(() => null);
  if (!answer.ok) throw new ApiError(problemOf(body, answer.status));
  return (body as Schemas["Dataset"]).id;
}

export function FirstRun({ mayWrite }: { mayWrite: boolean }) {
  const [dataset, setDataset] = useState<Schemas["Dataset"] | null>(null);
  const [id, setId] = useState<string | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);

  useEffect(() => {
    if (!id || dataset?.state === "ready" || dataset?.state === "invalid") return;
    const timer = setInterval(() => {
      api.GET("/v1/datasets/{dataset}", { params: { path: { dataset: id } } }).then(
        (answer) => setDataset(dataOf(answer)),
        (error: unknown) => setProblem(asProblem(error)),
      );
    }, LOOK_EVERY);
    return () => clearInterval(timer);
  }, [id, dataset?.state]);

  const attempt = (work: () => Promise<void>) => () => {
    setProblem(null);
    work().catch((error: unknown) => setProblem(asProblem(error)));
  };
  const upload = attempt(async () => setId(await uploadSample()));
  const train = attempt(async () => {
    const created = dataOf(await api.POST("/v1/jobs", { body: { ...exampleSpec(id as string), name: "iris-mlp" } as never }));
    go(address(["jobs", created.id]));
  });
  return (
    <section class="first-run">
      <h1>No job yet</h1>
      {mayWrite ? (
        <>
          <p>Train a first model on 150 measured iris flowers, which come along with the dashboard.</p>
          <ol>
            <li>
              <button class={id ? undefined : "primary"} disabled={id !== null} onClick={upload}>
                Upload the sample dataset
              </button>
              {id && <span role="status"> {dataset?.state === "ready" ? "Checked and ready." : "Uploaded; it is being checked."}</span>}
            </li>
            <li>
              <button class={dataset?.state === "ready" ? "primary" : undefined} disabled={dataset?.state !== "ready"} onClick={train}>
                Train a model
              </button>
            </li>
          </ol>
          <p>
            Or <a href={address(["datasets"])}>upload your own data</a>, or <a href={address(["submit"])}>write a spec</a>.
          </p>
        </>
      ) : (
        <p>Your role may look, not train. Ask an admin of the project.</p>
      )}
      {problem && <ProblemBox problem={problem} />}
    </section>
  );
}
