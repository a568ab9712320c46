/** Models: metrics, lineage, aliases. */

import { api, dataOf } from "../api/client";
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

export function ModelPage({ id }: { id: string }) {
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
        {found.job && (
          <div>
            <dt>Trained by</dt>
            <dd>
              <a href={address(["jobs", found.job])}>{found.job}</a>
            </dd>
          </div>
        )}
      </dl>
      {found.notes && <p>{found.notes}</p>}
    </article>
  );
}
