/** What happened to a run, at its places on the axis of the curves. Pure functions of what the API gives. */

import type { Job, Schemas } from "./api/client";
import type { Pause, XAxis } from "./curves";
import { number, words } from "./format";
import type { Points } from "./live_series";

export type MarkKind = "best" | "rule" | "rate" | "break" | "resume";

export interface Mark {
  x: number;
  kind: MarkKind;
  text: string;
}

export interface History {
  decisions: readonly Schemas["Decision"][];
  attempts: readonly Schemas["Attempt"][];
}

export interface Axis {
  name: XAxis;
  stepsPerEpoch: number | null;
  /** When the job started, in milliseconds. */
  start: number;
}

const BREAKS: Record<string, string> = { paused: "paused", lost: "interrupted: worker lost", handed_back: "handed back by its worker", failed: "failed" };
const MOST_RATES = 40;
const LEAST_CHANGE = 0.02;

/** From the end of each attempt to the beginning of the next one. */
export function pausesOf(attempts: History["attempts"], start: number): Pause[] {
  return attempts.slice(1).flatMap((attempt, index): Pause[] => {
    const ended = attempts[index]?.finished_at;
    if (!ended) return [];
    const pause: Pause = [(Date.parse(ended) - start) / 1000, (Date.parse(attempt.started_at) - start) / 1000];
    return pause[1] > pause[0] ? [pause] : [];
  });
}

/**
 * Places where a rate that stood still changed: a drop of a plateau schedule, a milestone. A rate that changes all the
 * time, as a cosine does, has none.
 */
export function rateChanges(rate: Points | undefined): { index: number; text: string }[] {
  const changes: { index: number; text: string }[] = [];
  const values = rate?.value ?? [];
  for (let i = 2; i < values.length; i += 1) {
    const [earlier, before, after] = [values[i - 2], values[i - 1], values[i]];
    if (before == null || after == null || earlier !== before || !(Math.abs(after - before) > LEAST_CHANGE * Math.abs(before))) continue;
    changes.push({ index: i, text: `rate ${number(before)} → ${number(after)}` });
  }
  return changes.length <= MOST_RATES ? changes : [];
}

export function marksOf(job: Job, series: ReadonlyMap<string, Points>, history: History, axis: Axis): Mark[] {
  const { name, stepsPerEpoch, start } = axis;
  const seconds = (at: string) => (Date.parse(at) - start) / 1000;
  const place = (step: number, epoch: number, at: string) => (name === "time" ? seconds(at) : name === "step" ? step : stepsPerEpoch ? step / stepsPerEpoch : epoch);
  const placeOf = (points: Points, index: number) => {
    const step = points.step[index] as number;
    if (name === "time") return points.elapsed[index] as number;
    return name === "step" ? step : stepsPerEpoch ? step / stepsPerEpoch : (points.epoch[index] as number);
  };
  const marks: Mark[] = [];
  const best = job.result?.best_epoch;
  const evaluations = series.get("val_loss") ?? series.get("train_loss");
  if (best != null && evaluations) {
    const index = evaluations.epoch.lastIndexOf(best);
    if (index >= 0) marks.push({ x: placeOf(evaluations, index), kind: "best", text: `best epoch ${best}` });
  }
  const rate = series.get("train_lr");
  for (const { index, text } of rateChanges(rate)) marks.push({ x: placeOf(rate as Points, index), kind: "rate", text });
  for (const decision of history.decisions) {
    const rule = words(String((decision.rule as { kind?: unknown }).kind ?? "rule"));
    marks.push({ x: place(decision.step, decision.epoch, decision.at), kind: "rule", text: `stopped: ${rule}` });
  }
  marks.push(...breaksOf(job, history.attempts, place));
  return marks.sort((a, b) => a.x - b.x);
}

/** Where attempts ended before the job did, and where the next one went on. */
function breaksOf(job: Job, attempts: History["attempts"], place: (step: number, epoch: number, at: string) => number): Mark[] {
  return attempts.flatMap((attempt, index): Mark[] => {
    const how = BREAKS[attempt.outcome ?? ""];
    const next = attempts[index + 1];
    const marks: Mark[] = [];
    if (index > 0) {
      const from = attempt.resumed_from_step;
      const text = from == null ? `attempt ${attempt.attempt} began anew` : `attempt ${attempt.attempt} resumed from step ${from}`;
      marks.push({ x: place(from ?? 0, 0, attempt.started_at), kind: "resume", text });
    }
    if (how && attempt.finished_at && (next || job.state === "paused")) {
      // the log keeps nothing beyond the checkpoint: by steps, a break and its resume are one place
      const step = next ? (next.resumed_from_step ?? 0) : (job.progress?.step ?? 0);
      marks.push({ x: place(step, 0, attempt.finished_at), kind: "break", text: how });
    }
    return marks;
  });
}
