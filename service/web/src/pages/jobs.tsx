/** All jobs, live: filters, columns of metrics, bulk actions. The whole view is in the address. */

import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api, dataOf } from "../api/client";
import { asProblem, type Problem } from "../api/problem";
import { Confirm, ConnectionNote, Dialog, Empty, ProblemBox, Progress, StateBadge } from "../components/basics";
import { Sparkline } from "../components/sparkline";
import { VirtualRows } from "../components/virtual_rows";
import { ago, duration, number, secondsBetween } from "../format";
import { useNow, useStored } from "../hooks";
import { type JobRow, LONGEST_LIST, useLiveJobs } from "../live_jobs";
import { groupedRows, type GroupRow, isGroup, meanOfRuns, moments, type Run, statesOf, valuesOf } from "../replicates";
import { address, go, type Route, withQuery } from "../router";
import { FirstRun } from "./first_run";

const STATES = ["queued", "running", "paused", "succeeded", "stopped", "cancelled", "failed"];
const TEXT_FILTERS: [string, string, string][] = [
  ["name", "Name", "digits*"],
  ["dataset", "Dataset", "digits"],
  ["group", "Group", ""],
  ["label", "Label", "team=vision"],
  ["metric", "Metric", "val_accuracy>=0.9"],
];
const FIELDS =
  "id,name,state,stop_reason,error.code,progress.percent,progress.eta_seconds,metrics.best.val_*,metrics.last.val_*,labels,group,replicate_key,dataset.name,dataset.version,created_at,started_at,finished_at";
const ROW = 38;
const MOST_COMPARED = 50;
const SPARK_POINTS = 32;

/** Turn the parameters of this page into those of `GET /v1/jobs`. */
export function listQuery(query: URLSearchParams): string {
  const sent = new URLSearchParams({ limit: String(LONGEST_LIST), fields: FIELDS });
  const states = query.get("state");
  if (states) for (const state of states.split(",")) sent.append("state", state);
  for (const name of ["name", "dataset", "group", "sort"]) {
    const value = query.get(name);
    if (value) sent.set(name, value);
  }
  // days in the place where the page is looked at; "to" takes the whole day in
  const [from, to] = [dayBegins(query.get("from"), 0), dayBegins(query.get("to"), 1)];
  if (from) sent.set("created_after", from);
  if (to) sent.set("created_before", to);
  const label = /^([^=]+)=(.*)$/.exec(query.get("label") ?? "");
  if (label) sent.set(`label.${label[1]}`, label[2] as string);
  const metric = /^\s*([\w.@/-]+)\s*(>=|<=|=|>|<)\s*(\S+)\s*$/.exec(query.get("metric") ?? "");
  // "metric.x>=0.9" is the name "metric.x>" with the value "0.9"
  if (metric) {
    const [, name, operator, value] = metric as unknown as [string, string, string, string];
    const base = `metric.${name}`;
    if (operator === "=") sent.set(base, value);
    else if (operator.endsWith("=")) sent.set(`${base}${operator[0]}`, value);
    else return `${sent}&${encodeURIComponent(`${base}${operator}${value}`)}`;
  }
  return sent.toString();
}

function dayBegins(day: string | null, later: number): string | null {
  const parts = /^(\d{4})-(\d\d)-(\d\d)$/.exec(day ?? "");
  return parts ? new Date(Number(parts[1]), Number(parts[2]) - 1, Number(parts[3]) + later).toISOString() : null;
}

export function metricNames(rows: Iterable<JobRow>): string[] {
  const found = new Set<string>();
  for (const row of rows) for (const name of Object.keys(row.metrics?.best ?? {})) found.add(name);
  const first = ["val_accuracy", "val_r2", "val_loss"];
  return [...first.filter((name) => found.has(name)), ...[...found].filter((name) => !first.includes(name)).sort()];
}

/** Order by a field of the row; what has no value comes last, whichever way. */
export function sorted(rows: Iterable<JobRow>, sort: string): JobRow[] {
  const down = sort.startsWith("-");
  const field = sort.replace(/^-/, "");
  const valueOf = (row: JobRow): string | number | null | undefined =>
    field.startsWith("metrics.best.") ? row.metrics?.best?.[field.slice(13)] : (row[field as keyof JobRow] as string | null);
  return [...rows].sort((a, b) => {
    const [one, other] = [valueOf(a) ?? null, valueOf(b) ?? null];
    if (one === null || other === null) return one === other ? 0 : one === null ? 1 : -1;
    const order = one < other ? -1 : one > other ? 1 : a.id < b.id ? -1 : 1;
    return down ? -order : order;
  });
}

