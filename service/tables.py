"""All tables, imported together so that metadata is whole."""

from service.audit.tables import AuditAnchor, AuditEntry, AuditPending
from service.database import Base
from service.datasets.tables import Blob, DatasetVersion
from service.experiments.tables import Experiment, Trial
from service.fair_share.tables import QueueShare
from service.inference_requests.tables import InferenceRequest
from service.jobs.tables import Artifact, Attempt, Checkpoint, ComputeUsage, Decision, IdempotencyKey, Job, JobEvent
from service.keys.tables import ApiKey
from service.logs.tables import LogChunk
from service.metrics.tables import MetricChunk, MetricSuperseded
from service.models.tables import Model
from service.notes.tables import Note
from service.outbox.tables import (
    Mirror,
    MirroredJob,
    Webhook,
    WebhookAttempt,
    WebhookCircuit,
    WebhookCrossing,
    WebhookDelivery,
)
from service.peer_evaluations.tables import PeerEvaluation, PeerGroup, PeerGroupMember
from service.projects.tables import Project
from service.recommendations.tables import Recommendation
from service.registry.tables import AliasAssignment, RegisteredName
from service.uploads.tables import Upload
from service.users.tables import BrowserSession, Membership, User
from service.workers.tables import Housekeeping, Worker

__all__ = [
    "AliasAssignment",
    "ApiKey",
    "Artifact",
    "Attempt",
    "AuditAnchor",
    "AuditEntry",
    "AuditPending",
    "Base",
    "Blob",
    "BrowserSession",
    "Checkpoint",
    "ComputeUsage",
    "DatasetVersion",
    "Decision",
    "Experiment",
    "Housekeeping",
    "IdempotencyKey",
    "InferenceRequest",
    "Job",
    "JobEvent",
    "LogChunk",
    "Membership",
    "MetricChunk",
    "MetricSuperseded",
    "Mirror",
    "MirroredJob",
    "Model",
    "Note",
    "PeerEvaluation",
    "PeerGroup",
    "PeerGroupMember",
    "Project",
    "QueueShare",
    "Recommendation",
    "RegisteredName",
    "Trial",
    "Upload",
    "User",
    "Webhook",
    "WebhookAttempt",
    "WebhookCircuit",
    "WebhookCrossing",
    "WebhookDelivery",
    "Worker",
]
