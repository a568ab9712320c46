/** Datasets: upload that resumes, findings first, preview. */

import { useState } from "preact/hooks";
import { Upload } from "tus-js-client";
import { api, dataOf, type Schemas } from "../api/client";
import { asProblem, type Problem, problemOf } from "../api/problem";
import { authorization, ROOT } from "../api/session";
import { ApiImage, Empty, ProblemBox, Progress, StateBadge } from "../components/basics";
import { DriftTable, Report } from "../components/dataset_report";
import { Failure } from "../components/failure";
import { ago, bytes, number } from "../format";
import { droppedFiles, type FoundFile, packed } from "../dropped_files";
import { useLoaded, useNow } from "../hooks";
import { address } from "../router";

type Dataset = Schemas["Dataset"];
const REFRESH_SECONDS = 3;
const CHUNK = 8 * 2 ** 20;
const RETRIES = [0, 1000, 3000, 5000, 10_000, 20_000];

export function DatasetsPage({ mayWrite }: { mayWrite: boolean }) {
  const datasets = useLoaded("datasets", async () => dataOf(await api.GET("/v1/datasets", { params: { query: { limit: 500 } } })).data, REFRESH_SECONDS);
  const now = useNow();
  return (
    <section>
      <div class="heading">
        <h1>Datasets</h1>
      </div>
      {mayWrite && <UploadBox onUploaded={datasets.reload} />}
      {datasets.problem && <ProblemBox problem={datasets.problem} />}
      {datasets.data?.length === 0 && <Empty>No dataset yet. Upload a CSV, Parquet, JSON Lines, NPZ, or a ZIP of image folders.</Empty>}
      {datasets.data && datasets.data.length > 0 && (
        <table class="plain">
          <thead>
            <tr>
              <th>Name</th>
              <th>State</th>
              <th>Kind</th>
              <th class="num">Samples</th>
              <th class="num">Size</th>
              <th>Created</th>
              <th />
            </tr>
          </thead>
          <tbody>
            {datasets.data.map((dataset) => (
              <tr key={dataset.id}>
                <td>
                  <a href={address(["datasets", dataset.id])}>
                    {dataset.name}:{dataset.version}
                  </a>
                  {dataset.aliases?.map((alias) => (
                    <span key={alias} class="label">
                      @{alias}
                    </span>
                  ))}
                </td>
                <td>
                  <StateBadge state={dataset.state} />
                </td>
                <td>{dataset.kind}</td>
                <td class="num">{number(dataset.samples)}</td>
                <td class="num">{bytes(dataset.bytes)}</td>
                <td title={dataset.created_at}>{ago(dataset.created_at, now)}</td>
                <td>{dataset.state === "ready" && mayWrite && <a href={address(["submit"], { dataset: `${dataset.name}:${dataset.version}` })}>Train on it</a>}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

/** Upload by tus 1.0: a cut connection, or a closed page, continues where it stopped when the same file comes again. */
function UploadBox({ onUploaded }: { onUploaded: () => void }) {
  const [file, setFile] = useState<File | null>(null);
  const [share, setShare] = useState<number | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [over, setOver] = useState(false);
  const [packing, setPacking] = useState(0);
  const [name, setName] = useState("");
  const [target, setTarget] = useState("");

  const choose = (found: File | null | undefined) => {
    if (!found) return;
    setFile(found);
    setName(found.name.replace(/\.[^.]+$/, "").replace(/[^A-Za-z0-9._-]+/g, "-"));
    setProblem(null);
  };
  /** A folder becomes one archive, as it would be on the command line: classes are its sub-folders. */
  const chooseFolder = async (folder: string, files: FoundFile[]) => {
    if (!files.length) return;
    setPacking(files.length);
    choose(await packed(folder, files));
    setPacking(0);
  };
  const chooseAll = async (list: FileList | null) => {
    const files = [...(list ?? [])];
    const folder = (files[0]?.webkitRelativePath ?? "").split("/", 1)[0] || "folder";
    await chooseFolder(folder, files.map((file) => ({ path: file.webkitRelativePath.slice(folder.length + 1) || file.name, file })));
  };
  const drop = async (items: DataTransferItemList) => {
    try {
      const { folder, files } = await droppedFiles(items);
      if (folder === null) choose(files[0]?.file);
      else if (files.length) await chooseFolder(folder, files);
      else setProblem({ title: "Nothing to upload", status: 0, code: "empty", detail: `The folder ${folder} holds no file.`, errors: [] });
    } catch (error) {
      setPacking(0);
      setProblem({ title: "Not readable", status: 0, code: "unreadable", detail: `The browser could not read what was dropped: ${String(error)}`, errors: [] });
    }
  };
  const start = async (event: Event) => {
    event.preventDefault();
    if (!file) return;
    setProblem(null);
    setShare(0);
    const upload = new Upload(file, {
      endpoint: `${ROOT}/v1/uploads`,
      chunkSize: CHUNK,
      retryDelays: RETRIES,
      removeFingerprintOnSuccess: true,
      headers: authorization(),
      metadata: { name, filename: file.name, ...(target ? { target } : {}) },
      onProgress: (sent, all) => setShare(all ? sent / all : 0),
      onError: (error) => {
        const text = "originalResponse" in error ? error.originalResponse?.getBody() : undefined;
        const status = "originalResponse" in error ? (error.originalResponse?.getStatus() ?? 0) : 0;
        setProblem(text ? problemOf(parsed(text), status) : asProblem(new TypeError(String(error))));
        setShare(null);
      },
      onSuccess: () => {
        setShare(null);
        setFile(null);
        onUploaded();
      },
    });
    const [previous] = await upload.findPreviousUploads();
    if (previous) upload.resumeFromPreviousUpload(previous);
    upload.start();
  };
  return (
    <form
      class={`upload ${over ? "over" : ""}`}
      aria-label="Upload"
      onSubmit={start}
      onDragOver={(event) => (event.preventDefault(), setOver(true))}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        if (event.dataTransfer) void drop(event.dataTransfer.items);
      }}
    >
      <label>
        Drop a file or a folder here, or <input type="file" onChange={(event) => choose(event.currentTarget.files?.[0])} />
      </label>
      <label>
        A folder{" "}
        <input
          type="file"
          ref={(input) => input?.setAttribute("webkitdirectory", "")}
          onChange={(event) => void chooseAll(event.currentTarget.files)}
        />
      </label>
      {packing > 0 && <span role="status">Packing {packing} files</span>}
      {file && (
        <>
          <label>
            Name <input required value={name} onInput={(event) => setName(event.currentTarget.value)} />
          </label>
          <label>
            Target column <input value={target} placeholder="of a table" onInput={(event) => setTarget(event.currentTarget.value)} />
          </label>
          <button class="primary" disabled={share !== null}>
            Upload {bytes(file.size)}
          </button>
        </>
      )}
      {share !== null && <Progress percent={100 * share} label="Upload" />}
      {problem && <ProblemBox problem={problem} />}
    </form>
  );
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export function DatasetPage({ id }: { id: string }) {
  const dataset = useLoaded(id, async () => dataOf(await api.GET("/v1/datasets/{dataset}", { params: { path: { dataset: id } } })), REFRESH_SECONDS);
  const found = dataset.data;
  const report = useLoaded(found && found.state === "ready" ? `${found.id}` : null, async () =>
    dataOf(await api.GET("/v1/datasets/{dataset}/report", { params: { path: { dataset: id } } })),
  );
  if (dataset.problem && !found) return <ProblemBox problem={dataset.problem} />;
  if (!found) return <p class="muted">Loading</p>;
  return (
    <article>
      <div class="heading">
        <h1>
          {found.name}:{found.version}
        </h1>
        <StateBadge state={found.state} />
        {found.state === "ready" && (
          <a class="button primary" href={address(["submit"], { dataset: `${found.name}:${found.version}` })}>
            Train on it
          </a>
        )}
        <a class="button" href={address(["jobs"], { dataset: found.id })}>
          Its jobs
        </a>
      </div>
      <dl class="facts">
        {(
          [
            ["Kind", found.kind],
            ["Samples", number(found.samples)],
            ["Size", bytes(found.bytes)],
            ["Target", found.target],
          ] as [string, string | null][]
        ).map(
          ([name, value]) =>
            value && (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </div>
            ),
        )}
      </dl>
      {found.error && <Failure failure={found.error} />}
      {report.data && <Report report={report.data} />}
      {found.state === "ready" && <Drift dataset={found} />}
      <Versions dataset={found} />
      <Users dataset={found} />
      {found.state === "ready" && found.kind?.startsWith("image") && <ApiImage path={`/v1/datasets/${encodeURIComponent(found.id)}/preview.png`} alt={`Samples of ${found.name}`} />}
    </article>
  );
}

/** How it differs from an earlier version, or from any other dataset. */
function Drift({ dataset }: { dataset: Dataset }) {
  const all = useLoaded("ready datasets", async () => dataOf(await api.GET("/v1/datasets", { params: { query: { state: ["ready"], limit: 500 } } })).data);
  const [chosen, setChosen] = useState<string | null>(null);
  const others = (all.data ?? []).filter((one) => one.id !== dataset.id);
  const earlier = others.filter((one) => one.name === dataset.name && one.version < dataset.version).sort((a, b) => b.version - a.version)[0];
  const against = chosen ?? earlier?.id ?? "";
  const drift = useLoaded(against ? `${dataset.id} ${against}` : null, async () =>
    dataOf(await api.GET("/v1/datasets/{dataset}/drift", { params: { path: { dataset: dataset.id }, query: { against } } })),
  );
  if (!others.length) return null;
  return (
    <section>
      <h2>Drift</h2>
      <label>
        Against{" "}
        <select value={against} onChange={(event) => setChosen(event.currentTarget.value)}>
          <option value="">choose a dataset</option>
          {others.map((one) => (
            <option key={one.id} value={one.id}>
              {one.name}:{one.version}
            </option>
          ))}
        </select>
      </label>
      {drift.problem && <ProblemBox problem={drift.problem} />}
      {drift.data && <DriftTable drift={drift.data} />}
    </section>
  );
}

function Versions({ dataset }: { dataset: Dataset }) {
  const versions = useLoaded(`versions of ${dataset.name}`, async () => dataOf(await api.GET("/v1/datasets", { params: { query: { name: dataset.name, limit: 100 } } })).data);
  const now = useNow();
  if (!versions.data || versions.data.length < 2) return null;
  return (
    <section>
      <h2>Versions</h2>
      <table class="plain">
        <tbody>
          {versions.data.map((one) => (
            <tr key={one.id}>
              <th scope="row">{one.id === dataset.id ? one.version : <a href={address(["datasets", one.id])}>{one.version}</a>}</th>
              <td>{one.aliases?.map((alias) => `@${alias}`).join(" ")}</td>
              <td class="num">{number(one.samples)} samples</td>
              <td class="num">{bytes(one.bytes)}</td>
              <td title={one.created_at}>{ago(one.created_at, now)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

const MOST_USERS = 20;

/** The newest jobs that train on it. */
function Users({ dataset }: { dataset: Dataset }) {
  const jobs = useLoaded(`users of ${dataset.id}`, async () => dataOf(await api.GET("/v1/jobs", { params: { query: { dataset: [dataset.id], limit: MOST_USERS } } })).data);
  if (!jobs.data?.length) return null;
  return (
    <section>
      <h2>Used by</h2>
      <table class="plain">
        <tbody>
          {jobs.data.map((job) => (
            <tr key={job.id}>
              <td>
                <a href={address(["jobs", job.id])}>{job.name || job.id}</a>
              </td>
              <td>
                <StateBadge state={job.state} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {jobs.data.length === MOST_USERS && <a href={address(["jobs"], { dataset: dataset.id })}>All jobs that use it</a>}
    </section>
  );
}

export type { Dataset };
