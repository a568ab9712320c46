/** Rows of a long table: only what is in sight is in the page. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

interface Props<T> {
  rows: T[];
  rowHeight: number;
  head: ComponentChildren;
  row: (row: T, index: number) => ComponentChildren;
  columns: number;
  label: string;
  onWindow?: (first: number, last: number) => void;
}

const BEYOND = 8;

export function VirtualRows<T>({ rows, rowHeight, head, row, columns, label, onWindow }: Props<T>) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () => setView({ top: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, []);
  const first = Math.max(0, Math.floor(view.top / rowHeight) - BEYOND);
  const last = Math.min(rows.length, Math.ceil((view.top + view.height) / rowHeight) + BEYOND);
  useEffect(() => onWindow?.(first, last), [first, last, rows]);
  const space = (height: number) =>
    height > 0 && (
      <tr aria-hidden="true">
        <td colSpan={columns} ref={(cell) => cell?.style.setProperty("height", `${height}px`)} class="space" />
      </tr>
    );
  return (
    <div ref={box} class="rows" tabIndex={0} role="region" aria-label={label}>
      <table aria-rowcount={rows.length}>
        <thead>{head}</thead>
        <tbody>
          {space(first * rowHeight)}
          {rows.slice(first, last).map((one, index) => row(one, first + index))}
          {space((rows.length - last) * rowHeight)}
        </tbody>
      </table>
    </div>
  );
}
