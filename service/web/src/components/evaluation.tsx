/** The held-out part: metrics, confusion matrix, classes. */

import { api, dataOf, type Job } from "../api/client";
import { number, words } from "../format";
import { useLoaded } from "../hooks";
import { ProblemBox } from "./basics";

const MOST_CLASSES = 40;

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
      {found.confusion_matrix && found.classes && <Confusion classes={found.classes} counts={found.confusion_matrix} />}
      {found.per_class && found.per_class.length > 0 && (
        <table class="plain">
          <caption>Classes</caption>
          <thead>
            <tr>
              <th>Class</th>
              <th class="num">Samples</th>
              <th class="num">Precision</th>
              <th class="num">Recall</th>
              <th class="num">F1</th>
            </tr>
          </thead>
          <tbody>
            {found.per_class.map((row) => (
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
      )}
    </section>
  );
}

/** Rows are the true classes; the shade is the share of the row. */
function Confusion({ classes, counts }: { classes: string[]; counts: number[][] }) {
  if (classes.length > MOST_CLASSES) return <p class="muted">{classes.length} classes: too many to draw the confusion matrix.</p>;
  return (
    <div class="scroll">
      <table class="confusion">
        <caption>Confusion matrix: true class by row, predicted class by column</caption>
        <thead>
          <tr>
            <th />
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
                {row.map((count, j) => (
                  <td
                    key={classes[j]}
                    class={i === j ? "right" : "wrong"}
                    title={`${count} of ${sum} ${classes[i]} predicted as ${classes[j]}`}
                    ref={(cell) => cell?.style.setProperty("--share", String(count / sum))}
                  >
                    {count || ""}
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
