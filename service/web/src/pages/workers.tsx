/** Hosts, devices and slots, and what waits. */

import { api, dataOf, type Schemas } from "../api/client";
import { Empty, ProblemBox, StateBadge } from "../components/basics";
import { ago } from "../format";
import { useLoaded, useNow } from "../hooks";
import { address } from "../router";

export function WorkersPage() {
  const workers = useLoaded("workers", async () => dataOf(await api.GET("/v1/workers", { params: { query: { limit: 500 } } })).data, 3);
  const busy = useLoaded("busy", async () => dataOf(await api.GET("/v1/jobs", { params: { query: { state: ["starting", "running", "queued", "validating"], limit: 200 } } })).data, 3);
  const now = useNow();
  return (
    <section>
      <div class="heading">
        <h1>Workers</h1>
      </div>
      {workers.problem && <ProblemBox problem={workers.problem} />}
      {workers.data?.length === 0 && <Empty>No worker is seen: jobs wait until one comes. Start one with `trainkit worker`.</Empty>}
      <table class="plain">
        <thead>
          <tr>
            <th>Worker</th>
            <th>Host</th>
            <th>Device</th>
            <th>Queues</th>
            <th class="num">Slots taken</th>
            <th>Trains</th>
            <th>Seen</th>
          </tr>
        </thead>
        <tbody>
          {workers.data?.map((worker) => (
            <tr key={worker.id}>
              <td>{worker.id}</td>
              <td>{worker.host ?? "–"}</td>
              <td>{worker.device}</td>
              <td>{worker.queues.join(", ")}</td>
              <td class="num">
                {worker.busy_slots} of {worker.slots}
              </td>
              <td>
                {worker.jobs.map((job, index) => (
                  <>
                    {index > 0 && ", "}
                    <a href={address(["jobs", job.id])}>{job.name || job.id}</a>
                  </>
                ))}
                {worker.busy_slots > worker.jobs.length && (
                  <span class="muted">
                    {worker.jobs.length ? " and " : ""}
                    {worker.busy_slots - worker.jobs.length} of other projects
                  </span>
                )}
              </td>
              <td>{ago(worker.seen_at, now)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <h2>Running and waiting</h2>
      {workers.data && busy.data && <Waiting workers={workers.data} jobs={busy.data} />}
      {busy.data?.length === 0 && <p class="muted">Nothing runs or waits.</p>}
      <table class="plain">
        <tbody>
          {busy.data?.map((job) => (
            <tr key={job.id}>
              <td>
                <a href={address(["jobs", job.id])}>{job.name || job.id}</a>
              </td>
              <td>
                <StateBadge state={job.state} />
              </td>
              <td>{ago(job.created_at, now)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** Why queued jobs wait, from what the workers say of themselves. */
function Waiting({ workers, jobs }: { workers: Schemas["Worker"][]; jobs: Schemas["JobRow"][] }) {
  const waiting = jobs.filter((job) => job.state === "queued").length;
  if (!waiting) return null;
  const slots = workers.filter((worker) => worker.queues.includes("train")).reduce((sum, worker) => sum + worker.slots, 0);
  const running = workers.filter((worker) => worker.queues.includes("train")).reduce((sum, worker) => sum + worker.busy_slots, 0);
  const why = !slots
    ? "No worker of the queue `train` is seen: start one with `trainkit worker --queues train`."
    : running >= slots
      ? `All ${slots} training slots are taken.`
      : "A slot is free: other projects may be served before, or a limit of this project is reached.";
  return (
    <p class="warning">
      {waiting} {waiting === 1 ? "job waits" : "jobs wait"}. {why}
    </p>
  );
}
