"""Examples of the problem documents that operations answer with, written from the closed list of problem types."""

from __future__ import annotations

from typing import Any

from service.errors import MEDIA_TYPE, HttpProblem
from service.problem_types import PROBLEM_TYPES, ProblemCode

GENERAL: tuple[ProblemCode, ...] = (
    *("bad_request", "bad_http"),
    *("key_missing", "key_malformed", "key_invalid", "key_expired"),
    *("forbidden", "not_found", "not_acceptable", "body_too_slow", "changed_meanwhile", "project_archived", "removed"),
    *("too_large", "quota_exceeded", "url_too_long", "content_encoding", "unsupported_media_type", "unknown_host"),
    *("invalid_request", "upload_locked", "rate_limited", "head_too_large", "checksum_mismatch"),
    *("internal", "database_unavailable", "overloaded"),
)
"""What any operation may answer with, each at the statuses that it has."""

WORKER: tuple[ProblemCode, ...] = ("no_prediction_worker", "prediction_failed", "database_unavailable", "overloaded")
"""503 of what a worker answers."""
SPEC: tuple[ProblemCode, ...] = ("invalid_spec", "invalid_request", "not_json", "not_yaml")
QUEUE: tuple[ProblemCode, ...] = (
    "too_many_queued",
    "gpu_hours_used_up",
    "rate_limited",
    "budget_used_up",
    "budget_reserved",
)
NEW_JOB: tuple[ProblemCode, ...] = (*SPEC, "idempotency_mismatch", *QUEUE)
SOURCE: tuple[ProblemCode, ...] = ("invalid_request", "uri_scheme", "files_off", "file_not_allowed", "s3_off")
TUS: tuple[ProblemCode, ...] = ("upload_expired", "upload_failed", "tus_version")
SIGN_IN: tuple[ProblemCode, ...] = ("sign_in_off", "sign_in_refused", "sign_in_unavailable")

