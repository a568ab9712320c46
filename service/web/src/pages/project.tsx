/** The project: what it uses, its keys, and the record of who did what. */

import { useState } from "preact/hooks";
import { api, dataOf, type Schemas } from "../api/client";
import { asProblem, type Problem } from "../api/problem";
import { Confirm, ProblemBox } from "../components/basics";
import { ago, bytes, number, words } from "../format";
import { useLoaded, useNow } from "../hooks";

type Me = Schemas["Me"];
type Key = Schemas["Key"];
const AUDIT_ROWS = 100;

export function ProjectPage({ me }: { me: Me }) {
  const project = me.project?.id ?? null;
  const isAdmin = me.role === "admin";
  const usage = useLoaded(project, async () => dataOf(await api.GET("/v1/projects/{project_id}/usage", { params: { path: { project_id: project ?? "" } } })), 10);
  return (
    <section>
      <div class="heading">
        <h1>{me.project?.name ?? "Project"}</h1>
        <span class="muted">{me.role}</span>
      </div>
      {usage.problem && <ProblemBox problem={usage.problem} />}
      {usage.data && <Usage usage={usage.data} />}
      <Keys isAdmin={isAdmin} />
      {isAdmin && <Audit />}
    </section>
  );
}

/** Amounts with their limits, whatever the installation counts. */
function Usage({ usage }: { usage: Schemas["Usage"] }) {
  const rows = Object.entries(usage as unknown as Record<string, unknown>).filter(([name]) => !["project", "at", "key"].includes(name));
  const text = (name: string, value: unknown) => (typeof value !== "number" ? "–" : name.includes("bytes") ? bytes(value) : number(value));
  return (
    <dl class="facts">
      {rows.map(([name, value]) => {
        const amount = typeof value === "object" && value !== null ? (value as Record<string, unknown>) : { used: value };
        const used = amount.used ?? amount.total ?? amount.amount;
        return (
          <div key={name}>
            <dt>{words(name)}</dt>
            <dd>
              {text(name, used)}
              {typeof amount.limit === "number" && <span class="muted"> of {text(name, amount.limit)}</span>}
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

function Keys({ isAdmin }: { isAdmin: boolean }) {
  const keys = useLoaded("keys", async () => dataOf(await api.GET("/v1/keys", { params: { query: { limit: 200 } } })).data);
  const [made, setMade] = useState<string | null>(null);
  const [revoked, setRevoked] = useState<Key | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [name, setName] = useState("");
  const [role, setRole] = useState<"viewer" | "developer" | "admin">("viewer");
  const now = useNow();
  const make = async (event: Event) => {
    event.preventDefault();
    try {
      const created = dataOf(await api.POST("/v1/keys", { body: { name, role } }));
      setMade(created.key);
      setName("");
      setProblem(null);
      keys.reload();
    } catch (error) {
      setProblem(asProblem(error));
    }
  };
  if (keys.problem?.status === 403) return null;
  return (
    <section>
      <h2>Keys</h2>
      {(problem ?? keys.problem) && <ProblemBox problem={(problem ?? keys.problem) as Problem} />}
      {made && (
        <p class="answer" role="status">
          The new key, shown once: <code>{made}</code>{" "}
          <button class="quiet" onClick={() => setMade(null)}>
            I have it
          </button>
        </p>
      )}
      <form class="controls" onSubmit={make}>
        <label>
          Name <input required value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </label>
        <label>
          Role{" "}
          <select value={role} onChange={(event) => setRole(event.currentTarget.value as typeof role)}>
            {["viewer", "developer", ...(isAdmin ? ["admin"] : [])].map((one) => (
              <option key={one}>{one}</option>
            ))}
          </select>
        </label>
        <button>Make a key</button>
      </form>
      <div class="scroll">
        <table class="plain">
          <thead>
            <tr>
              <th>Name</th>
              <th>Role</th>
              <th>Created</th>
              <th>Last used</th>
              <th>Expires</th>
              <th>Revoke</th>
            </tr>
          </thead>
          <tbody>
            {keys.data?.map((key) => (
              <tr key={key.id}>
                <th scope="row">{key.name}</th>
                <td>{key.role ?? "operator"}</td>
                <td title={key.created_at}>{ago(key.created_at, now)}</td>
                <td>{key.last_used_at ? `${ago(key.last_used_at, now)} from ${key.last_used_from ?? "?"}` : "never"}</td>
                <td>{key.expires_at ?? "–"}</td>
                <td>
                  {key.revoked_at ? (
                    <span class="muted">revoked</span>
                  ) : (
                    <button class="danger" onClick={() => setRevoked(key)}>
                      Revoke
                    </button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {revoked && (
        <Confirm
          title={`Revoke ${revoked.name}?`}
          text="Requests with this key are refused from now on. This cannot be undone."
          action="Revoke"
          danger
          run={() => api.DELETE("/v1/keys/{key_id}", { params: { path: { key_id: revoked.id } } })}
          onClose={(done) => {
            setRevoked(null);
            if (done) keys.reload();
          }}
        />
      )}
    </section>
  );
}

function Audit() {
  const entries = useLoaded("audit", async () => dataOf(await api.GET("/v1/audit", { params: { query: { limit: AUDIT_ROWS } } })).data, 10);
  return (
    <section>
      <h2>Audit log</h2>
      {entries.problem && <ProblemBox problem={entries.problem} />}
      <div class="scroll">
        <table class="plain">
          <thead>
            <tr>
              <th>When</th>
              <th>Who</th>
              <th>What</th>
              <th>Outcome</th>
              <th>Of what</th>
              <th>From</th>
            </tr>
          </thead>
          <tbody>
            {entries.data?.map((entry) => (
              <tr key={entry.seq}>
                <td>{entry.created_at.slice(0, 19).replace("T", " ")}</td>
                <td>{named(entry.actor)}</td>
                <td>{entry.operation}</td>
                <td>
                  {entry.outcome}
                  {entry.code && <span class="muted"> {entry.code}</span>}
                </td>
                <td>{named(entry.resource)}</td>
                <td>{named(entry.client)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** A name, an id, or an address of what may be text or a document. */
function named(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "object") return String(value);
  const fields = value as Record<string, unknown>;
  return String(fields.name ?? fields.id ?? fields.address ?? fields.kind ?? JSON.stringify(value));
}
