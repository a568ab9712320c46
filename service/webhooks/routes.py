"""HTTP of webhooks and their deliveries."""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import APIRouter, Body, Depends, Response

from service.auth import Reader, Writer
from service.context import Service
from service.listing.filters import ChoiceFilter, CreatedFilter, ExactFilter, FlagFilter, TimeFilter
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.outbox.tables import Webhook, WebhookDelivery
from service.pagination import Page
from service.request_sessions import ReadSession, SessionRoute, WriteSession
from service.webhooks import repository, service
from service.webhooks.schemas import (
    DeliveryDetail,
    DeliveryOut,
    DeliveryState,
    RotateIn,
    WebhookCreated,
    WebhookIn,
    WebhookOut,
    WebhookPatch,
    delivery_detail,
    delivery_out,
    webhook_created,
    webhook_out,
)

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=SessionRoute)


def new_webhook(who: Writer, context: Service, request: WebhookIn) -> WebhookIn:
    """Check the URL of the webhook to create."""
    service.check_url(context, request.url)
    return request


def changed_webhook(who: Writer, context: Service, request: WebhookPatch) -> WebhookPatch:
    """Check the URL of the change, if it has one."""
    if "url" in request.model_fields_set:
        service.check_url(context, request.url)
    return request


# before the session in every signature: a name server may take seconds
NewWebhook = Annotated[WebhookIn, Depends(new_webhook)]
ChangedWebhook = Annotated[WebhookPatch, Depends(changed_webhook)]


@router.post(
    "", status_code=201, response_model=WebhookCreated, summary="Create a webhook; its secret is shown only here"
)
def create_webhook(
    who: Writer, context: Service, request: NewWebhook, session: WriteSession, response: Response
) -> WebhookCreated:
    """From now on the events named are sent to `url`, signed with the secret. 422 for an address that may not be
    reached, 409 with too many webhooks in the project or to one host, 503 where the service has no key to encrypt
    secrets with.
    """
    webhook, secret = service.create(session, context, who, request)
    response.headers["Location"] = f"/v1/webhooks/{webhook.id}"
    return webhook_created(webhook, secret)


WEBHOOKS = ListOf(
    Webhook.id,
    WebhookOut,
    sorts=[SortField("created_at", Webhook.id)],
    filters=[
        FlagFilter("active", Webhook.active),
        ExactFilter("job", Webhook.job_id),
        TimeFilter("created_at", Webhook.created_at),
    ],
)


@router.get("", response_model=Page[WebhookOut], summary="Webhooks of the project, newest first")
def list_webhooks(who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(WEBHOOKS.query)]) -> Response:
    """Addresses, events and filters of each, without its secret."""
    return query.respond(page(session, query, Webhook.project_id == who.project_id), webhook_out)


@router.get("/{webhook_id}", response_model=WebhookOut, summary="One webhook")
def get_webhook(webhook_id: str, who: Reader, session: ReadSession) -> WebhookOut:
    """Address, events, filters, and why it is disabled where it is. The secret is not shown."""
    return webhook_out(service.find(session, who, webhook_id))


@router.patch("/{webhook_id}", response_model=WebhookOut, summary="Update, disable or enable a webhook")
def update_webhook(
    webhook_id: str, who: Writer, context: Service, request: ChangedWebhook, session: WriteSession
) -> WebhookOut:
    """Fields that are left out stay. Deliveries that wait go to the new `url`. `active: true` enables a webhook again
    that was disabled. 422 for an address that may not be reached, 409 with too many webhooks to its host.
    """
    return webhook_out(service.change(session, context, who, webhook_id, request))


@router.delete("/{webhook_id}", status_code=204, summary="Delete a webhook with its deliveries")
def delete_webhook(webhook_id: str, who: Writer, context: Service, session: WriteSession) -> None:
    """Messages that wait are not sent any more."""
    service.delete_deliveries(context, who, webhook_id)
    service.delete(session, who, webhook_id)


@router.post("/{webhook_id}/rotate", response_model=WebhookCreated, summary="Rotate the secret; both sign for a while")
def rotate_webhook_secret(
    webhook_id: str,
    who: Writer,
    context: Service,
    session: WriteSession,
    request: Annotated[RotateIn | None, Body()] = None,
) -> WebhookCreated:
    """The answer shows the new secret, this once. Messages are signed with both for `overlap_seconds`. 422 for the
    secret that it has, 503 where the service has no key to encrypt secrets with.
    """
    return webhook_created(*service.rotate(session, context, who, webhook_id, request or RotateIn()))


@router.post("/{webhook_id}/test", status_code=202, response_model=DeliveryOut, summary="Send a test message")
def test_webhook(webhook_id: str, who: Writer, session: WriteSession) -> DeliveryOut:
    """Queues a `webhook.test` message and answers with its delivery, which shows later whether it has arrived. 409 when
    the webhook is disabled, 429 with too many tests pending.
    """
    return delivery_out(service.test(session, who, webhook_id))


DELIVERIES = ListOf(
    WebhookDelivery.id,
    DeliveryOut,
    sorts=[SortField("created_at", WebhookDelivery.id)],
    filters=[
        ChoiceFilter("state", WebhookDelivery.state, choices=get_args(DeliveryState)),
        ExactFilter("type", WebhookDelivery.type, max_length=40),
        ExactFilter("job", WebhookDelivery.job_id),
        CreatedFilter(column=WebhookDelivery.created_at, ids=WebhookDelivery.id, prefix="msg"),
    ],
)


@router.get(
    "/{webhook_id}/deliveries", response_model=Page[DeliveryOut], summary="Deliveries of a webhook, newest first"
)
def list_webhook_deliveries(
    webhook_id: str,
    who: Reader,
    session: ReadSession,
    query: Annotated[ListQuery, Depends(DELIVERIES.query)],
) -> Response:
    """State, number of attempts and last answer of each message, without its payload."""
    service.find(session, who, webhook_id)
    return query.respond(page(session, query, WebhookDelivery.webhook_id == webhook_id), delivery_out)


@router.get(
    "/{webhook_id}/deliveries/{delivery_id}",
    response_model=DeliveryDetail,
    summary="One delivery with its payload and every attempt",
)
def get_webhook_delivery(webhook_id: str, delivery_id: str, who: Reader, session: ReadSession) -> DeliveryDetail:
    """The body as it is sent, and for each attempt when it was made and what came back."""
    found = service.find_delivery(session, who, webhook_id, delivery_id)
    return delivery_detail(found, list(repository.attempts(session, found.id)))


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=DeliveryOut,
    summary="Send a message again, with the same id",
)
def redeliver_webhook(webhook_id: str, delivery_id: str, who: Writer, session: WriteSession) -> DeliveryOut:
    """Makes the delivery due now, with the same body and a new round of attempts, also one that has failed or
    succeeded. 409 when the webhook is disabled.
    """
    return delivery_out(service.redeliver(session, who, webhook_id, delivery_id))
