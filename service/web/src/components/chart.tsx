/** One panel of curves, drawn by uPlot: raw and smoothed lines, bands of one standard error, marks, common cursor, zoom. */

import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { aligned, type Pause, smoothed } from "../curves";
import { save } from "../download";
import { duration, number, shortDuration, tick } from "../format";

export interface ChartLine {
  label: string;
  x: number[];
  y: (number | null)[];
  se?: (number | null)[] | null;
  /** A color, or `var(--name)` of one. */
  color: string;
  dashed?: boolean;
  /** Points alone, which nothing joins. */
  points?: boolean;
}

/** A place on the x axis; `label` is drawn at its line. */
export interface ChartMark {
  x: number;
  label: string;
  color: string;
}

interface Props {
  title: string;
  lines: ChartLine[];
  marks?: ChartMark[];
  /** Parts of the x axis that are shaded. */
  shades?: readonly Pause[];
  /** What x counts; `time` is in seconds. */
  xLabel: string;
  log?: boolean;
  smoothing?: number;
  group: string;
  legend?: boolean;
  range?: [number, number] | null;
  onZoom?: (range: [number, number] | null) => void;
}

const HEIGHT = 220;
const BAND_OPACITY = 0.16;
const RAW_OPACITY = 0.3;
const SHADE_OPACITY = 0.12;
/** Steps of an axis of time, in seconds. */
const TIME_STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800];
/** Class of lines that the legend leaves out: the edges of a band, the raw values behind a smoothed line. */
const UNNAMED = "unnamed";

export function resolvedColor(color: string): string {
  const name = /^var\((--[\w-]+)\)$/.exec(color)?.[1];
  return name ? css(name) || "#888" : color;
}

function faded(color: string, opacity: number): string {
  return `color-mix(in srgb, ${color} ${Math.round(opacity * 100)}%, transparent)`;
}

function css(name: string): string {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const pair = /^light-dark\((.*),\s*(.*)\)$/.exec(value);
  return pair ? ((isDark() ? pair[2] : pair[1]) ?? value) : value;
}

function isDark(): boolean {
  const chosen = document.documentElement.dataset.theme;
  return chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
}

/** Whether the page is dark; a canvas does not follow the style sheet by itself. */
function useDark(): boolean {
  const [dark, setDark] = useState(isDark);
  useEffect(() => {
    const look = () => setDark(isDark());
    const observer = new MutationObserver(look);
    observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", look);
    return () => {
      observer.disconnect();
      system.removeEventListener("change", look);
    };
  }, []);
  return dark;
}

interface Drawn {
  data: uPlot.AlignedData;
  series: uPlot.Series[];
  bands: uPlot.Band[];
}

/** Columns and their looks: a band's edges, the faint raw line, and the line itself. */
function drawnOf(lines: ChartLine[], smoothing: number): Drawn {
  const columns: { x: number[]; y: (number | null)[] }[] = [];
  const series: uPlot.Series[] = [{}];
  const bands: uPlot.Band[] = [];
  for (const line of lines) {
    const { x, y, se } = line;
    const color = resolvedColor(line.color);
    if (se?.some((error) => error !== null)) {
      const edge = (sign: number) => y.map((value, i) => (value === null || se[i] == null ? null : value + sign * (se[i] as number)));
      columns.push({ x, y: edge(1) }, { x, y: edge(-1) });
      const at = series.length;
      const hidden: uPlot.Series = { stroke: "transparent", points: { show: false }, class: UNNAMED };
      series.push({ ...hidden }, { ...hidden });
      bands.push({ series: [at, at + 1], fill: faded(color, BAND_OPACITY) });
    }
    const dash = line.dashed ? { dash: [6, 4] } : {};
    const few = { show: y.length < 40, size: 4 };
    if (smoothing > 0 && y.length > 2) {
      columns.push({ x, y });
      series.push({ stroke: faded(color, RAW_OPACITY), width: 1, points: { show: false }, class: UNNAMED, ...dash });
      columns.push({ x, y: smoothed(y, smoothing) });
      series.push({ label: line.label, stroke: color, width: 2, points: { show: false }, ...dash });
    } else {
      columns.push({ x, y });
      const alone = line.points ? { paths: () => null, points: { show: true, size: 7, fill: color } } : {};
      series.push({ label: line.label, stroke: color, width: 1.75, points: few, ...dash, ...alone });
    }
  }
  return { data: aligned(columns) as uPlot.AlignedData, series, bands };
}

function drawShades(plot: uPlot, shades: readonly Pause[]): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = faded(css("--muted"), SHADE_OPACITY);
  for (const [from, to] of shades) {
    const left = Math.max(bbox.left, plot.valToPos(from, "x", true));
    const right = Math.min(bbox.left + bbox.width, plot.valToPos(to, "x", true));
    if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
  }
  ctx.restore();
}

