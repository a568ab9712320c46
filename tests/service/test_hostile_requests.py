"""Specs, names, queries and addresses that are meant to hurt: each is answered soon, in little memory, never by a 500."""

from __future__ import annotations

import base64
import json
import resource
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.api import Served

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
SECONDS = 10.0
"""CPU of one answer. All take well below a second on an idle core; a bomb takes minutes."""
MEMORY = 200 << 20
"""How far one answer may raise the peak of the process."""
YAML = "application/yaml"


@dataclass(frozen=True)
class Hostile:
    """One request: `{dataset}`, `{job}` and `{experiment}` in its path and text are ids of things that are there."""

    name: str
    path: str
    body: Any = None
    statuses: tuple[int, ...] = (422,)
    method: str = "POST"
    media_type: str = "application/json"
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def spec(**changes: Any) -> dict[str, Any]:
    return {"dataset": "{dataset}", "model": {"kind": "mlp"}, **changes}


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def with_text(place: str, text: str) -> str:
    """A spec whose `place` holds raw JSON."""
    return f'{{"dataset": "{{dataset}}", "model": {{"kind": "mlp"}}, {json.dumps(place)}: {text}}}'


VALIDATE, JOBS, EXPERIMENTS = "/v1/specs:validate", "/v1/jobs", "/v1/experiments"
LONG = "x" * 5000
RTL, ZERO_WIDTH, COMBINING = "\u202egnp.exe", "a\u200b\u2060b", "e" + "\u0301" * 150
GRID_OF_1E9 = {f"/model/dropout{'' if n == 0 else n}": [i / 1000 for i in range(1000)] for n in range(3)}

