/** A small curve without axes, as SVG. */

interface Props {
  values: (number | null)[];
  label: string;
}

const WIDTH = 84;
const HEIGHT = 22;

export function Sparkline({ values, label }: Props) {
  const shown = values.filter((value): value is number => value !== null && Number.isFinite(value));
  if (shown.length < 2) return <span class="muted">–</span>;
  const low = Math.min(...shown);
  const span = Math.max(...shown) - low || 1;
  const points = shown.map(
    (value, i) => `${((i / (shown.length - 1)) * WIDTH).toFixed(1)},${(1 + (1 - (value - low) / span) * (HEIGHT - 2)).toFixed(1)}`,
  );
  return (
    <svg class="sparkline" width={WIDTH} height={HEIGHT} role="img" aria-label={label}>
      <polyline points={points.join(" ")} fill="none" stroke="currentColor" stroke-width="1.5" />
    </svg>
  );
}