type Which = "best" | "last";

interface Props {
  route: Route;
  mayWrite: boolean;
}

export function JobsPage({ route, mayWrite }: Props) {
  const { rows, connection, problem } = useLiveJobs(listQuery(route.query));
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [action, setAction] = useState<"stop" | "cancel" | "delete" | null>(null);
  const [labelling, setLabelling] = useState(false);
  const [window, setWindow] = useState<[number, number]>([0, 0]);
  const now = useNow();
  const sort = route.query.get("sort") ?? "-created_at";
  const list = useMemo(() => sorted(rows.values(), sort), [rows, sort]);
  const groups = useMemo(() => groupedRows(rows.values()), [rows]);
  const grouped = route.query.get("grouped") === "1" && groups.length < rows.size;
  const open = route.query.get("open") ?? "";
  /** What the table shows: jobs, or groups with those members that were unfolded. */
  const shown = useMemo(() => {
    if (!grouped) return list;
    const unfolded = new Set(open.split(","));
    return sorted(groups, sort).flatMap((row) => (isGroup(row) && unfolded.has(row.id) ? [row, ...sorted(row.members, sort)] : [row]));
  }, [grouped, list, groups, sort, open]);
  const names = useMemo(() => metricNames(rows.values()), [rows]);
  const chosen = route.query.get("columns")?.split(",") ?? names.slice(0, 2);
  const which: Which = route.query.get("which") === "last" ? "last" : "best";
  const sparks = useSparklines(shown.slice(...window).flatMap((row) => (isGroup(row) ? row.members : [row])));
  const isFiltered = [...route.query.keys()].some((name) => !["sort", "columns", "which", "grouped", "open"].includes(name));

  const select = (ids: string[], on: boolean) => {
    const changed = new Set(selected);
    for (const id of ids) if (on) changed.add(id); else changed.delete(id);
    setSelected(changed);
  };
  const unfold = (key: string) => {
    const changed = new Set(open.split(",").filter(Boolean));
    if (!changed.delete(key)) changed.add(key);
    go(withQuery(route, { open: [...changed].join(",") || null }), { replace: true });
  };
  const marked = list.filter((row) => selected.has(row.id)).map((row) => row.id);
  if (connection !== "connecting" && !rows.size && !isFiltered && !problem) return <FirstRun mayWrite={mayWrite} />;
  return (
    <section class="fill">
      <div class="heading">
        <h1>Jobs</h1>
        <ConnectionNote connection={connection} />
        <span class="muted">
          {list.length}
          {list.length === LONGEST_LIST ? " (the newest)" : ""}
        </span>
        {groups.length < rows.size && (
          <label>
            <input
              type="checkbox"
              checked={grouped}
              onChange={(event) => go(withQuery(route, { grouped: event.currentTarget.checked ? "1" : null, open: null }), { replace: true })}
            />{" "}
            Group seeds and folds
          </label>
        )}
        <SavedViews route={route} />
        <ColumnChoice route={route} names={names} chosen={chosen} />
        {mayWrite && (
          <a class="button primary" href={address(["submit"])}>
            New job
          </a>
        )}
      </div>
      <Filters route={route} />
      {problem && <ProblemBox problem={problem} />}
      {marked.length > 0 && (
        <div class="bulk" role="toolbar" aria-label="Selected jobs">
          <strong>{marked.length} selected</strong>
          <a
            class="button"
            aria-disabled={marked.length < 2 || marked.length > MOST_COMPARED}
            href={address(["compare"], { jobs: marked.slice(0, MOST_COMPARED).join(",") })}
          >
            Compare
          </a>
          {mayWrite && (
            <>
              <button onClick={() => setLabelling(true)}>Label</button>
              <button onClick={() => setAction("stop")}>Stop</button>
              <button onClick={() => setAction("cancel")}>Cancel</button>
              <button class="danger" onClick={() => setAction("delete")}>
                Delete
              </button>
            </>
          )}
          <button class="quiet" onClick={() => setSelected(new Set())}>
            Clear
          </button>
        </div>
      )}
      {list.length === 0 && connection !== "connecting" ? (
        <Empty>No job matches these filters.</Empty>
      ) : (
        <VirtualRows
          rows={shown}
          rowHeight={ROW}
          label="Jobs"
          columns={8 + chosen.length}
          onWindow={(first, last) => setWindow([first, last])}
          head={
            <tr>
              <th>
                <input
                  type="checkbox"
                  aria-label="Select all"
                  disabled={list.length === 0} // there is nothing to select before the first rows have come
                  checked={marked.length > 0 && marked.length === list.length}
                  onChange={(event) => setSelected(new Set(event.currentTarget.checked ? list.map((row) => row.id) : []))}
                />
              </th>
              <SortHead route={route} sort={sort} field="name" title="Name" />
              <th>State</th>
              <th>Progress</th>
              <th>Validation loss</th>
              {chosen.map((name) => (
                <SortHead key={name} route={route} sort={sort} field={`metrics.best.${name}`} title={`${which} ${name}`} number />
              ))}
              <th>Dataset</th>
              <SortHead route={route} sort={sort} field="created_at" title="Created" />
              <th class="num">Time</th>
            </tr>
          }
          row={(row) =>
            isGroup(row) ? (
              <GroupCells key={row.id} group={row} selected={selected} select={select} isOpen={open.includes(row.id)} unfold={unfold} sparks={sparks} chosen={chosen} which={which} now={now} />
            ) : (
              <JobCells key={row.id} row={row} route={route} isSelected={selected.has(row.id)} select={select} spark={sparks.get(row.id)} chosen={chosen} which={which} now={now} />
            )
          }
        />
      )}
      {labelling && (
        <LabelDialog
          ids={marked}
          onClose={(done) => {
            setLabelling(false);
            if (done) setSelected(new Set());
          }}
        />
      )}
      {action && (
        <Confirm
          title={`${action[0]?.toUpperCase()}${action.slice(1)} ${marked.length} jobs?`}
          text={EXPLAINED[action]}
          action={`${action[0]?.toUpperCase()}${action.slice(1)}`}
          danger={action !== "stop"}
          run={() => bulk(action, marked)}
          onClose={(done) => {
            setAction(null);
            if (done) setSelected(new Set());
          }}
        />
      )}
    </section>
  );
}

