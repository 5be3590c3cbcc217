"""Webhooks."""

from typing import Final

from fedit_server.access.roles import Right
from fedit_server.admin import webhooks
from fedit_server.admin.models.webhooks import MadeWebhook, NewWebhook, WebhookInfo, WebhookList, WebhookRemoved
from fedit_server.problems import AdminProblem
from fedit_server.routes.admin.endpoint import Endpoint

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/webhooks",
        Right.GOVERN,
        "List who is told of rounds, and how the messages stand.",
        lambda admin, _: webhooks.list_webhooks(admin),
        reply=WebhookList,
    ),
    Endpoint(
        "POST",
        "/webhooks",
        Right.GOVERN,
        "Tell a receiver of rounds from now on; answers with the secret that messages are signed with.",
        lambda admin, asked: webhooks.create_webhook(admin, asked.body),
        reply=MadeWebhook,
        body=NewWebhook,
        refusals=(AdminProblem.QUOTA,),
    ),
    Endpoint(
        "POST",
        "/webhooks/{webhook_id}:ping",
        Right.GOVERN,
        "Send a receiver a ping like any other message.",
        lambda admin, asked: webhooks.ping_webhook(admin, asked.path["webhook_id"]),
        reply=WebhookInfo,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
    Endpoint(
        "DELETE",
        "/webhooks/{webhook_id}",
        Right.GOVERN,
        "Tell a receiver no more.",
        lambda admin, asked: webhooks.remove_webhook(admin, asked.path["webhook_id"]),
        reply=WebhookRemoved,
        refusals=(AdminProblem.NOT_FOUND,),
    ),
)