NUMBERS = [
    Hostile(f"number {text[:12]} ({len(text)})", VALIDATE, with_text("train", f'{{"epochs": {text}}}'), code=code)
    for text, code in (
        ("NaN", "not_json"),
        ("Infinity", "not_json"),
        ("-Infinity", "not_json"),
        ("1e400", "not_finite"),
        ("-1e400", "not_finite"),
        ("1e300", "invalid_spec"),
        ("-0", "invalid_spec"),
        ("0.5", "invalid_spec"),
        ("9223372036854775808", "number_too_large"),
        ("9" * 5000, "number_too_large"),
        ("1" + "0" * 200_000, "number_too_large"),
        ("0." + "1" * 200_000 + "e5", "invalid_spec"),
        ("true", "invalid_spec"),
        ('"5"', "invalid_spec"),
        ('"' + "9" * 100_000 + '"', "invalid_spec"),
    )
]
DEPTHS = [
    Hostile("deep lists", VALIDATE, with_text("labels", nested(5000)), code="too_deep"),
    Hostile("deep beyond the parser", VALIDATE, nested(120_000), code="too_deep"),
    Hostile("deep objects", VALIDATE, '{"a":' * 40_000 + "1" + "}" * 40_000, code="too_deep"),
    Hostile("half a document", VALIDATE, '{"a":' * 40_000, code="too_deep"),
    Hostile("deep YAML", VALIDATE, "[" * 100_000, media_type=YAML, code="too_deep"),
    Hostile(
        "deep YAML blocks", VALIDATE, "\n".join(" " * n + "a:" for n in range(400)), media_type=YAML, code="too_deep"
    ),
    Hostile("dashes of YAML", VALIDATE, "- " * 100_000, media_type=YAML, code="too_deep"),
    Hostile("deep patch", "/v1/jobs/{job}/fork", '{"patch": ' + '{"a":' * 5000 + "1" + "}" * 5001, code="too_deep"),
    Hostile("deep rules", "/v1/jobs/{job}/decisions:simulate", '{"rules": ' + nested(5000) + "}", code="too_deep"),
    Hostile("deep inputs", "/v1/models/{model}/predict", '{"inputs": ' + nested(50_000) + "}", (422, 503)),
]
BOMBS = [
    Hostile(
        "billion laughs",
        VALIDATE,
        "a: &a [x, x]\n"
        + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)),
        media_type=YAML,
        code="yaml_alias",
    ),
    Hostile("a node in itself", VALIDATE, "a: &a [*a]", media_type=YAML, code="yaml_alias"),
    Hostile("object of Python", VALIDATE, "!!python/object/apply:os.system [id]", media_type=YAML, code="yaml_tag"),
    Hostile("boolean that is none", VALIDATE, "a: !!bool 5", media_type=YAML, code="yaml_tag"),
    Hostile("long hexadecimal", VALIDATE, "a: 0x" + "f" * 100_000, media_type=YAML, code="number_too_large"),
    Hostile("base 60", VALIDATE, "dataset: " + ":".join(["59"] * 3000), media_type=YAML),
    Hostile("many documents", VALIDATE, "---\na: 1\n" * 20_000, media_type=YAML, code="not_yaml"),
    Hostile("200,000 equal keys", VALIDATE, "{" + ",".join(['"a":1'] * 40_000) + "}", code="duplicate_key"),
    Hostile("40,000 unknown fields", VALIDATE, "{" + ",".join(f'"k{n}":1' for n in range(20_000)) + "}"),
    Hostile("UTF-16", VALIDATE, json.dumps(spec()).encode("utf-16"), code="not_utf8"),
    Hostile("broken UTF-8", VALIDATE, b'{"name": "\xff\xfe"}', code="not_utf8"),
]
TEXTS = [
    Hostile(f"name {shown}", JOBS, spec(name=text), statuses, code=code)
    for shown, text, statuses, code in (
        ("too long", LONG, (422,), "invalid_spec"),
        ("NUL", "a\x00b", (422,), "not_text"),
        ("half a surrogate", "a\ud800b", (422,), "not_text"),
        ("right to left", RTL, (201,), None),
        ("zero width", ZERO_WIDTH, (201,), None),
        ("combining", COMBINING, (201,), None),
        ("path", "../../../etc/passwd", (201,), None),
        ("format", "{0.__class__.__mro__} %s%n %(x)s ${x}", (201,), None),
        ("SQL", "'; DROP TABLE jobs; --", (201,), None),
        ("template", "{{7*7}} ${jndi:ldap://127.0.0.1/a} <script>alert(1)</script>", (201,), None),
        ("escape", "\x1b[2J\x1b]0;owned\x07", (201,), None),
        ("lines", "a\r\nSet-Cookie: x=1\u2028b", (201,), None),
        ("mathtext", "$\\frac{$ $$ ^_ \\", (201,), None),
    )
]
LABELS = [
    Hostile("33 labels", JOBS, spec(labels={f"k{n}": "v" for n in range(33)}), code="invalid_spec"),
    Hostile("10,000 labels", JOBS, spec(labels={f"k{n}": "v" for n in range(10_000)})),
    Hostile("labels that are no text", JOBS, spec(labels={"a": {"b": []}}), code="invalid_spec"),
    Hostile("list as labels", JOBS, spec(labels=[["a", "b"]]), code="invalid_spec"),
    Hostile("label of 100,000", JOBS, spec(labels={"a": "x" * 100_000}), code="invalid_spec"),
    Hostile("key of 100,000", JOBS, spec(labels={"x" * 100_000: "a"}), code="invalid_spec"),
    Hostile("label of 100,000 set later", "/v1/jobs/{job}", {"labels": {"a": "x" * 100_000}}, method="PATCH"),
    Hostile("labels of an experiment", EXPERIMENTS, {"kind": "kfold", "spec": spec(), "labels": {"a": "x" * 100_000}}),
    Hostile("key of NUL", JOBS, spec(labels={"a\x00": "b"}), code="not_text"),
]
PARTS = [
    Hostile("10,000 layers", VALIDATE, spec(model={"kind": "mlp", "hidden": [1] * 10_000})),
    Hostile("wide layers", VALIDATE, spec(model={"kind": "mlp", "hidden": [65536] * 64}), (200, 422)),
    Hostile("10,000 steps", VALIDATE, spec(augment=[{"kind": "noise", "std": 0.1}] * 5000)),
    Hostile("10,000 rules", VALIDATE, spec(early_stop=[{"kind": "diverged"}] * 9000)),
    Hostile("5,000 phases", VALIDATE, spec(start_from={"job": "{job}", "phases": [{"epochs": 1}] * 5000})),
    Hostile("100,000 blocks", VALIDATE, spec(start_from={"job": "{job}", "freeze": ["a"] * 40_000})),
    Hostile("40,000 features", VALIDATE, spec(dataset={"id": "{dataset}", "features": ["f"] * 40_000}), (200, 422)),
    Hostile("20,000 classes", VALIDATE, spec(balance={f"c{n}": 1 for n in range(10_000)})),
    Hostile("members of members", VALIDATE, spec(model={"kind": "ensemble", "models": [{"kind": "ensemble"}] * 100})),
    Hostile("monitor of 100,000", VALIDATE, spec(early_stop={"kind": "patience", "monitor": "val_" + "x" * 100_000})),
    Hostile("kind of 100,000", VALIDATE, spec(model={"kind": "x" * 100_000})),
    Hostile("field of 100,000", VALIDATE, spec(**{"x" * 100_000: 1})),
    Hostile("device of digits", VALIDATE, spec(resources={"device": "cuda:" + "9" * 100_000})),
    Hostile("ratio of digits", VALIDATE, spec(split="9" * 5000 + ":1")),
    Hostile("ratio of colons", VALIDATE, spec(split=":" * 100_000)),
    Hostile("pattern that backtracks", VALIDATE, spec(resources={"device": "cuda:" + "1" * 50_000 + "!"})),
    Hostile("subnormal share", VALIDATE, spec(split={"train": 5e-324, "validation": 1e300, "test": 1}), (200, 422)),
]
REFERENCES = [
    Hostile("start from oneself", JOBS, spec(start_from={"job": "job_" + "0" * 26})),
    Hostile("start from a path", JOBS, spec(start_from={"file": "../../etc/passwd"})),
    Hostile("start from SQL", JOBS, spec(start_from={"job": "%' OR 1=1 --"})),
    Hostile("dataset of wildcards", JOBS, spec(dataset="ds_%")),
    Hostile("dataset of NUL", JOBS, spec(dataset="ds_\x00"), code="not_text"),
    Hostile("diagnosis of nobody", JOBS, {"from_diagnosis": {"job": "%", "index": 2**62}}, (404, 422)),
    Hostile("patch that removes all", "/v1/jobs/{job}/fork", {"patch": {"dataset": None, "model": None}}, (409, 422)),
    Hostile("patch of itself", "/v1/jobs/{job}/fork", {"patch": {"start_from": {"job": "{job}"}}}, (409, 422)),
]
PLANS = [
    Hostile("grid of 10^9", EXPERIMENTS, {"kind": "grid", "spec": spec(), "space": GRID_OF_1E9}),
    Hostile("grid of one name twice over", EXPERIMENTS, {"kind": "grid", "spec": spec(), "space": {"/a/" * 60: [1]}}),
    Hostile(
        "grid of 32 axes",
        EXPERIMENTS,
        {"kind": "grid", "spec": spec(), "space": {f"/labels/k{n}": ["a", "b"] for n in range(32)}},
    ),
    Hostile("experiment of its spec", EXPERIMENTS, {"kind": "kfold", "spec": {"spec": {"spec": spec()}}}),
    Hostile("ensemble of itself", EXPERIMENTS, {"kind": "ensemble", "experiment": "{experiment}"}, (404, 409, 422)),
    Hostile("a million trials", EXPERIMENTS, {"kind": "random", "spec": spec(), "trials": 10**6, "space": {}}),
    Hostile(
        "a step of 1e-300",
        EXPERIMENTS,
        {
            "kind": "tpe",
            "spec": spec(),
            "space": {"/optimizer/lr": {"low": 1e-300, "high": 1e300, "step": 1e-300}},
            "trials": 2,
        },
        (201, 422),
    ),
    Hostile(
        "a range of 2^62",
        EXPERIMENTS,
        {
            "kind": "asha",
            "spec": spec(),
            "space": {"/train/seed": {"low": 0, "high": 2**62, "type": "int"}},
            "trials": 2,
        },
        (201, 422),
    ),
    Hostile(
        "variants of variants",
        EXPERIMENTS,
        {"kind": "kfold", "folds": 100, "repeats": 100, "spec": spec(), "variants": {f"v{n}": {} for n in range(32)}},
    ),
]