interface CellProps {
  select: (ids: string[], on: boolean) => void;
  chosen: string[];
  which: Which;
  now: number;
}

interface JobCellProps extends CellProps {
  row: JobRow;
  route: Route;
  isSelected: boolean;
  spark: Run | undefined;
}

function JobCells({ row, route, isSelected, select, spark, chosen, which, now }: JobCellProps) {
  return (
    <tr class={isSelected ? "selected" : undefined}>
      <td>
        <input type="checkbox" aria-label={`Select ${row.name}`} checked={isSelected} onChange={() => select([row.id], !isSelected)} />
      </td>
      <td class="name">
        <a href={address(["jobs", row.id])} title={row.id}>
          {row.name || row.id}
        </a>
        {Object.entries(row.labels ?? {}).map(([key, value]) => (
          <a key={key} class="label" href={withQuery(route, { label: `${key}=${value}` })}>
            {key}: {value}
          </a>
        ))}
      </td>
      <td>
        <StateBadge state={row.state} />
        {row.error && <span class="muted"> {row.error.code}</span>}
      </td>
      <td>
        {row.progress?.percent != null && <Progress percent={row.progress.percent} label={`${Math.round(row.progress.percent)} percent`} />}
        {RUNNING.has(row.state) && row.progress?.eta_seconds != null && <span class="muted"> {duration(row.progress.eta_seconds)}</span>}
      </td>
      <td>
        <Sparkline values={spark?.y ?? []} label={`Validation loss of ${row.name}`} />
      </td>
      {chosen.map((name) => (
        <td key={name} class="num">
          {number(row.metrics?.[which]?.[name])}
        </td>
      ))}
      <td>
        {row.dataset?.name}
        {row.dataset?.version ? <span class="muted">:{row.dataset.version}</span> : null}
      </td>
      <td title={row.created_at}>{ago(row.created_at, now)}</td>
      <td class="num">{duration(secondsBetween(row.started_at, row.finished_at, now))}</td>
    </tr>
  );
}

interface GroupCellProps extends CellProps {
  group: GroupRow;
  selected: ReadonlySet<string>;
  isOpen: boolean;
  unfold: (key: string) => void;
  sparks: ReadonlyMap<string, Run>;
}

