/** The held-out part: metrics, confusion matrix that leads to the samples, classes, calibration, ablation. */

import { useState } from "preact/hooks";
import { api, dataOf, type Job, type Schemas } from "../api/client";
import { number, words } from "../format";
import { useLoaded } from "../hooks";
import { ApiImage, Dialog, ProblemBox } from "./basics";

const MOST_CLASSES = 40;
type Evaluation = Schemas["Evaluation"];

export function EvaluationView({ job }: { job: Job }) {
  const evaluation = useLoaded(`${job.id} ${job.state}`, async () =>
    dataOf(await api.GET("/v1/jobs/{job_id}/evaluation", { params: { path: { job_id: job.id } } })),
  );
  if (evaluation.problem) return <ProblemBox problem={evaluation.problem} />;
  const found = evaluation.data;
  if (!found) return <p class="muted">Loading</p>;
  return (
    <section>
      <p class="muted">
        {found.samples} samples of the {found.split} part
      </p>
      <dl class="facts">
        {Object.entries(found.metrics).map(([name, value]) => (
          <div key={name}>
            <dt>{words(name)}</dt>
            <dd>{number(value)}</dd>
          </div>
        ))}
      </dl>
      <div class="beside">
        <Confusion evaluation={found} dataset={job.dataset.id} />
        <PerClass rows={found.per_class ?? []} />
        {found.calibration && <CalibrationPlot calibration={found.calibration} />}
      </div>
      {found.ablation && <Ablation metrics={found.metrics} ablation={found.ablation} />}
    </section>
  );
}

type SortKey = "class" | "support" | "precision" | "recall" | "f1";
const COLUMNS: [SortKey, string][] = [
  ["class", "Class"],
  ["support", "Samples"],
  ["precision", "Precision"],
  ["recall", "Recall"],
  ["f1", "F1"],
];

