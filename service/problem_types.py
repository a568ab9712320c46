"""The closed list of problem types: what each `code` of an error response means, and what to do about it.

`HttpProblem` takes only these codes. The page of errors that the service serves, and that of the documentation, are
written from this list; a problem's `type` leads to its entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ERRORS_PATH = "/docs/errors"
"""Where the service describes its problem types."""

ProblemCode = Literal[
    "above_ceiling",
    "aliased",
    "already_member",
    "ambiguous_email",
    "answer_lost",
    "answer_too_slow",
    "bad_chunks",
    "bad_cursor",
    "bad_host",
    "bad_http",
    "bad_jobs",
    "bad_range",
    "bad_request",
    "bad_time",
    "beyond_length",
    "body_too_slow",
    "bucket_not_allowed",
    "budget_reserved",
    "budget_used_up",
    "busy_name",
    "bytes_missing",
    "changed_meanwhile",
    "checkpoint_removed",
    "checksum_mismatch",
    "checksum_unknown",
    "content_encoding",
    "cross_origin_refused",
    "database_unavailable",
    "digest_mismatch",
    "digest_unknown",
    "disconnected",
    "duplicate_key",
    "empty",
    "file_not_allowed",
    "file_unreadable",
    "files_missing",
    "files_off",
    "forbidden",
    "gpu_hours_used_up",
    "head_too_large",
    "head_too_slow",
    "history_too_long",
    "http_error",
    "idempotency_mismatch",
    "in_use",
    "internal",
    "invalid_input",
    "invalid_request",
    "invalid_spec",
    "key_ended",
    "key_expired",
    "key_invalid",
    "key_malformed",
    "key_missing",
    "key_not_text",
    "last_admin",
    "length_changed",
    "length_needed",
    "metadata_invalid",
    "metadata_too_long",
    "method_not_allowed",
    "mirror_inactive",
    "name_taken",
    "newer_metrics",
    "no_checkpoint",
    "no_evaluation",
    "no_name",
    "no_onnx",
    "no_plot",
    "no_prediction_worker",
    "no_secret_key",
    "no_project",
    "no_safetensors",
    "no_samples",
    "not_a_file",
    "not_a_number",
    "not_acceptable",
    "not_checked_yet",
    "not_comparable",
    "not_finite",
    "not_found",
    "not_investigable",
    "not_json",
    "not_plain",
    "not_ready",
    "not_storable",
    "not_text",
    "not_uploaded_yet",
    "not_utf8",
    "not_yaml",
    "nothing_left",
    "nothing_to_compare",
    "number_too_large",
    "offset_needed",
    "overloaded",
    "override_needed",
    "prediction_failed",
    "project_archived",
    "quota_exceeded",
    "rate_limited",
    "removed",
    "role_by_group",
    "s3_off",
    "session_ended",
    "sign_in_failed",
    "sign_in_off",
    "sign_in_refused",
    "sign_in_unavailable",
    "still_active",
    "ticket_invalid",
    "too_deep",
    "too_large",
    "too_many_connections",
    "too_many_labels",
    "too_many_large_bodies",
    "too_many_keys",
    "too_many_mirrors",
    "too_many_open_bytes",
    "too_many_parameters",
    "too_many_points",
    "too_many_queued",
    "too_many_requests",
    "too_many_streams",
    "too_many_tests",
    "too_many_uploads",
    "too_many_values",
    "too_many_webhooks",
    "too_many_wrong_keys",
    "transfer_encoding",
    "tus_version",
    "unknown_host",
    "unknown_metric",
    "unsupported_media_type",
    "upload_expired",
    "upload_failed",
    "upload_idle",
    "upload_locked",
    "uri_invalid",
    "uri_scheme",
    "url_too_long",
    "user_disabled",
    "webhook_disabled",
    "wrong_offset",
    "wrong_state",
    "yaml_alias",
    "yaml_tag",
]


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One entry of the list. `title` is the same in every problem of the type."""

    statuses: tuple[int, ...]
    title: str
    meaning: str
    hint: str


