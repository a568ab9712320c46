/** A spec as YAML, checked while it is written; from a dataset, an example, a job, or a recommendation. */

import { dump, load as parseYaml } from "js-yaml";
import { useEffect, useRef, useState } from "preact/hooks";
import { api, dataOf, getJob, type Schemas, type SpecDocument } from "../api/client";
import { asProblem, type Problem } from "../api/problem";
import { ProblemBox } from "../components/basics";
import { type Catalog, type Spec, SpecForm } from "../components/spec_form";
import { bytes, duration, number } from "../format";
import { useLoaded } from "../hooks";
import { address, go, type Route } from "../router";

const CHECK_AFTER = 400;
const FORM = { flowLevel: 1, lineWidth: 100 };
type Validated = Pick<Schemas["ValidatedSpec"], "valid" | "warnings" | "estimate">;

/** The specs of examples/specs, each a file of its own that is loaded when it is chosen. */
const EXAMPLES = new Map(
  Object.entries(import.meta.glob<string>("../../../../examples/specs/*.yaml", { query: "?url", import: "default", eager: true })).map(([path, url]) => [
    path.replace(/^.*\/|\.yaml$/g, ""),
    url,
  ]),
);
/** What the examples have in place of a dataset. */
const NO_DATASET = "DATASET";

async function loadExample(name: string, dataset: string | null): Promise<string> {
  const url = EXAMPLES.get(name);
  const response = url ? await fetch(url) : null;
  if (!response?.ok) throw new Error(`There is no example ${name}.`);
  const text = await response.text();
  return dataset ? text.replaceAll(NO_DATASET, dataset) : text;
}

/** Return the spec that a diagnosis recommends. */
async function loadRecommendation(job: string, index: number): Promise<SpecDocument> {
  const found = dataOf(await api.GET("/v1/jobs/{job_id}/diagnosis", { params: { path: { job_id: job } } }));
  const chosen = found.recommendations[index];
  if (!chosen) throw new Error(`The diagnosis of ${job} has no recommendation ${index}.`);
  return chosen.spec as unknown as SpecDocument;
}

export function exampleSpec(dataset: string): Record<string, unknown> {
  return {
    name: "first",
    dataset,
    model: { kind: "mlp", hidden: [64, 32] },
    preprocess: [{ kind: "z_score" }],
    optimizer: { kind: "adam", lr: 0.001 },
    train: { epochs: 30, batch_size: 32 },
    early_stop: [{ kind: "patience", monitor: "val_loss", patience: 8 }],
  };
}

/** Parse YAML or JSON; a mistake is a problem like those of the service. */
export function parsedSpec(text: string): { spec: Record<string, unknown> | null; problem: Problem | null } {
  const refused = (detail: string) => ({ spec: null, problem: { title: "Not readable", status: 0, code: "yaml", detail, errors: [] } });
  try {
    const spec: unknown = parseYaml(text);
    if (typeof spec !== "object" || spec === null || Array.isArray(spec)) return refused("A spec is a mapping, e.g. `dataset: digits`.");
    return { spec: spec as Record<string, unknown>, problem: null };
  } catch (error) {
    return refused(error instanceof Error ? (error.message.split("\n\n")[0] ?? "") : String(error));
  }
}

interface Props {
  route: Route;
  mayWrite: boolean;
}