/** Sorted by what was clicked; the classes that are recognised worst come first at the second click. */
function PerClass({ rows }: { rows: Schemas["ClassMetrics"][] }) {
  const [sort, setSort] = useState<{ key: SortKey; down: boolean } | null>(null);
  if (!rows.length) return null;
  const valueOf = (row: Schemas["ClassMetrics"]) => (sort ? (row[sort.key] ?? 0) : 0);
  const ordered = sort ? [...rows].sort((a, b) => (valueOf(a) < valueOf(b) ? -1 : 1) * (sort.down ? -1 : 1)) : rows;
  return (
    <table class="plain">
      <caption>Classes</caption>
      <thead>
        <tr>
          {COLUMNS.map(([key, title]) => (
            <th key={key} class={key === "class" ? undefined : "num"} aria-sort={sort?.key === key ? (sort.down ? "descending" : "ascending") : undefined}>
              <button class="quiet sort" onClick={() => setSort({ key, down: sort?.key === key ? !sort.down : key !== "class" })}>
                {title} {sort?.key === key && (sort.down ? "↓" : "↑")}
              </button>
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {ordered.map((row) => (
          <tr key={row.class}>
            <th scope="row">{row.class}</th>
            <td class="num">{row.support}</td>
            <td class="num">{number(row.precision)}</td>
            <td class="num">{number(row.recall)}</td>
            <td class="num">{number(row.f1)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const SIZE = 220;
const MARGIN = 34;

/** Accuracy over confidence; a circle's area is the share of the samples. On the diagonal the model is as right as sure. */
function CalibrationPlot({ calibration }: { calibration: Schemas["Calibration"] }) {
  const bins = calibration.bins ?? [];
  const error = calibration.expected_calibration_error ?? 0;
  const all = bins.reduce((sum, bin) => sum + (bin.samples ?? 0), 0) || 1;
  const x = (value: number) => MARGIN + value * (SIZE - MARGIN - 8);
  const y = (value: number) => SIZE - MARGIN - value * (SIZE - MARGIN - 8);
  const text = bins.map((bin) => `confidence ${number(bin.confidence)}: accuracy ${number(bin.accuracy)} of ${bin.samples} samples`).join("; ");
  return (
    <figure class="chart calibration">
      <figcaption>Calibration</figcaption>
      <svg viewBox={`0 0 ${SIZE} ${SIZE}`} role="img" aria-label={`Calibration. ${text}.`}>
        {[0, 0.5, 1].map((at) => (
          <g key={at}>
            <line class="grid" x1={x(0)} x2={x(1)} y1={y(at)} y2={y(at)} />
            <line class="grid" x1={x(at)} x2={x(at)} y1={y(0)} y2={y(1)} />
            <text x={x(at)} y={SIZE - MARGIN + 14} text-anchor="middle">
              {at}
            </text>
            <text x={MARGIN - 5} y={y(at) + 4} text-anchor="end">
              {at}
            </text>
          </g>
        ))}
        <line class="diagonal" x1={x(0)} y1={y(0)} x2={x(1)} y2={y(1)} />
        <polyline points={bins.map((bin) => `${x(bin.confidence ?? 0)},${y(bin.accuracy ?? 0)}`).join(" ")} />
        {bins.map((bin) => (
          <circle key={bin.low} cx={x(bin.confidence ?? 0)} cy={y(bin.accuracy ?? 0)} r={3 + 9 * Math.sqrt((bin.samples ?? 0) / all)}>
            <title>{`${bin.samples} samples: confidence ${number(bin.confidence)}, accuracy ${number(bin.accuracy)}`}</title>
          </circle>
        ))}
        <text x={x(0.5)} y={SIZE - 4} text-anchor="middle">
          confidence
        </text>
        <text x={10} y={y(0.5)} text-anchor="middle" transform={`rotate(-90 10 ${y(0.5)})`}>
          accuracy
        </text>
      </svg>
      <p class="muted">Expected calibration error {number(error)}</p>
    </figure>
  );
}

/** What is left of each metric when the image or the columns are another sample's. */
function Ablation({ metrics, ablation }: { metrics: Evaluation["metrics"]; ablation: Schemas["Ablation"] }) {
  const columns: [string, Evaluation["metrics"]][] = [
    ["Both", metrics],
    ["Without image", ablation.without_image ?? {}],
    ["Without columns", ablation.without_columns ?? {}],
  ];
  const names = Object.keys(metrics ?? {}).filter((name) => columns.every(([, values]) => values?.[name] != null));
  return (
    <div class="scroll">
      <table class="plain bars-of">
        <caption>Ablation: one input is another sample's, the mean of {ablation.permutations} permutations</caption>
        <thead>
          <tr>
            <th>Metric</th>
            {columns.map(([title]) => (
              <th key={title}>{title}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {names.map((name) => {
            const most = Math.max(...columns.map(([, values]) => Math.abs(values?.[name] ?? 0))) || 1;
            return (
              <tr key={name}>
                <th scope="row">{words(name)}</th>
                {columns.map(([title, values]) => (
                  <td key={title}>
                    {number(values?.[name])}
                    <i ref={(bar) => bar?.style.setProperty("width", `${(100 * Math.abs(values?.[name] ?? 0)) / most}%`)} />
                  </td>
                ))}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

interface Cell {
  title: string;
  samples: number[];
  count: number;
}

/** Rows are the true classes; the shade is the share of the row. A cell of mistakes opens the samples. */
function Confusion({ evaluation, dataset }: { evaluation: Evaluation; dataset: string }) {
  const [opened, open] = useState<Cell | null>(null);
  const { classes = [], confusion_matrix: counts = [], misclassified = [] } = evaluation;
  if (!counts.length) return null;
  const samplesOf = new Map(misclassified.map((cell) => [`${cell.actual} ${cell.predicted}`, cell.samples ?? []]));
  const cell = (i: number, j: number, count: number): Cell => ({ title: `${classes[i]} predicted as ${classes[j]}`, samples: samplesOf.get(`${i} ${j}`) ?? [], count });
  const dialog = opened && (
    <Dialog title={opened.title} onClose={() => open(null)}>
      <p class="muted">
        {opened.samples.length < opened.count ? `The ${opened.samples.length} surest of ${opened.count} mistakes` : `${opened.count} mistakes`}, by position in the dataset
      </p>
      <ApiImage path={`/v1/datasets/${encodeURIComponent(dataset)}/preview.png?samples=${opened.samples.join()}`} alt={`Samples ${opened.samples.join(", ")}`} />
      <form method="dialog" class="buttons">
        <button>Close</button>
      </form>
    </Dialog>
  );
  const listed = classes.length > MOST_CLASSES;
  return (
    <>
      {dialog}
      {listed ? (
        <ConfusedPairs cells={misclassified.map((one) => cell(one.actual ?? 0, one.predicted ?? 0, counts[one.actual ?? 0]?.[one.predicted ?? 0] ?? 0))} open={open} />
      ) : (
        <div class="scroll">
          <table class="confusion">
            <caption>Confusion matrix: true class by row, predicted class by column</caption>
            <thead>
              <tr>
                <td />
                {classes.map((name) => (
                  <th key={name} scope="col">
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {counts.map((row, i) => {
                const sum = row.reduce((a, b) => a + b, 0) || 1;
                return (
                  <tr key={classes[i]}>
                    <th scope="row">{classes[i]}</th>
                    {row.map((count, j) => {
                      const found = cell(i, j, count);
                      return (
                        <td
                          key={classes[j]}
                          class={i === j ? "right" : "wrong"}
                          title={`${count} of ${sum} ${found.title}`}
                          ref={(element) => element?.style.setProperty("--share", String(count / sum))}
                        >
                          {i !== j && found.samples.length > 0 ? (
                            <button aria-label={`${count} ${found.title}: show the samples`} onClick={() => open(found)}>
                              {count}
                            </button>
                          ) : (
                            count || ""
                          )}
                        </td>
                      );
                    })}
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

/** Of many classes a matrix cannot be read: the pairs that are confused most. */
function ConfusedPairs({ cells, open }: { cells: Cell[]; open: (cell: Cell) => void }) {
  return (
    <table class="plain">
      <caption>Classes that are confused most</caption>
      <tbody>
        {cells.slice(0, MOST_CLASSES).map((one) => (
          <tr key={one.title}>
            <th scope="row">{one.title}</th>
            <td class="num">{one.count}</td>
            <td>
              <button class="quiet" onClick={() => open(one)}>
                Samples
              </button>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
