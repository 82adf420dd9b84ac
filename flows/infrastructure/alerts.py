"""Who is alerted, from variables: blocks of Prefect that nobody has to make in the UI."""

import os
from typing import Any

from prefect.blocks.notifications import (
    CustomWebhookNotificationBlock,
    SendgridEmail,
    SlackWebhook,
)

from pedfrac.errors import PedfracError

NAME = "pedfrac-alerts"
SLACK, WEBHOOK = "PEDFRAC_ALERT_SLACK", "PEDFRAC_ALERT_WEBHOOK"
EMAIL = ("PEDFRAC_ALERT_SENDGRID_KEY", "PEDFRAC_ALERT_FROM", "PEDFRAC_ALERT_TO")


def blocks_of_variables() -> list[str]:
    """Make or renew a block for each way of alerting that a variable names; return their ids.

    Raises PedfracError where one variable of e-mail is set without the others.
    """
    return [str(block.save(NAME, overwrite=True)) for block in _blocks()]


def _blocks() -> list[Any]:
    found: list[Any] = []
    if url := os.environ.get(SLACK):
        found.append(SlackWebhook(url=url))
    if url := os.environ.get(WEBHOOK):
        said = {"subject": "{{subject}}", "body": "{{body}}"}
        found.append(CustomWebhookNotificationBlock(name=NAME, url=url, json_data=said))
    key, sender, to = (os.environ.get(name) for name in EMAIL)
    if key and sender and to:
        receivers = [one.strip() for one in to.split(",")]
        found.append(SendgridEmail(api_key=key, sender_email=sender, to_emails=receivers))
    elif key or sender or to:
        raise PedfracError(f"alerts by e-mail need all of {', '.join(EMAIL)}")
    return found