export function SubmitPage({ route, mayWrite }: Props) {
  const job = route.query.get("job");
  const example = route.query.get("example");
  const recommendation = route.query.get("recommendation");
  const dataset = route.query.get("dataset");
  const [text, setText] = useState(() => (job || example ? "" : dump(exampleSpec(dataset ?? "digits"), FORM)));
  /** The text of a recommendation as it was given: unchanged, it is submitted as such and keeps its parent. */
  const [recommended, setRecommended] = useState<string | null>(null);
  const [checked, setChecked] = useState<Validated | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const key = useRef(crypto.randomUUID());
  const catalog = useLoaded("catalog", async () => dataOf(await api.GET("/v1/catalog")) as unknown as Catalog);
  const datasets = useLoaded("datasets", async () => dataOf(await api.GET("/v1/datasets", { params: { query: { state: ["ready"], limit: 200 } } })).data);
  const { spec: readable } = parsedSpec(text);

  useEffect(() => {
    setRecommended(null);
    const load = async () => {
      if (example) return loadExample(example, dataset);
      if (!job) return dump(exampleSpec(dataset ?? "digits"), FORM);
      if (recommendation === null) return dump((await getJob(job)).spec, FORM);
      const given = dump(await loadRecommendation(job, Number(recommendation)), FORM);
      setRecommended(given);
      return given;
    };
    let current = true;
    load().then(
      (given) => current && given !== null && setText(given),
      (error: unknown) => current && setProblem(asProblem(error)),
    );
    return () => void (current = false);
  }, [job, example, recommendation, dataset]);

  useEffect(() => {
    if (!text.trim()) return;
    let current = true;
    const { spec, problem: unreadable } = parsedSpec(text);
    setProblem(unreadable);
    setChecked(null);
    key.current = crypto.randomUUID(); // another spec is another submission
    if (!spec) return;
    const timer = setTimeout(() => {
      api.POST("/v1/specs:validate", { body: spec as never }).then(
        (answer) => current && (setChecked(dataOf(answer)), setProblem(null)),
        (error: unknown) => current && setProblem(asProblem(error)),
      );
    }, CHECK_AFTER);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [text]);

  const submit = async (event: Event) => {
    event.preventDefault();
    const { spec } = parsedSpec(text);
    if (!spec) return;
    setBusy(true);
    try {
      const asRecommended = job && text === recommended ? { from_diagnosis: { job, index: Number(recommendation) } } : null;
      const created = dataOf(await api.POST("/v1/jobs", { body: (asRecommended ?? spec) as never, params: { header: { "idempotency-key": key.current } } }));
      go(address(["jobs", created.id]));
    } catch (error) {
      setProblem(asProblem(error));
    }
    setBusy(false);
  };
  return (
    <form class="submit" onSubmit={submit}>
      <div class="heading">
        <h1>New job</h1>
        <StartFrom route={route} />
        <button class="primary" disabled={!mayWrite || busy || !checked?.valid}>
          Submit
        </button>
      </div>
      <div class="submit-parts">
        {catalog.data && readable && (
          <SpecForm
            spec={readable}
            catalog={catalog.data}
            datasets={[...new Set((datasets.data ?? []).map((one) => one.name))]}
            onChange={(spec: Spec) => setText(dump(spec, FORM))}
          />
        )}
        <label class="editor">
          <span>Spec (YAML or JSON)</span>
          <textarea spellcheck={false} rows={28} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <aside aria-live="polite">
          {problem && <ProblemBox problem={problem} />}
          {checked?.valid && (
            <>
              <p class="good">The spec is valid.</p>
              <Estimate estimate={checked.estimate} />
            </>
          )}
          {checked?.valid && readable && Array.isArray(readable.augment) && readable.augment.length > 0 && (
            <AugmentationPreview dataset={datasetOf(readable)} augment={readable.augment} />
          )}
          {checked?.warnings.map((warning, index) => (
            <p key={index} class="warning">
              {warning.pointer && <code>{warning.pointer}</code>} {warning.message}
            </p>
          ))}
        </aside>
      </div>
    </form>
  );
}

/** Where the spec comes from is in the address, as everywhere. */
function StartFrom({ route }: { route: Route }) {
  const jobs = useLoaded("recent jobs", async () => dataOf(await api.GET("/v1/jobs", { params: { query: { limit: 20 } } })).data);
  const [job, example] = [route.query.get("job"), route.query.get("example")];
  const choose = (value: string) => {
    const [kind = "", name = ""] = value.split(/:(.*)/);
    const dataset = route.query.get("dataset");
    go(address(["submit"], { ...(kind && { [kind]: name }), ...(dataset && kind !== "job" && { dataset }) }));
  };
  return (
    <label>
      Start from{" "}
      <select value={example ? `example:${example}` : job ? `job:${job}` : ""} onChange={(event) => choose(event.currentTarget.value)}>
        <option value="">a small network</option>
        <optgroup label="Examples">
          {[...EXAMPLES.keys()].map((name) => (
            <option key={name} value={`example:${name}`}>
              {name}
            </option>
          ))}
        </optgroup>
        <optgroup label="Jobs">
          {job && !jobs.data?.some((one) => one.id === job) && <option value={`job:${job}`}>{job}</option>}
          {jobs.data?.map((one) => (
            <option key={one.id} value={`job:${one.id}`}>
              {one.name || one.id}
            </option>
          ))}
        </optgroup>
      </select>
    </label>
  );
}

function datasetOf(spec: Spec): string {
  const { dataset } = spec;
  return typeof dataset === "string" ? dataset : String((dataset as Spec | undefined)?.id ?? "");
}

/** Samples of the dataset as the network would see them. */
function AugmentationPreview({ dataset, augment }: { dataset: string; augment: unknown[] }) {
  const [picture, setPicture] = useState<string | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => () => void (picture && URL.revokeObjectURL(picture)), [picture]);
  const show = async () => {
    try {
      const answer = await api.POST("/v1/datasets/{dataset}/augmentation-preview.png", {
        params: { path: { dataset } },
        body: { augment, count: 12 } as never,
        parseAs: "blob",
      });
      setPicture(URL.createObjectURL(answer.data as unknown as Blob));
      setProblem(null);
    } catch (error) {
      setProblem(asProblem(error));
    }
  };
  return (
    <section>
      <button type="button" onClick={() => void show()}>
        Show augmented samples
      </button>
      {problem && <ProblemBox problem={problem} />}
      {picture && <img src={picture} alt={`Augmented samples of ${dataset}`} class="preview" />}
    </section>
  );
}

function Estimate({ estimate }: { estimate: Validated["estimate"] }) {
  if (!estimate) return null;
  const values = estimate as Record<string, unknown>;
  const rows = Object.entries(values).filter(([, value]) => typeof value === "number") as [string, number][];
  const text = (name: string, value: number) => (name.includes("bytes") ? bytes(value) : name.includes("seconds") ? duration(value) : number(value));
  return (
    <dl class="facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name.replace(/_/g, " ")}</dt>
          <dd>{text(name, value)}</dd>
        </div>
      ))}
    </dl>
  );
}