function drawMarks(plot: uPlot, marks: readonly ChartMark[]): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.font = `${10 * devicePixelRatio}px system-ui`;
  ctx.textBaseline = "top";
  ctx.lineWidth = devicePixelRatio;
  let free = Number.NEGATIVE_INFINITY;
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.x, "x", true)) + 0.5;
    ctx.strokeStyle = ctx.fillStyle = resolvedColor(mark.color);
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const width = ctx.measureText(mark.label).width;
    if (x < free) continue; // a number over another one cannot be read
    const isLast = x + 3 * devicePixelRatio + width > bbox.left + bbox.width;
    ctx.fillText(mark.label, isLast ? x - width - 3 * devicePixelRatio : x + 3 * devicePixelRatio, bbox.top + 2 * devicePixelRatio);
    free = x + width + 4 * devicePixelRatio;
  }
  ctx.restore();
}

function axesOf(isTime: boolean): uPlot.Axis[] {
  const grid = { stroke: css("--line"), width: 1 };
  const axis: uPlot.Axis = { stroke: css("--muted"), grid, ticks: grid, font: "11px system-ui" };
  const times: uPlot.Axis = { incrs: TIME_STEPS, space: 64, values: (_, splits) => splits.map(shortDuration) };
  return [
    { ...axis, values: (_, splits) => splits.map(tick), ...(isTime ? times : {}) },
    { ...axis, size: 58, values: (_, splits) => splits.map(tick) },
  ];
}

export function Chart(props: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const dark = useDark();
  const { lines, log = false, smoothing = 0, range = null, marks, shades } = props;
  // what needs a new plot; new data of the same lines does not
  const shape = JSON.stringify([
    dark,
    log,
    smoothing > 0,
    props.xLabel,
    lines.map((line) => [line.label, line.color, line.dashed, Boolean(line.se), line.y.length < 40, line.y.length > 2]),
  ]);

  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const { data, series, bands } = drawnOf(latest.current.lines, latest.current.smoothing ?? 0);
    const isTime = latest.current.xLabel === "time";
    const xSeries: uPlot.Series = { label: latest.current.xLabel, value: (_, v) => (isTime ? duration(v) : number(v)) };
    const drawn = new uPlot(
      {
        width: element.clientWidth || 400,
        height: HEIGHT,
        series: series.map((one, i) => (i === 0 ? xSeries : { value: (_, v) => number(v), ...one })),
        bands,
        axes: axesOf(isTime),
        scales: {
          x: { time: false, ...(latest.current.range ? { range: () => latest.current.range ?? [0, 1] } : {}) },
          y: { distr: log ? 3 : 1 },
        },
        cursor: { sync: { key: latest.current.group, setSeries: false }, drag: { x: true, y: false, setScale: false }, focus: { prox: 16 } },
        legend: { show: latest.current.legend ?? true, live: true },
        hooks: {
          drawClear: [(one) => drawShades(one, latest.current.shades ?? [])],
          draw: [(one) => drawMarks(one, latest.current.marks ?? [])],
          setSelect: [
            (one) => {
              const { left, width } = one.select;
              if (width < 4) return;
              latest.current.onZoom?.([one.posToVal(left, "x"), one.posToVal(left + width, "x")]);
              one.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            },
          ],
        },
      },
      data,
      element,
    );
    plot.current = drawn;
    const observer = new ResizeObserver(() => drawn.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    const unzoom = () => latest.current.onZoom?.(null);
    drawn.over.addEventListener("dblclick", unzoom);
    return () => {
      observer.disconnect();
      drawn.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => {
    const drawn = plot.current;
    if (!drawn) return;
    drawn.setData(drawnOf(lines, smoothing).data, range === null);
    if (range) drawn.setScale("x", { min: range[0], max: range[1] });
  }, [lines, smoothing, range, shape]);
  useEffect(() => {
    // uPlot cannot draw axes of no data
    if (plot.current?.data[0]?.length) plot.current.redraw(false);
  }, [marks, shades]);

  return (
    <figure class="chart">
      <figcaption>
        {props.title}
        <button class="quiet" title="Save the points of this chart as CSV" aria-label={`Save ${props.title} as CSV`} onClick={() => save(new Blob([csvOf(props.xLabel, lines)], { type: "text/csv" }), `${props.title}.csv`)}>
          CSV
        </button>
      </figcaption>
      <div ref={host} class="plot" role="img" aria-label={summary(props)} data-points={lines.map((line) => line.y.length).join()} />
    </figure>
  );
}

/** The points that are drawn, before smoothing; empty where a line has no value. */
export function csvOf(xLabel: string, lines: readonly ChartLine[]): string {
  const [x = [], ...columns] = aligned(lines);
  const quoted = (text: string) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  const rows = x.map((at, index) => [at, ...columns.map((column) => column[index] ?? "")].join());
  return `${[[xLabel, ...lines.map((line) => line.label)].map(quoted).join(), ...rows].join("\n")}\n`;
}

/** The same in words, for who does not see the picture. */
function summary({ title, lines }: Props): string {
  const ends = lines.map((line) => `${line.label}: last ${number(line.y.findLast((value) => value !== null))}`);
  return `Chart of ${title}. ${ends.join("; ")}.`;
}
