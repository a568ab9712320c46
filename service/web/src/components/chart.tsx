/** One panel of curves, drawn by uPlot: raw and smoothed lines, bands of one standard error, marks, common cursor, zoom. */

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { aligned, smoothed } from "../curves";
import { number, tick } from "../format";

export interface ChartLine {
  label: string;
  x: number[];
  y: (number | null)[];
  se?: (number | null)[] | null;
  color: string;
  dashed?: boolean;
  /** Points alone, which nothing joins. */
  points?: boolean;
}

export interface Mark {
  x: number;
  text: string;
  color: string;
}

interface Props {
  title: string;
  lines: ChartLine[];
  marks?: Mark[];
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
/** Class of lines that the legend leaves out: the edges of a band, the raw values behind a smoothed line. */
const UNNAMED = "unnamed";

function faded(color: string, opacity: number): string {
  return `color-mix(in srgb, ${color} ${Math.round(opacity * 100)}%, transparent)`;
}

function css(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
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
    const { x, y, se, color } = line;
    if (se?.some((error) => error !== null)) {
      const edge = (sign: number) => y.map((value, i) => (value === null || se[i] == null ? null : value + sign * (se[i] as number)));
      columns.push({ x, y: edge(1) }, { x, y: edge(-1) });
      const at = series.length;
      const hidden: uPlot.Series = { stroke: "transparent", points: { show: false }, spanGaps: true, class: UNNAMED };
      series.push({ ...hidden }, { ...hidden });
      bands.push({ series: [at, at + 1], fill: faded(color, BAND_OPACITY) });
    }
    const dash = line.dashed ? { dash: [6, 4] } : {};
    const few = { show: y.length < 40, size: 4 };
    if (smoothing > 0 && y.length > 2) {
      columns.push({ x, y });
      series.push({ stroke: faded(color, RAW_OPACITY), width: 1, spanGaps: true, points: { show: false }, class: UNNAMED, ...dash });
      columns.push({ x, y: smoothed(y, smoothing) });
      series.push({ label: line.label, stroke: color, width: 2, spanGaps: true, points: { show: false }, ...dash });
    } else {
      columns.push({ x, y });
      const alone = line.points ? { paths: () => null, points: { show: true, size: 7, fill: color } } : {};
      series.push({ label: line.label, stroke: color, width: 1.75, spanGaps: true, points: few, ...dash, ...alone });
    }
  }
  return { data: aligned(columns) as uPlot.AlignedData, series, bands };
}

function drawMarks(plot: uPlot, marks: Mark[]): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.x, "x", true)) + 0.5;
    ctx.strokeStyle = mark.color;
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

export function Chart(props: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const { lines, log = false, smoothing = 0, range = null } = props;
  // what needs a new plot; new data of the same lines does not
  const shape = JSON.stringify([
    log,
    smoothing > 0,
    props.xLabel,
    lines.map((line) => [line.label, line.color, line.dashed, Boolean(line.se), line.y.length < 40, line.y.length > 2]),
  ]);

  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const { data, series, bands } = drawnOf(latest.current.lines, latest.current.smoothing ?? 0);
    const ink = css("--muted");
    const grid = { stroke: css("--line"), width: 1 };
    const axis: uPlot.Axis = { stroke: ink, grid, ticks: grid, font: "11px system-ui" };
    const made = new uPlot(
      {
        width: element.clientWidth || 400,
        height: HEIGHT,
        series: series.map((one, i) => (i === 0 ? { label: latest.current.xLabel, value: (_, v) => number(v) } : { value: (_, v) => number(v), ...one })),
        bands,
        axes: [
          { ...axis, values: (_, splits) => splits.map(tick) },
          { ...axis, size: 58, values: (_, splits) => splits.map(tick) },
        ],
        scales: {
          x: { time: false, ...(latest.current.range ? { range: () => latest.current.range ?? [0, 1] } : {}) },
          y: { distr: log ? 3 : 1 },
        },
        cursor: { sync: { key: latest.current.group, setSeries: false }, drag: { x: true, y: false, setScale: false }, focus: { prox: 16 } },
        legend: { show: latest.current.legend ?? true, live: true },
        hooks: {
          draw: [(drawn) => drawMarks(drawn, latest.current.marks ?? [])],
          setSelect: [
            (drawn) => {
              const { left, width } = drawn.select;
              if (width < 4) return;
              latest.current.onZoom?.([drawn.posToVal(left, "x"), drawn.posToVal(left + width, "x")]);
              drawn.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            },
          ],
        },
      },
      data,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    const unzoom = () => latest.current.onZoom?.(null);
    made.over.addEventListener("dblclick", unzoom);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => {
    const made = plot.current;
    if (!made) return;
    made.setData(drawnOf(lines, smoothing).data, range === null);
    if (range) made.setScale("x", { min: range[0], max: range[1] });
  }, [lines, smoothing, range, shape]);

  const marks = props.marks ?? [];
  return (
    <figure class="chart">
      <figcaption>{props.title}</figcaption>
      <div ref={host} class="plot" role="img" aria-label={summary(props)} data-points={lines.map((line) => line.y.length).join()} />
      {marks.length > 0 && (
        <p class="marks">
          {marks.map((mark) => (
            <span key={`${mark.x} ${mark.text}`}>
              <i ref={(element) => element?.style.setProperty("background", mark.color)} />
              {mark.text}
            </span>
          ))}
        </p>
      )}
    </figure>
  );
}

/** The same in words, for who does not see the picture. */
function summary({ title, lines }: Props): string {
  const ends = lines.map((line) => `${line.label}: last ${number(line.y.findLast((value) => value !== null))}`);
  return `Chart of ${title}. ${ends.join("; ")}.`;
}
