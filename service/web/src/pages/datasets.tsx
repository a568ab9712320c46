/** Datasets: upload that resumes, findings first, preview. */

import { useState } from "preact/hooks";
import { downloadZip } from "client-zip";
import { Upload } from "tus-js-client";
import { api, dataOf, type Schemas } from "../api/client";
import { asProblem, type Problem, problemOf } from "../api/problem";
import { authorization, ROOT } from "../api/session";
import { ApiImage, Empty, ProblemBox, Progress, StateBadge } from "../components/basics";
import { Failure } from "../components/failure";
import { ago, bytes, number, words } from "../format";
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
  const [packing, setPacking] = useState(false);
  const [name, setName] = useState("");
  const [target, setTarget] = useState("");

  const choose = (found: File | null | undefined) => {
    if (!found) return;
    setFile(found);
    setName(found.name.replace(/\.[^.]+$/, "").replace(/[^A-Za-z0-9._-]+/g, "-"));
    setProblem(null);
  };
  /** A folder becomes one archive, as it would be on the command line: classes are its sub-folders. */
  const chooseFolder = async (files: FileList | null) => {
    if (!files?.length) return;
    const list = [...files];
    const folder = (list[0]?.webkitRelativePath ?? "").split("/", 1)[0] || "folder";
    const inside = list.map((one) => ({ name: one.webkitRelativePath.slice(folder.length + 1) || one.name, lastModified: new Date(one.lastModified), input: one }));
    setPacking(true);
    const blob = await downloadZip(inside).blob();
    setPacking(false);
    choose(new File([blob], `${folder}.zip`, { type: "application/zip", lastModified: Math.max(...list.map((one) => one.lastModified)) }));
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
        choose(event.dataTransfer?.files[0]);
      }}
    >
      <label>
        Drop a file here, or <input type="file" onChange={(event) => choose(event.currentTarget.files?.[0])} />
      </label>
      <label>
        A folder{" "}
        <input
          type="file"
          ref={(input) => input?.setAttribute("webkitdirectory", "")}
          onChange={(event) => void chooseFolder(event.currentTarget.files)}
        />
      </label>
      {packing && <span role="status">Packing the folder</span>}
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
      {found.state === "ready" && found.kind?.startsWith("image") && <ApiImage path={`/v1/datasets/${encodeURIComponent(found.id)}/preview.png`} alt={`Samples of ${found.name}`} />}
    </article>
  );
}

function Report({ report }: { report: Schemas["DatasetReport"] }) {
  const counts = Object.entries(report.classes ?? {});
  const most = Math.max(1, ...counts.map(([, count]) => count ?? 0));
  return (
    <>
      {report.findings && report.findings.length > 0 && (
        <section>
          <h2>Findings</h2>
          <ul class="findings">
            {report.findings.map((finding, index) => (
              <li key={index}>
                <strong>{words(finding.code)}</strong> {finding.message}
              </li>
            ))}
          </ul>
        </section>
      )}
      {counts.length > 0 && (
        <section>
          <h2>Classes</h2>
          <table class="bars">
            <tbody>
              {counts.map(([name, count]) => (
                <tr key={name}>
                  <th scope="row">{name}</th>
                  <td>
                    <i ref={(bar) => bar?.style.setProperty("width", `${(100 * (count ?? 0)) / most}%`)} />
                  </td>
                  <td class="num">{count}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
      {report.columns && report.columns.length > 0 && (
        <section class="scroll">
          <h2>Columns</h2>
          <table class="plain">
            <tbody>
              {report.columns.map((column, index) => (
                <tr key={index}>
                  {Object.values(column).map((value, place) => (
                    <td key={place}>{typeof value === "number" ? number(value) : typeof value === "string" ? value : value === null ? "–" : JSON.stringify(value)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
    </>
  );
}

export type { Dataset };
