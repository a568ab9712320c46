/* Upload by name, train two networks, compare them, put the better one into production and predict with it.

The types in `trainkit-api.ts` are generated from the service's own description:

    curl -s -H "Authorization: Bearer $TRAINKIT_KEY" $TRAINKIT_URL/openapi.json > openapi.json
    npm install openapi-fetch@0.17 openapi-typescript@7.13 typescript@5.9
    npx openapi-typescript openapi.json --output trainkit-api.ts --default-non-nullable=false
    node to-production.ts cancer.csv one-sample.csv      # Node 22.18 or newer reads TypeScript
*/

import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./trainkit-api.ts";

type Schemas = components["schemas"];
type Job = Awaited<ReturnType<typeof train>>;

const client = createClient<paths>({
  baseUrl: process.env.TRAINKIT_URL,
  headers: { Authorization: `Bearer ${process.env.TRAINKIT_KEY}` },
});

/** The body of an answer, or an error with what the service says. */
function checked<T>(answer: { data?: T; error?: Schemas["ProblemDocument"] }): T {
  if (answer.error) throw new Error(`${answer.error.status} ${answer.error.code}: ${answer.error.detail}`);
  return answer.data as T;
}

async function upload(file: string) {
  let dataset = checked(
    await client.PUT("/v1/datasets", {
      params: { query: { name: "cancer", target: "diagnosis" } },
      headers: { "Content-Type": "application/octet-stream" },
      body: (await readFile(file)) as unknown as string, // JSON Schema has no other type for bytes
      bodySerializer: (bytes) => bytes,
    }),
  );
  while (dataset.state !== "ready" && dataset.state !== "invalid") {
    await new Promise((resolve) => setTimeout(resolve, 200));
    dataset = checked(await client.GET("/v1/datasets/{dataset}", { params: { path: { dataset: dataset.id } } }));
  }
  console.log(`${dataset.name}:${dataset.version} is ${dataset.state}: ${dataset.samples} samples`);
}

/** Submit a job, follow its metrics, and return it as it ended. */
async function train(hidden: number[]) {
  const spec: Schemas["JobSpec"] = {
    name: `cancer-${hidden.join("-")}`,
    dataset: { id: "cancer", target: "diagnosis" },
    model: { kind: "mlp", hidden },
    optimizer: { kind: "ema_momentum", lr: 0.1 },
    train: { epochs: 20, batch_size: 32 },
  };
  let job = checked(await client.POST("/v1/jobs", { body: spec }));
  const path = { job_id: job.id };
  for (let after = 0, done = false; !done; ) {
    const page = checked(
      await client.GET("/v1/jobs/{job_id}/metrics", {
        params: { path, query: { after, names: "val_accuracy", wait: 5 } },
      }),
    );
    for (const row of page.data) {
      console.log(`  ${spec.name} epoch ${row.epoch}: ${row.split}_${row.name} ${row.value?.toFixed(3)}`);
    }
    after = page.next;
    done = page.done;
  }
  job = checked(await client.GET("/v1/jobs/{job_id}", { params: { path } }));
  if (job.error) throw new Error(`${spec.name} failed: ${job.error.message} ${job.error.hint}`);
  return job;
}

const accuracy = (job: Job) => job.metrics.best.val_accuracy ?? 0;

const [table, sample] = process.argv.slice(2);
await upload(table);

const jobs = [await train([32, 16]), await train([4])];
const best = jobs.reduce((a, b) => (accuracy(b) > accuracy(a) ? b : a));
for (const job of jobs) {
  console.log(`${job === best ? "*" : " "} ${job.name}: validation accuracy ${accuracy(job).toFixed(3)}`);
}

const model = best.result!.model!;
checked(
  await client.PUT("/v1/models/{model}/aliases/{alias}", { params: { path: { model, alias: "production" } } }),
);

const [names, ...rows] = (await readFile(sample, "utf8")).trim().split(/\r?\n/).map((line) => line.split(","));
const inputs = rows.map((row) => Object.fromEntries(row.map((value, index) => [names[index], Number(value)])));
const answer = checked(
  await client.POST("/v1/models/{model}/predict", {
    params: { path: { model: `${best.name}@production` } },
    body: { inputs },
  }),
);
for (const { label, probabilities } of answer.predictions) {
  console.log(`predicted: ${label} (${probabilities![label!]!.toFixed(3)})`);
}
