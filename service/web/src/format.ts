/** Numbers and times as people read them. */

export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : value.toPrecision(4);
}

/** A number at an axis: as short as it can be said. */
export function tick(value: number | null): string {
  if (value === null) return "";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential().replace("e+", "e");
  return String(Number(value.toPrecision(6)));
}

export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function secondsBetween(from: string | null | undefined, to: string | null | undefined, now: number): number | null {
  return from ? ((to ? Date.parse(to) : now) - Date.parse(from)) / 1000 : null;
}

export function ago(time: string | null | undefined, now: number): string {
  if (!time) return "–";
  const seconds = (now - Date.parse(time)) / 1000;
  return seconds < 5 ? "just now" : `${duration(seconds).replace(/ (min|h|d) .*/, " $1")} ago`;
}

export function bytes(count: number | null | undefined): string {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit ? value.toPrecision(3) : value} ${units[unit]}`;
}

export function words(code: string): string {
  return code.replace(/_/g, " ");
}

/** Seconds at an axis: parts that are 0 are left out. */
export function shortDuration(seconds: number | null): string {
  if (seconds === null) return "";
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  return duration(seconds).replace(/ 0 (s|min|h)$/, "");
}
