/** A form made from the catalogue's schemas. It edits the spec that the text beside it shows, and nothing else. */

import type { ComponentChildren } from "preact";

type Json = unknown;
export type Spec = Record<string, Json>;

export interface Schema {
  type?: string;
  enum?: Json[];
  const?: Json;
  default?: Json;
  description?: string;
  properties?: Record<string, Schema>;
  items?: Schema;
  anyOf?: Schema[];
  minimum?: number;
  maximum?: number;
}

export interface Kind {
  kind: string;
  description: string;
  default?: Json;
  schema?: Schema;
}

export type Catalog = Record<string, Kind[]>;

/** Sections that are one of several kinds, lists of kinds, and plain settings. */
const CHOICES = ["model", "optimizer", "schedule", "loss"];
const LISTS = ["preprocess", "augment", "early_stop"];
const SETTINGS = ["train", "regularize", "split", "resources"];

/** Return the form of a value that one field can hold; null for what only the text can say. */
export function simpleForm(schema: Schema): Schema | null {
  if (schema.anyOf) {
    const simple = schema.anyOf.filter((one) => one.type !== "null").map(simpleForm).filter((one) => one !== null);
    // what takes a number takes the word beside it ("auto") in the same field
    const form = simple.find((one) => !one.enum && one.type !== "boolean") ?? simple[0];
    return form ? { ...form, ...(schema.description ? { description: schema.description } : {}) } : null;
  }
  if (schema.enum || ["number", "integer", "boolean", "string"].includes(schema.type ?? "")) return schema;
  if (schema.type === "array" && ["number", "integer"].includes(schema.items?.type ?? "")) return schema;
  return null;
}

/** Read what was typed as the schema's type; undefined takes the field out, so that the default counts. */
export function typed(text: string, schema: Schema): Json {
  const given = text.trim();
  if (given === "") return undefined;
  if (schema.type === "boolean") return given === "true";
  if (schema.type === "number" || schema.type === "integer") return Number.isNaN(Number(given)) ? given : Number(given);
  if (schema.type === "array") {
    return given.split(/[\s,]+/).filter(Boolean).map((part) => (Number.isNaN(Number(part)) ? part : Number(part)));
  }
  return schema.enum?.find((one) => String(one) === given) ?? given;
}

export function changed(spec: Spec, section: string, value: Json): Spec {
  const result = { ...spec };
  if (value === undefined || (typeof value === "object" && value !== null && !Array.isArray(value) && Object.keys(value).length === 0)) delete result[section];
  else result[section] = value;
  return result;
}

function objectOf(value: Json): Spec {
  if (typeof value === "string") return { kind: value };
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Spec) : {};
}

interface Props {
  spec: Spec;
  catalog: Catalog;
  datasets: string[];
  onChange: (spec: Spec) => void;
}