/** Seeds or folds of one spec: means with standard deviations, and a curve with its band. */
function GroupCells({ group, selected, select, isOpen, unfold, sparks, chosen, which, now }: GroupCellProps) {
  const { members } = group;
  const marked = members.filter((one) => selected.has(one.id)).length;
  const runs = members.flatMap((one) => sparks.get(one.id) ?? []);
  const mean = meanOfRuns(runs, SPARK_POINTS);
  const percent = members.reduce((sum, one) => sum + (one.progress?.percent ?? 0), 0) / members.length;
  const seconds = members.reduce((sum, one) => sum + (secondsBetween(one.started_at, one.finished_at, now) ?? 0), 0);
  return (
    <tr class={marked === members.length ? "group selected" : "group"}>
      <td>
        <input type="checkbox" aria-label={`Select all of ${group.name}`} checked={marked === members.length} onChange={() => select(members.map((one) => one.id), marked < members.length)} />
      </td>
      <td class="name">
        <button class="quiet" aria-expanded={isOpen} onClick={() => unfold(group.id)}>
          <span aria-hidden="true">{isOpen ? "▾" : "▸"}</span> {group.name} <span class="muted">{members.length} runs</span>
        </button>
      </td>
      <td>
        {statesOf(members).map(([state, count]) => (
          <span key={state} class={`badge state-${state}`}>
            {count} {state}
          </span>
        ))}
      </td>
      <td>
        <Progress percent={percent} label={`${Math.round(percent)} percent`} />
      </td>
      <td>
        <Sparkline values={mean.y} band={mean.sd} label={`Mean validation loss of ${group.name}, with one standard deviation`} />
      </td>
      {chosen.map((name) => (
        <td key={name} class="num">
          <MeanOf values={valuesOf(members, which, name)} />
        </td>
      ))}
      <td>{group.dataset?.name}</td>
      <td title={group.created_at}>{ago(group.created_at, now)}</td>
      <td class="num" title="of all runs together">
        {duration(seconds)}
      </td>
    </tr>
  );
}

function MeanOf({ values }: { values: number[] }) {
  if (!values.length) return <>–</>;
  const { mean, sd, n } = moments(values);
  return (
    <span title={`Mean and standard deviation of ${n} runs, from ${number(Math.min(...values))} to ${number(Math.max(...values))}`}>
      {number(mean)}
      {sd !== null && <span class="muted"> ± {Number(sd.toPrecision(2))}</span>}
    </span>
  );
}

const RUNNING = new Set(["starting", "running", "stopping", "pausing"]);
const EXPLAINED = {
  stop: "Each ends after its present step and keeps a usable model. Jobs that have ended stay as they are.",
  cancel: "Each ends at once and keeps no model. Jobs that have ended stay as they are.",
  delete: "Jobs that have ended go with their metrics, logs and models. This cannot be undone. Jobs that run stay.",
};

async function bulk(action: "stop" | "cancel" | "delete", ids: string[]): Promise<void> {
  await api.POST(`/v1/jobs:${action}`, { body: { ids, dry_run: false } });
}

function LabelDialog({ ids, onClose }: { ids: string[]; onClose: (done: boolean) => void }) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState<Problem | null>(null);
  const save = async (event: Event) => {
    event.preventDefault();
    const [key = "", ...rest] = text.split("=");
    try {
      await api.POST("/v1/jobs:label", { body: { ids, dry_run: false, labels: { [key.trim()]: rest.length ? rest.join("=").trim() : null } } });
      onClose(true);
    } catch (error) {
      setProblem(asProblem(error));
    }
  };
  return (
    <Dialog title={`Label ${ids.length} jobs`} onClose={() => onClose(false)}>
      <form onSubmit={save}>
        <label>
          Label <input required placeholder="team=vision" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <p class="muted">A name without a value takes the label away.</p>
        {problem && <ProblemBox problem={problem} />}
        <p class="buttons">
          <button type="button" onClick={() => onClose(false)}>
            Keep
          </button>
          <button class="primary">Label</button>
        </p>
      </form>
    </Dialog>
  );
}

interface SortProps {
  route: Route;
  sort: string;
  field: string;
  title: string;
  number?: boolean;
}

function SortHead({ route, sort, field, title, number: isNumber = false }: SortProps) {
  const direction = sort === field ? "ascending" : sort === `-${field}` ? "descending" : undefined;
  const next = direction === "descending" ? field : `-${field}`;
  return (
    <th aria-sort={direction} class={isNumber ? "num" : undefined}>
      <a href={withQuery(route, { sort: next })}>
        {title}
        {direction && <span aria-hidden="true">{direction === "descending" ? " ↓" : " ↑"}</span>}
      </a>
    </th>
  );
}