def _type(status: int | tuple[int, ...], title: str, meaning: str, hint: str) -> ProblemType:
    return ProblemType(status if isinstance(status, tuple) else (status,), title, meaning, hint)


PROBLEM_TYPES: dict[ProblemCode, ProblemType] = {
    # keys and rights
    "key_missing": _type(
        401,
        "A key is needed",
        "The request has no header `Authorization`.",
        "Send `Authorization: Bearer tk_...`. `trainkit key create` makes a key.",
    ),
    "key_malformed": _type(
        401,
        "The key is malformed",
        "`Authorization` is there, but is not `Bearer` and a key in the form `tk_<8 characters>_<secret>`.",
        "Look for a lost character, quotes, a line break or another scheme, such as Basic.",
    ),
    "key_invalid": _type(
        401,
        "The key is not valid",
        "The key is unknown or was revoked; the answer does not say which.",
        "Ask an admin of the project for a new key.",
    ),
    "key_expired": _type(
        401,
        "The key has expired",
        "The key is right, but its time is over.",
        "Ask an admin of the project for a new key.",
    ),
    "too_many_wrong_keys": _type(
        429,
        "Too many wrong keys",
        "So many wrong keys came from the client's address that further ones are not looked up. Right keys are let in.",
        "Correct the key, and wait `Retry-After` seconds.",
    ),
    "ticket_invalid": _type(
        401,
        "The stream ticket is not valid",
        "The ticket is wrong, over, for another stream, or its key is no longer valid.",
        "Ask for a new one: `POST /v1/stream-tickets`.",
    ),
    "cross_origin_refused": _type(
        403,
        "Cross-origin request refused",
        "A page of another origin may not send this request.",
        "An operator names origins in `TRAINKIT_CORS_ORIGINS`. A signed-in browser writes from a page of this service only.",
    ),
    "forbidden": _type(
        403,
        "Your role does not allow it",
        "The key is valid, but its role in the project does not include the operation.",
        "Use a key with the role that `detail` names, or ask an admin of the project.",
    ),
    "no_project": _type(
        422,
        "No project is chosen",
        "The operation is about one project, and you are in several or in none.",
        "Name one in the header `Trainkit-Project`, or for GET in the query parameter `trainkit-project`.",
    ),
    "session_ended": _type(
        401,
        "You are signed out",
        "The session of the browser has ended: its time is over, or it was signed out.",
        "Sign in again at `/v1/auth/login`.",
    ),
    "user_disabled": _type(403, "Your account is disabled", "The operator has disabled the user.", "Ask the operator."),
    "sign_in_off": _type(
        404, "There is no sign-in", "This installation has no sign-in provider.", "Use an API key, or ask the operator."
    ),
    "sign_in_failed": _type(
        400,
        "The sign-in failed",
        "What the browser brought back from the sign-in provider does not fit what was begun; `detail` says how.",
        "Begin again at `/v1/auth/login`.",
    ),
    "sign_in_refused": _type(
        403,
        "The sign-in provider said no",
        "The provider or the person refused the sign-in; `detail` has the provider's code.",
        "Begin again, or ask the provider's administrators.",
    ),
    "sign_in_unavailable": _type(
        503,
        "The sign-in provider does not answer",
        "The provider is needed for this request, and does not answer. API keys work meanwhile.",
        "Try again after `Retry-After`.",
    ),
    "already_member": _type(
        409, "A member already", "The person is a member of the project already.", "Change the role of the member."
    ),
    "ambiguous_email": _type(
        409,
        "Several persons have this address",
        "The address does not say whom you mean.",
        "Send `user` with the id that `GET /v1/me` shows the person.",
    ),
    "role_by_group": _type(
        409,
        "The role comes from a group",
        "The member has the role by a group of the sign-in provider.",
        "Change the groups there, or the mapping (`TRAINKIT_OIDC_ROLES`).",
    ),
    "last_admin": _type(
        409,
        "The last admin of the project",
        "Without this one nobody could manage the project.",
        "Make another member an admin first. The operator may go on, and so may a key that belongs to no user.",
    ),
    "project_archived": _type(
        409,
        "The project is archived",
        "An archived project can be read, and nothing in it changes.",
        "Work in another project, or ask the operator to take it back to use.",
    ),
    "name_taken": _type(409, "The name is taken", "Another one has that name already.", "Choose another name."),
    "key_ended": _type(
        409,
        "The key has ended",
        "The key that the request is about is revoked or expired.",
        "Create a new one instead.",
    ),
    # addresses and things
    "not_found": _type(
        404,
        "Not found",
        "There is no route at the address, or nothing with that id in the key's project. Things of other projects are "
        "not found either.",
        "Check the address and the id; a list shows what there is.",
    ),
    "method_not_allowed": _type(
        405, "Method not allowed", "The address exists, but not for this method.", "Use a method that `Allow` names."
    ),
    "removed": _type(
        410,
        "Removed by retention",
        "This part of the job was removed; `removed_at` says when.",
        "Nothing brings it back. Retention is a setting of the project.",
    ),
    "no_evaluation": _type(
        404, "No evaluation yet", "The job has no evaluation.", "Wait until it has ended well; failed jobs have none."
    ),
    "no_plot": _type(
        404,
        "Nothing to draw yet",
        "There are no values to draw: no metrics yet, or no confusion matrix for this task.",
        "Try again when the job has trained an epoch.",
    ),
    "files_missing": _type(
        404,
        "The files are gone",
        "The model's files are not in storage any more.",
        "Ask the operator: storage was changed behind the service.",
    ),
    # the request as HTTP
    "bad_request": _type(
        400,
        "Bad request",
        "The request, most often a multipart form, cannot be read.",
        "`detail` says what is wrong with it.",
    ),
    "bad_http": _type(
        400,
        "No valid HTTP",
        "The bytes are not a valid HTTP/1.1 request.",
        "Use an HTTP client; check proxies between.",
    ),
    "bad_chunks": _type(
        400,
        "Chunks too small",
        "A chunked body has far more framing than content, or chunk extensions.",
        "Send chunks of at least 16 bytes, or a `Content-Length`.",
    ),
    "bad_host": _type(
        400, "Host missing or malformed", "A request has exactly one header `Host`, a name or an address.", "Send one."
    ),
    "unknown_host": _type(
        421,
        "Another host",
        "The service does not answer to the name in `Host`.",
        "Use its own name. An operator adds names to `TRAINKIT_ALLOWED_HOSTS`.",
    ),
    "url_too_long": _type(414, "Address too long", "The address has more than 8 KiB.", "Shorten it."),
    "head_too_large": _type(
        431,
        "Head too large",
        "Request line and headers have more than 32 KiB, or there are more than 100 headers.",
        "Send fewer and shorter headers.",
    ),
    "head_too_slow": _type(
        408, "Head too slow", "The request line and headers did not come in time.", "Send them at once."
    ),
    "body_too_slow": _type(
        408,
        "Body too slow",
        "The body came more slowly than the service waits for.",
        "Send it faster; large files by a resumable upload (`/v1/uploads`).",
    ),
    "disconnected": _type(
        400, "Ended before its last byte", "The connection ended within the body.", "Send the request again."
    ),
    "transfer_encoding": _type(
        400, "Transfer-Encoding not read", "The only `Transfer-Encoding` that is read is chunked.", "Leave it out."
    ),
    "content_encoding": _type(
        415,
        "Encoded body",
        "Bodies are not decompressed.",
        "Send it without `Content-Encoding`; a dataset may be a .gz or .zip file.",
    ),
    "not_acceptable": _type(
        406,
        "Not acceptable",
        "`Accept` allows none of the media types that the operation answers with.",
        "Name one that `detail` names, or leave `Accept` out.",
    ),
    "unsupported_media_type": _type(
        415,
        "Unsupported media type",
        "The operation reads no body of this `Content-Type`.",
        "Send one of the types that `detail` names.",
    ),
    "http_error": _type(
        (400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 500, 503),
        "HTTP error",
        "The framework refused the request.",
        "`detail` says why.",
    ),
    # bodies and parameters
    "invalid_request": _type(
        422,
        "Not valid",
        "Parameters, headers or fields of the body break their schema, or are unknown.",
        "`errors` names each place, what is wrong and what to do.",
    ),
    "invalid_spec": _type(
        422,
        "The spec is not valid",
        "The job spec or experiment breaks its schema or a rule.",
        "`errors` names each place with a hint. `POST /v1/specs:validate` checks without creating anything.",
    ),
    "invalid_input": _type(
        422,
        "The input is not valid",
        "The inputs of a prediction or evaluation do not fit the model, or cannot be read.",
        "`errors` names the place; the model's manifest says what it takes.",
    ),
    "empty": _type(422, "Empty", "The body or file has no bytes.", "Send the file's bytes, as `curl -T FILE` does."),
    "not_json": _type(
        422,
        "Not JSON",
        "The body is not JSON.",
        "`detail` names the place. For YAML send `Content-Type: application/yaml`.",
    ),
    "not_yaml": _type(422, "Not YAML", "The body is not YAML 1.2.", "`detail` names line and column."),
    "yaml_alias": _type(422, "YAML alias", "Anchors and aliases are not taken.", "Write the value out."),
    "yaml_tag": _type(422, "YAML tag", "Tags (`!name`) are not taken.", "Leave the tag out."),
    "not_utf8": _type(422, "Not UTF-8", "The body is not UTF-8.", "Encode it as UTF-8."),
    "not_text": _type(
        422, "Not text", "The address or body holds a NUL or half of a surrogate pair.", "Leave the character out."
    ),
    "not_plain": _type(
        422, "Not a plain value", "A YAML value is a date or another type that JSON lacks.", "Put it in quotes."
    ),
    "key_not_text": _type(422, "Key is not text", "A key of a mapping is not text.", "Put the key in quotes."),
    "duplicate_key": _type(422, "Duplicate key", "A mapping names a key twice.", "Name each key once."),
    "not_finite": _type(422, "Not finite", "A number is infinite or not a number.", "Send a finite number."),
    "number_too_large": _type(422, "Number too large", "A number does not fit 64 bits.", "Send a smaller one."),
    "too_deep": _type(422, "Nested too deeply", "The document is nested more than 32 levels deep.", "Nest it less."),
    "too_many_values": _type(
        422, "Too many values", "The document holds more than 20,000 values.", "Send less at once."
    ),
    "not_storable": _type(
        422, "Not storable", "A value cannot be stored or compared by the database.", "Use smaller numbers, plain text."
    ),
    "too_many_parameters": _type(422, "Too many parameters", "The query has more than 100 parameters.", "Send fewer."),
    "bad_cursor": _type(
        422,
        "Not a position",
        "The cursor is no position of this stream.",
        "Send the id of the last event that you saw.",
    ),
    "bad_jobs": _type(
        422, "Too many or no jobs", "The number of jobs named is out of range.", "Name as many as allowed."
    ),
    "too_many_labels": _type(
        422, "Too many labels", "A job or a model has 32 labels at most; a filter names no more.", "Name fewer."
    ),
    "bad_range": _type(422, "Empty range", "The range begins after its end.", "Swap the bounds."),
    "bad_time": _type(422, "Not a time", "The time cannot be expressed in UTC.", "Send RFC 3339 with `Z`."),
    "unknown_metric": _type(
        422, "Unknown metric", "No trial has recorded this metric.", "Use one that the experiment's jobs report."
    ),
    "too_many_points": _type(
        422,
        "Too many points",
        "The answer would have more points than one call gives.",
        "Ask for fewer series or points.",
    ),
    "history_too_long": _type(
        422,
        "History too long",
        "The recorded history is too long to replay in a request.",
        "Replay fewer rules or jobs.",
    ),
    "idempotency_mismatch": _type(
        422,
        "Idempotency key used before",
        "The same `Idempotency-Key` came with another request.",
        "Use a new key for a new request.",
    ),
    # sizes and quotas
    "too_large": _type(
        413, "Too large", "The body is beyond its limit; `limit_bytes` says how much is allowed.", "Send less at once."
    ),
    "quota_exceeded": _type(
        413,
        "Quota exceeded",
        "The project would hold more bytes than its quota, `limit_bytes`.",
        "Delete datasets or models, or ask the operator for more.",
    ),
    "too_many_open_bytes": _type(
        413,
        "Unfinished uploads too large",
        "The project's unfinished uploads declare more bytes than allowed.",
        "Finish or cancel some.",
    ),
    "overloaded": _type(
        503,
        "Overloaded",
        "The service has more requests than it can serve; this one was not begun.",
        "Send it again after `Retry-After` seconds.",
    ),
    "too_many_requests": _type(
        429,
        "Too many requests",
        "The key has its limit of requests in work, or the project its limit of predictions that wait.",
        "Wait `Retry-After` seconds.",
    ),
    "rate_limited": _type(
        429,
        "Too many requests a minute",
        "The key has sent more than its requests a minute to this process of the service.",
        "Wait `Retry-After` seconds, and send more slowly: `RateLimit` in every response tells how many are left.",
    ),
    "too_many_streams": _type(
        429, "Too many streams", "The key has its limit of streams and long polls open.", "Close some of them."
    ),
    "too_many_connections": _type(
        (429, 503),
        "Too many connections",
        "The client's address (429) or the service (503) has its limit of open connections.",
        "Close connections, or use one for several requests.",
    ),
    "too_many_large_bodies": _type(
        (429, 503),
        "Too many large bodies",
        "The key (429) or the service (503) has as many large bodies in work as memory is set aside for.",
        "Wait `Retry-After` seconds.",
    ),
    "too_many_queued": _type(
        429,
        "Too many queued jobs",
        "The project has its limit of queued jobs.",
        "Wait for some to begin, or cancel some.",
    ),
    "gpu_hours_used_up": _type(
        429,
        "GPU-hours used up",
        "The project has used its GPU-hours of this calendar month (UTC), and the job may train on a GPU.",
        "Set `resources.device` to cpu, wait for the next month, or ask the operator for more.",
    ),
    "budget_used_up": _type(
        403,
        "Budget of the key used up",
        "The key has created as many jobs, or its jobs have taken as many seconds, as its budget allows.",
        "An admin of the project can create a key with a new budget. `GET /v1/me` shows this one.",
    ),
    "budget_reserved": _type(
        409,
        "Budget of the key reserved",
        "The time limits of jobs that have not ended take the rest of the key's budget of compute seconds.",
        "Wait until one ends, or stop one; name a smaller `resources.max_seconds` in specs.",
    ),
    "too_many_uploads": _type(
        429, "Too many uploads", "The project has its limit of unfinished uploads.", "Finish or cancel some."
    ),
    "too_many_keys": _type(
        409,
        "Too many keys",
        "You have your limit of keys of your own in this project.",
        "Revoke those that you no longer use: DELETE /v1/keys/{key_id}.",
    ),
    "too_many_mirrors": _type(
        409, "Too many mirrors", "The project has its limit of mirrors.", "Delete one first: DELETE /v1/mirrors/{id}."
    ),
    "mirror_inactive": _type(
        409, "Mirror not active", "The mirror is not active, so nothing is copied.", "Set `active` to true first."
    ),
    "too_many_webhooks": _type(
        409, "Too many webhooks", "The project has its limit of webhooks, in all or to one host.", "Delete one first."
    ),
    "too_many_tests": _type(
        429, "Too many test messages", "The webhook has test messages that are not delivered yet.", "Wait for them."
    ),
    "above_ceiling": _type(
        422,
        "Beyond the operator's limit",
        "A project's setting would allow it more than the operator does.",
        "Set the value of `limits` of the project or less, or ask the operator for more.",
    ),
    # states
    "wrong_state": _type(
        409,
        "Wrong state",
        "What the request is about is in a state that does not allow it.",
        "`detail` names the state.",
    ),
    "not_investigable": _type(
        409,
        "Cannot be investigated",
        "The job's training cannot be repeated with one change: nothing was trained, or not by the service itself.",
        "`detail` says why, and what can be done instead.",
    ),
    "changed_meanwhile": _type(
        (409, 412),
        "Changed meanwhile",
        "Another request has just changed the same thing.",
        "Read it again, then decide.",
    ),
    "not_ready": _type(
        409, "Not ready", "It is not ready yet.", "Try again after `Retry-After` seconds, if it is given."
    ),
    "not_checked_yet": _type(409, "Not checked yet", "The dataset is still being checked.", "Try again in a second."),
    "not_uploaded_yet": _type(
        409, "Not uploaded yet", "The dataset has no bytes yet.", "Wait until its state is validating."
    ),
    "bytes_missing": _type(409, "Bytes missing", "The dataset's bytes are gone from storage.", "Upload them again."),
    "busy_name": _type(409, "Name is busy", "Too many uploads of one dataset name at once.", "Try again."),
    "in_use": _type(409, "In use", "Jobs that have not ended use it.", "Cancel them, or wait."),
    "still_active": _type(409, "Still active", "The job has not ended.", "Cancel it first."),
    "newer_metrics": _type(
        409,
        "Newer metrics",
        "The job has recorded metrics after `if_seq`, so the decision rests on an older state.",
        "Read them, then decide again.",
    ),
    "nothing_left": _type(
        409, "Nothing left to train", "The job has trained all its epochs.", "Say how many more: `extra_epochs`."
    ),
    "aliased": _type(
        409,
        "It has an alias",
        "A version that `name@alias` means is neither deleted nor renamed.",
        "Move the alias to another version, or remove it, as `detail` says.",
    ),
    "no_name": _type(
        409,
        "The model has no name",
        "An alias is one of a name, and the model's job had none.",
        "Give it a name: PATCH /v1/models/{model}.",
    ),
    "no_checkpoint": _type(409, "No checkpoint", "There is no checkpoint to go on from.", "`retry` begins anew."),
    "checkpoint_removed": _type(
        409,
        "Checkpoints removed",
        "The job's checkpoints were removed by retention.",
        "`retry` begins anew; `start_from` begins with the weights of its model.",
    ),
    "no_safetensors": _type(
        409,
        "No single file",
        "An ensemble is several networks and has no single file.",
        "Download it with `format=zip`.",
    ),
    "no_samples": _type(409, "No samples", "The dataset holds weights, which have no preview.", "See its report."),
    "not_comparable": _type(
        409, "Not comparable", "The two were not evaluated on the same samples.", "Compare what shares a split."
    ),
    "nothing_to_compare": _type(
        409, "Nothing to compare", "No part of the data has results of both yet.", "Wait for more trials."
    ),
    "webhook_disabled": _type(409, "Webhook disabled", "The webhook is disabled.", "Enable it first."),
    # resumable uploads, and what datasets come from
    "tus_version": _type(
        412,
        "Another protocol version",
        "The header `Tus-Resumable` is missing or another.",
        "Send `Tus-Resumable: 1.0.0`.",
    ),
    "length_needed": _type(
        400, "Length needed", "Exactly one of `Upload-Length` and `Upload-Defer-Length` is needed.", "Send one."
    ),
    "length_changed": _type(400, "Length changed", "The upload's length is known already.", "Leave it out."),
    "not_a_number": _type(400, "Not a number", "A header is no whole number of bytes.", "Send digits only."),
    "offset_needed": _type(400, "Offset needed", "`Upload-Offset` is missing.", "Ask for it with HEAD."),
    "wrong_offset": _type(
        409, "Wrong offset", "The bytes begin at another place than the upload's end.", "Continue from `Upload-Offset`."
    ),
    "override_needed": _type(
        400, "Method override needed", "POST to an upload stands for PATCH.", "Send `X-HTTP-Method-Override: PATCH`."
    ),
    "checksum_unknown": _type(
        400, "Checksum not read", "`Upload-Checksum` is not sha256 or sha1 in base64.", "Encode the raw digest."
    ),
    "checksum_mismatch": _type(
        460, "Checksum mismatch", "The bytes have another checksum than declared; none was kept.", "Send them again."
    ),
    "metadata_invalid": _type(
        (400, 422),
        "Upload metadata not valid",
        "`Upload-Metadata` is malformed, or a value in it is not valid.",
        "`errors` names the key.",
    ),
    "metadata_too_long": _type(400, "Upload metadata too long", "`Upload-Metadata` is too long.", "Send less."),
    "beyond_length": _type(
        413, "Beyond its length", "The body goes beyond the upload's declared length.", "Declare the right length."
    ),
    "upload_locked": _type(
        423, "Upload locked", "Another request writes to the upload.", "Try again after `Retry-After` seconds."
    ),
    "upload_idle": _type(
        408, "Upload idle", "No byte came for too long; those received are kept.", "Continue from `Upload-Offset`."
    ),
    "upload_expired": _type(410, "Upload expired", "The upload's next bytes came too late.", "Begin a new one."),
    "upload_failed": _type(410, "Upload failed", "The upload was received, but could not be used.", "Begin a new one."),
    "digest_unknown": _type(
        400, "Digest not read", "`Content-Digest` holds no SHA-256.", "Send `sha-256=:<base64>:`, or leave it out."
    ),
    "digest_mismatch": _type(
        400, "Digest mismatch", "The bytes have another SHA-256 than declared; nothing was kept.", "Send them again."
    ),
    "uri_invalid": _type(
        (400, 422), "Not an address", "The URI is not the address of a file or object.", "`detail` shows the form."
    ),
    "uri_scheme": _type(
        422, "Scheme not supported", "Datasets come from `file://` and `s3://`.", "Use one of them, or send the bytes."
    ),
    "files_off": _type(
        422, "Files are not taken", "The operator has named no folders.", "Send the bytes, or ask for a folder."
    ),
    "file_not_allowed": _type(
        422, "File not allowed", "The file lies outside the allowed folders.", "Move it, or send its bytes."
    ),
    "file_unreadable": _type(
        422,
        "File unreadable",
        "The file cannot be read.",
        "Check path and rights, on the API's and the workers' hosts.",
    ),
    "not_a_file": _type(422, "Not a file", "It is not a regular file.", "Pack a folder into a zip or tar."),
    "s3_off": _type(
        422, "S3 is not taken", "The operator has named no buckets.", "Send the bytes, or ask for the bucket."
    ),
    "bucket_not_allowed": _type(
        422, "Bucket not allowed", "The bucket is not among those allowed.", "Copy the object, or send its bytes."
    ),
    # the service itself
    "internal": _type(
        500,
        "Internal error",
        "A defect of the service, not of the request.",
        "Report it with `request_id`: the log has the cause under that id.",
    ),
    "database_unavailable": _type(
        503,
        "Database unavailable",
        "The database does not answer; nothing was changed.",
        "Try again after `Retry-After`.",
    ),
    "no_onnx": _type(
        409,
        "No ONNX form",
        "ONNX cannot express this model.",
        "Download the model as safetensors, an ensemble with `format=zip`.",
    ),
    "no_secret_key": _type(
        503,
        "No key for secrets",
        "The service has no key to encrypt a secret with, so it stores none.",
        "An operator sets `TRAINKIT_SECRET_KEY` and starts the API and the workers again.",
    ),
    "no_prediction_worker": _type(
        503,
        "No worker answers",
        "No worker took the prediction in time.",
        "Try again after `Retry-After`; an operator starts a worker for the queue `predict`.",
    ),
    "answer_lost": _type(503, "Answer lost", "The request was deleted before its answer came.", "Send it again."),
    "answer_too_slow": _type(503, "Answer too slow", "The answer took too long.", "Ask for less at once."),
    "prediction_failed": _type(
        (500, 503),
        "Prediction failed",
        "The process that computed the answer failed.",
        "`errors` says how. Try again; report it when it happens again.",
    ),
}
"""Every code, in the order of the page."""


def code_named(name: str) -> ProblemCode | None:
    """Return the code of that name, None where there is none."""
    return next((code for code in PROBLEM_TYPES if code == name), None)