export function SpecForm({ spec, catalog, datasets, onChange }: Props) {
  const dataset = typeof spec.dataset === "string" ? spec.dataset : String(objectOf(spec.dataset).id ?? "");
  return (
    <div class="spec-form" role="group" aria-label="Form">
      <Section title="Data" open>
        <Labelled name="name">
          <input value={String(spec.name ?? "")} onChange={(event) => onChange(changed(spec, "name", event.currentTarget.value || undefined))} />
        </Labelled>
        <Labelled name="dataset">
          <select
            value={dataset}
            onChange={(event) => onChange(changed(spec, "dataset", typeof spec.dataset === "object" && spec.dataset !== null ? { ...spec.dataset, id: event.currentTarget.value } : event.currentTarget.value))}
          >
            {!datasets.includes(dataset) && <option>{dataset}</option>}
            {datasets.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </Labelled>
      </Section>
      {CHOICES.map((section) => (
        <Choice key={section} section={section} kinds={catalog[section] ?? []} value={objectOf(spec[section])} onChange={(value) => onChange(changed(spec, section, value))} />
      ))}
      {LISTS.map((section) => (
        <List key={section} section={section} kinds={catalog[section] ?? []} value={Array.isArray(spec[section]) ? (spec[section] as Json[]) : []} onChange={(value) => onChange(changed(spec, section, value))} />
      ))}
      {SETTINGS.map((section) => (
        <Section key={section} title={section}>
          <Fields schema={catalog[section]?.[0]?.schema ?? {}} value={objectOf(spec[section])} onChange={(value) => onChange(changed(spec, section, value))} />
        </Section>
      ))}
    </div>
  );
}

function Section({ title, open = false, children }: { title: string; open?: boolean; children: ComponentChildren }) {
  return (
    <details open={open} class="section">
      <summary>{title.replace(/_/g, " ")}</summary>
      <div class="fields">{children}</div>
    </details>
  );
}

function Labelled({ name, title, children }: { name: string; title?: string; children: ComponentChildren }) {
  return (
    <label title={title}>
      <span>{name.replace(/_/g, " ")}</span>
      {children}
    </label>
  );
}

interface ChoiceProps {
  section: string;
  kinds: Kind[];
  value: Spec;
  onChange: (value: Json) => void;
}

function Choice({ section, kinds, value, onChange }: ChoiceProps) {
  const kind = String(value.kind ?? "");
  const found = kinds.find((one) => one.kind === kind);
  return (
    <Section title={section} open={section === "model" || section === "optimizer"}>
      <Labelled name="kind" title={found?.description ?? ""}>
        {/* another kind has other fields: what the old one said does not carry over */}
        <select value={kind} onChange={(event) => onChange(event.currentTarget.value ? { kind: event.currentTarget.value } : undefined)}>
          {section !== "model" && <option value="">default</option>}
          {kinds.map((one) => (
            <option key={one.kind} value={one.kind}>
              {one.kind}
            </option>
          ))}
        </select>
      </Labelled>
      {found?.schema && <Fields schema={found.schema} value={value} onChange={onChange} />}
    </Section>
  );
}

interface ListProps {
  section: string;
  kinds: Kind[];
  value: Json[];
  onChange: (value: Json) => void;
}

function List({ section, kinds, value, onChange }: ListProps) {
  const replaceAt = (index: number, changedItem: Json) => onChange(value.map((one, at) => (at === index ? changedItem : one)));
  return (
    <Section title={section}>
      {value.map((item, index) => {
        const one = objectOf(item);
        const schema = kinds.find((kind) => kind.kind === one.kind)?.schema;
        return (
          <fieldset key={`${String(one.kind)} ${index}`}>
            <legend>
              {String(one.kind)}{" "}
              <button type="button" class="quiet" aria-label={`Remove ${String(one.kind)}`} onClick={() => onChange(value.filter((_, at) => at !== index))}>
                ×
              </button>
            </legend>
            {schema && <Fields schema={schema} value={one} onChange={(next) => replaceAt(index, next ?? { kind: one.kind })} />}
          </fieldset>
        );
      })}
      <Labelled name="add">
        <select
          value=""
          onChange={(event) => {
            if (event.currentTarget.value) onChange([...value, { kind: event.currentTarget.value }]);
            event.currentTarget.value = "";
          }}
        >
          <option value="">…</option>
          {kinds.map((one) => (
            <option key={one.kind} value={one.kind} title={one.description}>
              {one.kind}
            </option>
          ))}
        </select>
      </Labelled>
    </Section>
  );
}

function Fields({ schema, value, onChange }: { schema: Schema; value: Spec; onChange: (value: Json) => void }) {
  const fields = Object.entries(schema.properties ?? {}).filter(([name]) => name !== "kind");
  return (
    <>
      {fields.map(([name, whole]) => {
        const form = simpleForm(whole);
        const present = value[name];
        if (!form || (present !== null && typeof present === "object" && !Array.isArray(present))) return null;
        const set = (text: string) => onChange(changed(value, name, typed(text, form)));
        const text = present === undefined || present === null ? "" : Array.isArray(present) ? present.join(", ") : String(present);
        const standard = whole.default === undefined || whole.default === null ? "" : Array.isArray(whole.default) ? whole.default.join(", ") : String(whole.default);
        const options = form.type === "boolean" ? ["true", "false"] : form.enum?.map(String);
        return (
          <Labelled key={name} name={name} title={whole.description ?? form.description ?? ""}>
            {options ? (
              <select value={text} onChange={(event) => set(event.currentTarget.value)}>
                <option value="">{standard ? `default: ${standard}` : "default"}</option>
                {options.map((one) => (
                  <option key={one}>{one}</option>
                ))}
              </select>
            ) : (
              <input value={text} placeholder={standard} inputMode={form.type === "string" ? "text" : "decimal"} onChange={(event) => set(event.currentTarget.value)} />
            )}
          </Labelled>
        );
      })}
    </>
  );
}
