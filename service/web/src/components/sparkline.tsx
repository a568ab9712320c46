/** A small curve without axes, as SVG; of several runs their mean, with a band of one standard deviation. */

interface Props {
  values: readonly (number | null)[];
  /** Half the band's width at each value. */
  band?: readonly number[];
  label: string;
}

const WIDTH = 84;
const HEIGHT = 22;

export function Sparkline({ values, band, label }: Props) {
  const shown = values.flatMap((value, i) => (value !== null && Number.isFinite(value) ? [[value, band?.[i] ?? 0] as const] : []));
  if (shown.length < 2) return <span class="muted">–</span>;
  const low = Math.min(...shown.map(([value, half]) => value - half));
  const span = Math.max(...shown.map(([value, half]) => value + half)) - low || 1;
  const place = (value: number, i: number) =>
    `${((i / (shown.length - 1)) * WIDTH).toFixed(1)},${(1 + (1 - (value - low) / span) * (HEIGHT - 2)).toFixed(1)}`;
  const edge = (sign: number) => shown.map(([value, half], i) => place(value + sign * half, i));
  return (
    <svg class="sparkline" width={WIDTH} height={HEIGHT} role="img" aria-label={label}>
      {band && <polygon points={[...edge(1), ...edge(-1).reverse()].join(" ")} fill="currentColor" fill-opacity="0.2" />}
      <polyline points={shown.map(([value], i) => place(value, i)).join(" ")} fill="none" stroke="currentColor" stroke-width="1.5" />
    </svg>
  );
}