def cursor(sort: str, value: str) -> str:
    """A forged cursor whose sort key is this raw JSON."""
    text = f'["{sort}",{value},"job_{"0" * 26}"]'
    return f"/v1/jobs?sort={sort}&after=" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def get(name: str, path: str, *statuses: int, code: str | None = None, **headers: str) -> Hostile:
    return Hostile(name, path, None, statuses or (404,), "GET", code=code, headers=headers)


ADDRESSES = [
    get("traversal in an id", "/v1/jobs/..%2f..%2fetc%2fpasswd"),
    get("traversal in an artifact", "/v1/jobs/{job}/artifacts/..%2f..%2ftrainkit.db"),
    get("backslashes", "/v1/jobs/{job}/artifacts/..%5c..%5ctrainkit.db"),
    get("absolute artifact", "/v1/jobs/{job}/artifacts/%2fetc%2fpasswd"),
    get("NUL in an id", "/v1/jobs/job_%00", 422, code="not_text"),
    get("broken UTF-8 in an id", "/v1/jobs/%ff%fe"),
    get("an id of 5,000", f"/v1/jobs/{LONG}"),
    get("wildcards as id", "/v1/datasets/%25"),
    get("NUL in a query", "/v1/jobs?dataset=%00", 422, code="not_text"),
    get("wildcards as cursor", "/v1/jobs?after=%25", 422),
    get("cursor of 5,000", f"/v1/jobs?after={LONG}", 422),
    get("cursor of a huge number", cursor("-metrics.best.val_loss", "1" + "0" * 1000), 422),
    get("cursor before the year 1", cursor("-updated_at", '"0001-01-01T00:00:00+14:00"'), 422),
    get("cursor after the year 9999", cursor("-updated_at", '"9999-12-31T23:59:59-14:00"'), 422),
    get("time of 4,000 T", "/v1/jobs?updated_after=2026-01-01" + "T" * 4000 + "+" * 4000 + "x", 422),
    get("1,000 states", "/v1/jobs?" + "&".join(["state=queued"] * 1000), 200, 414, 422),
    get("90 labels", "/v1/jobs?" + "&".join(f"label.k{n}=v" for n in range(90)), 422),
    get("label of wildcards", "/v1/jobs?label.a=%25&label.b=_", 200),
    get("label of quotes", "/v1/jobs?label.a%22%27%5D=x", 422),
    get("label of a path", "/v1/jobs?label.a.b%5B0%5D=x", 422),
    get("label in RTL", "/v1/jobs?label.%E2%80%AEa=x", 422),
    get("time of the year 1", "/v1/jobs?updated_after=0001-01-01T00:00:00%2B14:00", 200, 422),
    get("time of the year 9999", "/v1/jobs?updated_after=9999-12-31T23:59:59-14:00", 200, 422),
    get("time as a number", "/v1/jobs?updated_after=1e300", 422),
    get("limit beyond 64 bits", f"/v1/jobs?limit={'9' * 4000}", 422),
    get("cursor beyond 64 bits", "/v1/jobs/{job}/metrics?after=99999999999999999999", 422),
    get("wait for ever", "/v1/jobs/{job}/metrics?after=0&wait=1e308", 422),
    get("wait for NaN", "/v1/jobs/{job}/metrics?after=0&wait=nan", 422),
    get("10,000 names", "/v1/jobs/{job}/metrics/series?names=" + ",".join(["val_loss"] * 5000), 200, 414, 422),
    get("points without end", "/v1/jobs/{job}/metrics/series?max_points=1000000000", 422),
    get("5,000 jobs", "/v1/metrics/series?jobs=" + ",".join(["job_x"] * 5000), 404, 414, 422),
    get("ETag of 5,000", "/v1/jobs/{job}", 200, **{"If-None-Match": '"' + LONG + '"'}),
    get("Accept of 5,000", "/v1/jobs/{job}/logs", 406, Accept="a/b;q=0," * 1000),
    get("text to find that is a pattern", "/v1/jobs/{job}/logs?contains=(a%2B)%2B%24%25_", 200),
    get("parameter twice", "/v1/jobs?limit=1&limit=2", 200, 422),
    get("experiment of itself", "/v1/experiments/{experiment}/comparison?with={experiment}", 200, 409, 422),
]
UPLOADS = [
    Hostile(f"dataset named {shown}", f"/v1/datasets?name={quoted}", "a,b\n1,2\n", statuses, "PUT", "text/csv")
    for shown, quoted, statuses in (
        ("by a path", "..%2F..%2Fx", (422,)),
        ("by a backslash", "..%5Cx", (422,)),
        ("by a line", "a%0D%0Ab", (422,)),
        ("by NUL", "a%00b", (422,)),
        ("by nothing", "", (422,)),
        ("by 5,000", LONG, (422,)),
        ("by wildcards", "%25_%25", (201,)),
        ("from right to left", "%E2%80%AEgnp.exe", (201,)),
        ("in NFD", "e%CC%81", (201,)),
        ("in NFC", "%C3%A9", (201,)),
        ("by dots", "..", (201, 422)),
    )
]
CORPUS = [
    *(NUMBERS + DEPTHS + BOMBS + TEXTS + LABELS + PARTS),
    *(REFERENCES + PLANS + ADDRESSES + UPLOADS),
]


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 120
    assert len({one.name for one in CORPUS}) == len(CORPUS)


