/** Models: metrics, lineage, aliases. */

import { useState } from "preact/hooks";
import { api, dataOf, type Schemas } from "../api/client";
import { ApiError, asProblem, type Problem, problemOf } from "../api/problem";
import { authorization, ROOT } from "../api/session";
import { Empty, ProblemBox } from "../components/basics";
import { ago, bytes, number, words } from "../format";
import { useLoaded, useNow } from "../hooks";
import { address } from "../router";

export function ModelsPage() {
  const models = useLoaded("models", async () => dataOf(await api.GET("/v1/models", { params: { query: { limit: 500 } } })).data, 10);
  const now = useNow();
  return (
    <section>
      <div class="heading">
        <h1>Models</h1>
      </div>
      {models.problem && <ProblemBox problem={models.problem} />}
      {models.data?.length === 0 && <Empty>No model yet: a job that succeeds or is stopped leaves one.</Empty>}
      {models.data && models.data.length > 0 && (
        <table class="plain">
          <thead>
            <tr>
              <th>Name</th>
              <th>Kind</th>
              <th>Test</th>
              <th class="num">Size</th>
              <th>Created</th>
            </tr>
          </thead>
          <tbody>
            {models.data.map((model) => (
              <tr key={model.id}>
                <td>
                  <a href={address(["models", model.id])}>{model.name ? `${model.name}:${model.version}` : model.id}</a>
                  {model.aliases?.map((alias) => (
                    <span key={alias} class="label">
                      @{alias}
                    </span>
                  ))}
                </td>
                <td>{model.kind}</td>
                <td>
                  {Object.entries(model.metrics ?? {})
                    .filter(([name]) => /accuracy$|r2$/.test(name))
                    .map(([name, value]) => `${words(name)} ${number(value)}`)
                    .join(", ")}
                </td>
                <td class="num">{bytes(model.bytes)}</td>
                <td title={model.created_at}>{ago(model.created_at, now)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

export function ModelPage({ id, mayWrite }: { id: string; mayWrite: boolean }) {
  const model = useLoaded(id, async () => dataOf(await api.GET("/v1/models/{model}", { params: { path: { model: id } } })));
  const found = model.data;
  if (model.problem) return <ProblemBox problem={model.problem} />;
  if (!found) return <p class="muted">Loading</p>;
  return (
    <article>
      <div class="heading">
        <h1>{found.name ? `${found.name}:${found.version}` : found.id}</h1>
        {found.aliases.map((alias) => (
          <span key={alias} class="label">
            @{alias}
          </span>
        ))}
      </div>
      <dl class="facts">
        {Object.entries(found.metrics).map(([name, value]) => (
          <div key={name}>
            <dt>{words(name)}</dt>
            <dd>{number(value)}</dd>
          </div>
        ))}
      </dl>
      {found.notes && <p>{found.notes}</p>}
      <LineageOf lineage={found.lineage} />
      <TryIt model={found} />
      {mayWrite && <Aliases model={found} reload={model.reload} />}
    </article>
  );
}

/** What the model was made of; parts that were deleted since keep their names. */
function LineageOf({ lineage }: { lineage: Schemas["Lineage"] }) {
  const place = (id: string) => (id.startsWith("ds_") ? "datasets" : id.startsWith("job_") ? "jobs" : "models");
  return (
    <section>
      <h2>Lineage</h2>
      <dl class="facts">
        {lineage.dataset && (
          <div>
            <dt>Dataset</dt>
            <dd>
              <a href={address(["datasets", lineage.dataset.id])}>
                {lineage.dataset.name}:{lineage.dataset.version}
              </a>
            </dd>
          </div>
        )}
        {lineage.job && (
          <div>
            <dt>Trained by</dt>
            <dd>
              <a href={address(["jobs", lineage.job])}>{lineage.job}</a>
            </dd>
          </div>
        )}
        {lineage.parents.map((id) => (
          <div key={id}>
            <dt>Made from</dt>
            <dd>
              <a href={address([place(id), id])}>{id}</a>
            </dd>
          </div>
        ))}
        {lineage.spec_sha256 && (
          <div>
            <dt>SHA-256 of the spec</dt>
            <dd>
              <code title={lineage.spec_sha256}>{lineage.spec_sha256.slice(0, 16)}</code>
            </dd>
          </div>
        )}
        {lineage.trainkit && (
          <div>
            <dt>trainkit</dt>
            <dd>{lineage.trainkit}</dd>
          </div>
        )}
      </dl>
    </section>
  );
}

type Model = Omit<Schemas["Model"], "manifest">;

function Aliases({ model, reload }: { model: Model; reload: () => void }) {
  const [alias, setAlias] = useState("production");
  const [problem, setProblem] = useState<Problem | null>(null);
  const change = async (work: () => Promise<unknown>) => {
    try {
      await work();
      setProblem(null);
      reload();
    } catch (error) {
      setProblem(asProblem(error));
    }
  };
  const set = (event: Event) => {
    event.preventDefault();
    void change(() => api.PUT("/v1/models/{model}/aliases/{alias}", { params: { path: { model: model.id, alias } } }));
  };
  if (model.name === null || model.version === null) return null;
  return (
    <form class="controls" onSubmit={set}>
      <label>
        Alias <input required value={alias} onInput={(event) => setAlias(event.currentTarget.value)} />
      </label>
      <button>Let it name this version</button>
      {model.aliases.map((one) => (
        <button key={one} type="button" class="danger" onClick={() => void change(() => api.DELETE("/v1/models/{model}/aliases/{alias}", { params: { path: { model: model.id, alias: one } } }))}>
          Remove @{one}
        </button>
      ))}
      {problem && <ProblemBox problem={problem} />}
    </form>
  );
}

type Prediction = Schemas["Prediction"];
const IMAGE = new Set(["images", "image_table", "idx"]);

/** Predict one input: an image, or a form made from the columns that the model was trained on. */
function TryIt({ model }: { model: Model }) {
  const dataset = model.lineage.dataset?.id ?? null;
  const report = useLoaded(dataset, async () => dataOf(await api.GET("/v1/datasets/{dataset}/report", { params: { path: { dataset: dataset ?? "" } } })));
  const [values, setValues] = useState<Record<string, string>>({});
  const [answer, setAnswer] = useState<Prediction | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const facts = report.data?.facts;
  if (!facts) return null;
  const ask = async (body: BodyInit, type: string) => {
    try {
      const response = await fetch(`${ROOT}/v1/models/${encodeURIComponent(model.id)}/predict`, {
        method: "POST",
        body,
        credentials: "same-origin",
        headers: { ...authorization(), "Content-Type": type },
      });
      const found: unknown = await response.json().catch(() => null);
      if (!response.ok) throw new ApiError(problemOf(found, response.status));
      setAnswer((found as Schemas["Predictions"]).predictions[0] ?? null);
      setProblem(null);
    } catch (error) {
      setAnswer(null);
      setProblem(asProblem(error));
    }
  };
  const columns = (facts.columns ?? []).filter((column) => column.name !== facts.target);
  const statistics = report.data?.column_statistics ?? {};
  const typical = (name: string) => {
    const value = statistics[name]?.median ?? statistics[name]?.mean;
    return value === undefined ? undefined : Number(value.toPrecision(5));
  };
  const submit = (event: Event) => {
    event.preventDefault();
    const input = Object.fromEntries(
      columns.map((column) => {
        const text = values[column.name] ?? String(typical(column.name) ?? Object.keys(column.categories ?? {})[0] ?? "");
        return [column.name, text === "" ? null : column.type === "numeric" ? Number(text) : text];
      }),
    );
    void ask(JSON.stringify({ inputs: [input] }), "application/json");
  };
  return (
    <section>
      <h2>Try it</h2>
      {IMAGE.has(facts.kind) && (
        <label>
          An image <input type="file" accept="image/*" onChange={(event) => { const file = event.currentTarget.files?.[0]; if (file) void ask(file, file.type || "image/png"); }} />
        </label>
      )}
      {facts.kind === "table" && (
        <form onSubmit={submit}>
          <div class="fields">
            {columns.map((column) => (
              <label key={column.name}>
                <span>{column.name}</span>
                {column.categories ? (
                  <select value={values[column.name]} onChange={(event) => setValues({ ...values, [column.name]: event.currentTarget.value })}>
                    {Object.keys(column.categories).map((name) => (
                      <option key={name}>{name}</option>
                    ))}
                  </select>
                ) : (
                  <input
                    type={column.type === "date" ? "date" : "number"}
                    step="any"
                    value={values[column.name] ?? String(typical(column.name) ?? "")}
                    onInput={(event) => setValues({ ...values, [column.name]: event.currentTarget.value })}
                  />
                )}
              </label>
            ))}
          </div>
          <button class="primary">Predict</button>
        </form>
      )}
      {problem && <ProblemBox problem={problem} />}
      {answer && <Answer prediction={answer} />}
    </section>
  );
}

function Answer({ prediction }: { prediction: Prediction }) {
  const shares = Object.entries(prediction.probabilities ?? {})
    .map(([name, share]) => [name, share ?? 0] as const)
    .sort(([, a], [, b]) => b - a)
    .slice(0, 10);
  return (
    <div role="status" class="answer">
      <p>
        <strong>{prediction.label ?? (typeof prediction.value === "number" ? number(prediction.value) : JSON.stringify(prediction.value))}</strong>
      </p>
      {shares.length > 0 && (
        <table class="bars">
          <tbody>
            {shares.map(([name, share]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>
                  <i ref={(bar) => bar?.style.setProperty("width", `${100 * share}%`)} />
                </td>
                <td class="num">{number(share)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {prediction.warnings?.map((warning) => (
        <p key={warning.column} class="warning">
          {warning.message}
        </p>
      ))}
    </div>
  );
}