OF_OPERATION: dict[str, tuple[ProblemCode, ...]] = {
    "uploadDataset": ("busy_name", "digest_mismatch", "digest_unknown", "disconnected", "empty", "invalid_request"),
    "createDataset": ("busy_name", *SOURCE),
    "deleteDataset": ("in_use", "aliased"),
    "rereadDataset": ("not_uploaded_yet", "bytes_missing", "busy_name"),
    "getDatasetReport": ("not_checked_yet",),
    "getDatasetPreview": ("not_ready", "no_samples", *WORKER),
    "previewAugmentation": ("not_ready", "no_samples", *WORKER),
    "createUpload": (*TUS, "length_needed", "metadata_invalid", "too_many_uploads", "rate_limited"),
    "patchUpload": (*TUS, "wrong_offset", "offset_needed", "length_changed", "beyond_length", "too_large"),
    "postUpload": (*TUS, "wrong_offset", "offset_needed", "override_needed", "beyond_length", "too_large"),
    "deleteUpload": TUS,
    "getUploadOptions": TUS,
    "validateSpec": SPEC,
    "createInitReport": (*SPEC, "not_ready", *WORKER),
    "createJob": NEW_JOB,
    "updateJob": ("changed_meanwhile",),
    "deleteJob": ("still_active",),
    "stopJob": ("newer_metrics", "changed_meanwhile"),
    "pauseJob": ("wrong_state",),
    "resumeJob": (*NEW_JOB, "wrong_state", "nothing_left", "no_checkpoint", "checkpoint_removed"),
    "forkJob": (*NEW_JOB, "no_checkpoint"),
    "retryJob": (*NEW_JOB, "wrong_state"),
    "getJobEvaluation": ("not_found", "no_evaluation"),
    "getJobPlot": ("not_found", "no_plot"),
    "getJobPlotSvg": ("not_found", "no_plot"),
    "getJobArtifact": ("no_onnx",),
    "simulateDecisions": (*SPEC, "history_too_long"),
    "getJobDiagnosis": ("not_ready",),
    "getDiagnosisPlot": ("not_ready",),
    "streamJob": ("bad_cursor", "invalid_request", "too_many_streams", "rate_limited"),
    "streamJobs": ("bad_cursor", "invalid_request", "too_many_streams", "rate_limited"),
    "createExperiment": (*SPEC, "idempotency_mismatch"),
    "deleteExperiment": ("wrong_state",),
    "getExperimentResults": ("unknown_metric", "invalid_request"),
    "compareExperiments": ("not_comparable", "nothing_to_compare", "unknown_metric", "invalid_request"),
    "compareSeries": ("bad_jobs", "bad_range", "too_many_points", "invalid_request"),
    "getJobSeries": ("bad_range", "invalid_request"),
    "downloadModel": ("files_missing", "not_found", "no_safetensors", "no_onnx"),
    "updateModel": ("aliased", "changed_meanwhile"),
    "deleteModel": ("aliased",),
    "predict": ("empty", "invalid_input", "not_json", "too_many_requests", "rate_limited", *WORKER),
    "evaluateModel": ("empty", "invalid_input", "not_json", "not_ready", "too_many_requests", "rate_limited", *WORKER),
    "setDatasetAlias": ("no_name", "changed_meanwhile"),
    "setModelAlias": ("no_name", "changed_meanwhile"),
    "createKey": ("too_many_keys",),
    "rotateKey": ("key_ended", "too_many_keys"),
    "createProject": ("name_taken", "above_ceiling", "invalid_request"),
    "updateProject": ("name_taken", "above_ceiling", "invalid_request"),
    "addMember": ("already_member", "ambiguous_email"),
    "updateMember": ("last_admin",),
    "removeMember": ("last_admin", "role_by_group"),
    "createWebhook": ("too_many_webhooks", "no_secret_key", "database_unavailable"),
    "updateWebhook": ("too_many_webhooks",),
    "rotateWebhookSecret": ("no_secret_key", "database_unavailable", "changed_meanwhile"),
    "testWebhook": ("webhook_disabled", "too_many_tests", "rate_limited"),
    "redeliverWebhook": ("webhook_disabled",),
    "createMirror": ("too_many_mirrors", "no_secret_key", "database_unavailable"),
    "updateMirror": ("no_secret_key", "database_unavailable"),
    "backfillMirror": ("mirror_inactive",),
    "retryMirroredJob": ("mirror_inactive",),
    "beginSignIn": SIGN_IN,
    "finishSignIn": (*SIGN_IN, "sign_in_failed"),
    "signOut": ("cross_origin_refused", "sign_in_unavailable"),
}
"""What an operation answers with in place of the general ones, at the statuses that these codes have."""
REQUEST_ID = "0192f3a4b5c67d8e9f0a1b2c3d4e5f60"


def add_problem_examples(operation: dict[str, Any], components: dict[str, Any]) -> None:
    """Give each problem response of the operation its examples; they are components, each written once."""
    specific = OF_OPERATION.get(operation["operationId"], ())
    for status, response in operation["responses"].items():
        content = response.get("content", {}).get(MEDIA_TYPE)
        if content is None:
            continue
        codes = codes_of(int(status), specific) or codes_of(int(status), GENERAL)
        if "requestBody" not in operation:
            codes = [code for code in codes if code != "unsupported_media_type"]
        content["examples"] = {
            code: {"$ref": f"#/components/examples/{_add(components, code, int(status))}"} for code in codes
        }


def codes_of(status: int, codes: tuple[ProblemCode, ...]) -> list[ProblemCode]:
    """Return those of the codes that come with the status, each once."""
    return [code for code in dict.fromkeys(codes) if status in PROBLEM_TYPES[code].statuses]


def _add(components: dict[str, Any], code: ProblemCode, status: int) -> str:
    known = PROBLEM_TYPES[code]
    name = code if len(known.statuses) == 1 else f"{code}_{status}"
    value = HttpProblem(status, code, f"{known.meaning} {known.hint}").body(REQUEST_ID)
    components.setdefault("examples", {})[name] = {"summary": known.title, "value": value}
    return name