@SQLITE
def test_every_hostile_request_is_answered_in_bounds(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    model = service.finish(claimed)
    dataset = service.job(job)["dataset"]["id"]
    plan = {"kind": "kfold", "folds": 2, "spec": {"dataset": dataset, "model": "mlp"}}
    experiment = service.client.post("/v1/experiments", json=plan).json()["id"]
    ids = {"{dataset}": dataset, "{job}": job, "{model}": str(model), "{experiment}": experiment}

    def filled(text: str) -> str:
        for place, identifier in ids.items():
            text = text.replace(place, identifier)
        return text

    faults = []
    slow = []
    for one in CORPUS:
        body = one.body if isinstance(one.body, str | bytes | None) else json.dumps(one.body)
        content = filled(body).encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        headers = {"Content-Type": one.media_type, **one.headers} if content is not None else one.headers
        cpu, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = service.client.request(one.method, filled(one.path), content=content, headers=headers)
        seconds = time.process_time() - cpu
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
        code = answer.json().get("code") if answer.status_code >= 400 else None
        shown = f"{one.name}: {answer.status_code} {answer.text[:300]}"
        if answer.status_code not in one.statuses or (one.code and code != one.code):
            faults.append(f"{shown} (expected {one.statuses} {one.code})")
        slow.append((round(seconds, 2), grown >> 20, one.name))
        if seconds > SECONDS or grown > MEMORY:
            faults.append(f"{shown}: {seconds:.1f} s of CPU, {grown >> 20} MiB")
        if len(answer.content) > 64 << 10 and answer.status_code >= 400:
            faults.append(f"{one.name}: a problem of {len(answer.content)} bytes")
    print(sorted(slow)[-12:])
    assert not faults, "\n".join(faults)
    assert service.client.get("/readyz").status_code == 200
    assert service.job(job)["state"] == "succeeded"


@SQLITE
def test_names_come_back_as_they_were_sent(service: Served) -> None:
    """Nothing is normalised, cut or interpreted on the way; wildcards of SQL are letters."""
    names = [RTL, ZERO_WIDTH, COMBINING, "e\u0301", "\u00e9", "%", "_", "{0}", "$\\frac{$", "\x1b[2J", "'; --"]
    for name in names:
        job = service.submit(name=name, labels={"k": name})
        shown = service.job(job)
        assert (shown["name"], shown["labels"]) == (name, {"k": name})
        found = service.client.get("/v1/jobs", params={"label.k": name}).json()["data"]
        assert [one["id"] for one in found] == [job], name