function Filters({ route }: { route: Route }) {
  const states = new Set((route.query.get("state") ?? "").split(",").filter(Boolean));
  const toggled = (state: string) => {
    const changed = new Set(states);
    if (!changed.delete(state)) changed.add(state);
    return withQuery(route, { state: [...changed].join(",") || null });
  };
  return (
    <form class="filters" role="search" aria-label="Filters" onSubmit={(event) => event.preventDefault()}>
      <span class="chips">
        {STATES.map((state) => (
          <a key={state} role="button" aria-pressed={states.has(state)} class="chip" href={toggled(state)}>
            {state}
          </a>
        ))}
      </span>
      {TEXT_FILTERS.map(([name, title, example]) => (
        <label key={name}>
          <span>{title}</span>
          <input
            name={name}
            value={route.query.get(name) ?? ""}
            placeholder={example}
            onChange={(event) => go(withQuery(route, { [name]: event.currentTarget.value.trim() || null }))}
          />
        </label>
      ))}
      {["from", "to"].map((name) => (
        <label key={name}>
          <span>Created {name}</span>
          <input type="date" value={route.query.get(name) ?? ""} onChange={(event) => go(withQuery(route, { [name]: event.currentTarget.value || null }))} />
        </label>
      ))}
    </form>
  );
}

function ColumnChoice({ route, names, chosen }: { route: Route; names: string[]; chosen: string[] }) {
  return (
    <details class="menu">
      <summary>Columns</summary>
      <div>
        <label>
          <input
            type="checkbox"
            checked={route.query.get("which") === "last"}
            onChange={(event) => go(withQuery(route, { which: event.currentTarget.checked ? "last" : null }), { replace: true })}
          />
          last values, not best
        </label>
        {names.map((name) => (
          <label key={name}>
            <input
              type="checkbox"
              checked={chosen.includes(name)}
              onChange={(event) => {
                const kept = event.currentTarget.checked ? [...chosen, name] : chosen.filter((one) => one !== name);
                go(withQuery(route, { columns: kept.join(",") || null }), { replace: true });
              }}
            />
            {name}
          </label>
        ))}
      </div>
    </details>
  );
}

function SavedViews({ route }: { route: Route }) {
  const [stored, store] = useStored("trainkit-views", "[]");
  const views = JSON.parse(stored) as { name: string; query: string }[];
  const save = () => {
    const name = prompt("Name of this view")?.trim();
    if (name) store(JSON.stringify([...views.filter((view) => view.name !== name), { name, query: route.query.toString() }]));
  };
  return (
    <details class="menu">
      <summary>Views</summary>
      <div>
        {views.map((view) => (
          <span key={view.name} class="view">
            <a href={address(["jobs"], new URLSearchParams(view.query))}>{view.name}</a>
            <button class="quiet" aria-label={`Forget ${view.name}`} onClick={() => store(JSON.stringify(views.filter((one) => one !== view)))}>
              ×
            </button>
          </span>
        ))}
        <button onClick={save}>Save this view</button>
      </div>
    </details>
  );
}

/** Small curves of the rows in sight, each fetched once, those that run again while they do. */
function useSparklines(rows: JobRow[]): ReadonlyMap<string, Run> {
  const [curves, setCurves] = useState<ReadonlyMap<string, Run>>(new Map());
  const known = useRef(new Map<string, string>());
  const load = useCallback(async (wanted: JobRow[]) => {
    for (let at = 0; at < wanted.length; at += MOST_COMPARED) {
      const part = wanted.slice(at, at + MOST_COMPARED);
      const answer = await api
        .GET("/v1/metrics/series", { params: { query: { jobs: part.map((row) => row.id).join(","), names: "val_loss", max_points: SPARK_POINTS } } })
        .catch(() => null); // one of them was deleted meanwhile: the next look asks for the others
      if (!answer) return;
      setCurves((old) => new Map([...old, ...dataOf(answer).jobs.map((job) => [job.id, { x: job.series.val_loss?.step ?? [], y: job.series.val_loss?.value ?? [] }] as const)]));
    }
  }, []);
  const stamp = (row: JobRow) => `${row.state} ${Math.round(row.progress?.percent ?? 0)}`;
  const wanted = rows.filter((row) => row.progress && known.current.get(row.id) !== stamp(row));
  const key = wanted.map((row) => row.id + stamp(row)).join();
  useEffect(() => {
    if (!wanted.length) return;
    const timer = setTimeout(() => {
      for (const row of wanted) known.current.set(row.id, stamp(row));
      void load(wanted);
    }, 200);
    return () => clearTimeout(timer);
  }, [key]);
  return curves;
}
