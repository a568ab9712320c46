/** Differences of specs, field by field. */

type Json = unknown;

export interface Difference {
  path: string;
  before: Json;
  after: Json;
}

function isObject(value: Json): value is Record<string, Json> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Return the fields that differ, by path; lists are compared as a whole. */
export function differences(before: Json, after: Json, path = ""): Difference[] {
  if (isObject(before) && isObject(after)) {
    const names = new Set([...Object.keys(before), ...Object.keys(after)]);
    return [...names].flatMap((name) => differences(before[name], after[name], path ? `${path}.${name}` : name));
  }
  return JSON.stringify(before) === JSON.stringify(after) ? [] : [{ path, before, after }];
}

/** Return a document with a JSON merge patch applied (RFC 7396). */
export function merged(document: Json, patch: Json): Json {
  if (!isObject(patch)) return patch;
  const result: Record<string, Json> = isObject(document) ? { ...document } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = merged(result[name], value);
  }
  return result;
}

/** Return the JSON merge patch that makes `after` of `before`; null where a field is to go. */
export function mergePatch(before: Json, after: Json): Json {
  if (!isObject(before) || !isObject(after)) return after;
  const patch: Record<string, Json> = {};
  for (const name of Object.keys(before)) if (!(name in after)) patch[name] = null;
  for (const [name, value] of Object.entries(after)) {
    if (JSON.stringify(before[name]) !== JSON.stringify(value)) patch[name] = mergePatch(before[name], value);
  }
  return patch;
}

export function shown(value: Json): string {
  if (value === undefined) return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}

export function PatchView({ patch, spec }: { patch: Json; spec: Json }) {
  return <DifferenceTable rows={differences(spec, merged(spec, patch))} />;
}

export function DifferenceTable({ rows }: { rows: Difference[] }) {
  if (!rows.length) return <p class="muted">No difference.</p>;
  return (
    <table class="diff">
      <tbody>
        {rows.map((row) => (
          <tr key={row.path}>
            <th scope="row">{row.path}</th>
            <td>
              {row.before !== undefined && <del>{shown(row.before)}</del>} {row.after !== undefined && <ins>{shown(row.after)}</ins>}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
