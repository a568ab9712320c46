"""Links to a job, for messages and other trackers."""

from __future__ import annotations

from service.settings import Settings


def job_url(settings: Settings, job_id: str) -> str:
    """Return the job's page where the operator has said what the service's address is, else its path in the API."""
    return page_of(settings.public_url, job_id) or f"/v1/jobs/{job_id}"


def page_of(public_url: str, job_id: str) -> str | None:
    """Return the address of the job's page; None where the service's own address is not known."""
    return f"{public_url}/ui/#/jobs/{job_id}" if public_url else None
