/** What the check of a dataset found: findings first, then classes and columns with their distributions. */

import type { Schemas } from "../api/client";
import { number, words } from "../format";

type DatasetReport = Schemas["DatasetReport"];
type Statistics = Record<string, number>;
const WIDTH = 150;
const HEIGHT = 16;
const MOST_CATEGORIES = 12;
const MOST_COLUMNS = 200;
const SEVERE: Record<string, string> = { error: "bad", warning: "warn" };

export function Report({ report }: { report: DatasetReport }) {
  const columns = report.columns ?? [];
  return (
    <>
      {report.findings && report.findings.length > 0 && (
        <section>
          <h2>Findings</h2>
          <ul class="findings">
            {report.findings.map((finding, index) => (
              <li key={index} class={SEVERE[finding.severity]}>
                <strong>{words(finding.code)}</strong> {finding.message}
              </li>
            ))}
          </ul>
        </section>
      )}
      {report.classes && <Counts title="Classes" counts={report.classes} />}
      {columns.length > 0 && (
        <section class="scroll">
          <h2>Columns</h2>
          <table class="plain">
            <thead>
              <tr>
                <th>Column</th>
                <th>Read as</th>
                <th class="num">Missing</th>
                <th class="num">Values</th>
                <th>Distribution</th>
                <th class="num">Mean</th>
                <th class="num">Standard deviation</th>
              </tr>
            </thead>
            <tbody>
              {columns.slice(0, MOST_COLUMNS).map((column) => {
                const more = column as typeof column & { missing?: number; unique?: number; categories?: Record<string, number> | null };
                const statistics = report.column_statistics?.[column.name] as Statistics | undefined;
                return (
                  <tr key={column.name}>
                    <th scope="row">{column.name}</th>
                    <td title={column.summary ?? undefined}>{column.read_as}</td>
                    <td class="num">{number(more.missing)}</td>
                    <td class="num">{number(more.unique)}</td>
                    <td>{statistics ? <Quartiles name={column.name} of={statistics} /> : more.categories ? <Categories counts={more.categories} /> : "–"}</td>
                    <td class="num">{number(statistics?.mean)}</td>
                    <td class="num">{number(statistics?.std)}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
          {columns.length > MOST_COLUMNS && <p class="muted">{columns.length - MOST_COLUMNS} further columns are in the report of the API.</p>}
        </section>
      )}
    </>
  );
}

/** A box from the first to the third quartile, and whiskers to the ends. */
function Quartiles({ name, of }: { name: string; of: Statistics }) {
  const { min = 0, q1 = 0, median = 0, q3 = 0, max = 0 } = of;
  const x = (value: number) => (max > min ? 2 + ((value - min) / (max - min)) * (WIDTH - 4) : WIDTH / 2);
  const text = `${name}: from ${number(min)} to ${number(max)}, quartiles ${number(q1)}, ${number(median)}, ${number(q3)}`;
  return (
    <svg class="sparkline" width={WIDTH} height={HEIGHT} role="img" aria-label={text}>
      <title>{text}</title>
      <line x1={x(min)} x2={x(max)} y1={HEIGHT / 2} y2={HEIGHT / 2} stroke="currentColor" />
      <rect x={x(q1)} width={Math.max(1, x(q3) - x(q1))} y="2" height={HEIGHT - 4} fill="currentColor" fill-opacity="0.3" stroke="currentColor" />
      <line x1={x(median)} x2={x(median)} y1="1" y2={HEIGHT - 1} stroke="currentColor" stroke-width="2" />
    </svg>
  );
}

function Categories({ counts }: { counts: Record<string, number> }) {
  const ordered = Object.entries(counts).sort(([, a], [, b]) => b - a);
  const all = ordered.reduce((sum, [, count]) => sum + count, 0) || 1;
  return (
    <span title={ordered.slice(0, MOST_CATEGORIES).map(([name, count]) => `${name}: ${count}`).join("\n")}>
      {ordered.slice(0, 3).map(([name, count]) => `${name} ${Math.round((100 * count) / all)} %`).join(", ")}
      {ordered.length > 3 && <span class="muted"> and {ordered.length - 3} more</span>}
    </span>
  );
}

export function Counts({ title, counts }: { title: string; counts: Record<string, number | null> }) {
  const rows = Object.entries(counts);
  const most = Math.max(1, ...rows.map(([, count]) => count ?? 0));
  if (!rows.length) return null;
  return (
    <section>
      <h2>{title}</h2>
      <table class="bars">
        <tbody>
          {rows.map(([name, count]) => (
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
  );
}

/** How the dataset differs from another one, as the service measured it. */
export function DriftTable({ drift }: { drift: Schemas["DatasetDrift"] }) {
  const drifted = drift.columns.filter((column) => column.drifted).length;
  const share = (value: number | null) => (value === null ? "–" : `${number(100 * value)} %`);
  return (
    <>
      <p role="status">
        {drifted ? `${drifted} of ${drift.columns.length} drifted.` : `None of ${drift.columns.length} drifted.`} {number(drift.samples_before)} samples before,{" "}
        {number(drift.samples_after)} now.
        {drift.added.length > 0 && ` New columns: ${drift.added.join(", ")}.`}
        {drift.removed.length > 0 && ` Columns that are gone: ${drift.removed.join(", ")}.`}
      </p>
      <div class="scroll">
        <table class="plain">
          <caption>Drift</caption>
          <thead>
            <tr>
              <th>What</th>
              <th>Kind</th>
              <th>Result</th>
              <th class="num">Mean before</th>
              <th class="num">Mean now</th>
              <th class="num">Shift (standard deviations)</th>
              <th class="num">KS at least</th>
              <th class="num">PSI</th>
              <th class="num">Missing before</th>
              <th class="num">Missing now</th>
            </tr>
          </thead>
          <tbody>
            {drift.columns.map((column) => (
              <tr key={`${column.kind} ${column.name}`} class={column.drifted ? "selected" : undefined}>
                <th scope="row">{column.name}</th>
                <td>{column.kind}</td>
                <td>{column.drifted ? "drifted" : "as before"}</td>
                <td class="num">{number(column.mean_before)}</td>
                <td class="num">{number(column.mean_after)}</td>
                <td class="num">{number(column.shift)}</td>
                <td class="num">{number(column.ks_at_least)}</td>
                <td class="num">{number(column.psi)}</td>
                <td class="num">{share(column.missing_before)}</td>
                <td class="num">{share(column.missing_after)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
