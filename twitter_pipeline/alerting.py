"""Tell what is wrong, and that it is over: each change once, in the log and to a webhook."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from twitter_pipeline import webhook
from twitter_pipeline.alerts import (
    Findings,
    OpenAlert,
    judge_accounts,
    judge_budgets,
    judge_names,
    judge_refusals,
    judge_tokens,
    payload_of,
    plan_changes,
)
from twitter_pipeline.budgets import Cost
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.activity import load_all_windows
from twitter_pipeline.store.alerts import (
    give_back,
    load_tracked_accounts,
    note_told,
    save_changes,
    take_news,
)
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.refused_names import load_refusals
from twitter_pipeline.store.spending import load_spent
from twitter_pipeline.store.tokens import load_tokens
from twitter_pipeline.texts import counted
from twitter_pipeline.words import AlertKind

logger = logging.getLogger(__name__)

TELLING_LEASE = timedelta(seconds=4 * webhook.LONGEST_S)
"""After so long a process that took messages to post them is taken for dead."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a look has told: in the log, and to the webhook. `unposted` says why it did not take what is left."""

    begun: Sequence[str]
    ended: Sequence[str]
    posted: int
    unposted: str | None

    def __str__(self) -> str:
        parts = [counted(len(self.begun), "new alert")] if self.begun else []
        parts += [f"{len(self.ended):,} over"] if self.ended else []
        parts += [f"{counted(self.posted, 'message')} posted"] if self.posted else []
        parts += [f"the webhook takes no messages: {self.unposted}"] if self.unposted else []
        return ", ".join(parts)


def find_troubles(database: Database, settings: Settings, open_alerts: Sequence[OpenAlert]) -> Findings:
    """Look at the tokens, their windows, what X does not know of requests, the tracked accounts, and the budgets."""
    unknown = [each.subject for each in open_alerts if each.kind is AlertKind.NAME_REFUSED]
    gone = [int(each.subject) for each in open_alerts if each.kind is AlertKind.ACCOUNT_GONE]
    budgets, page = settings.budgets, Cost(posts=settings.page_size)
    spent = load_spent(database, budgets) if budgets else []
    return (
        judge_tokens(load_tokens(database), settings.bearer_tokens)
        + judge_refusals(load_all_windows(database), settings.bearer_tokens)
        + judge_accounts(load_tracked_accounts(database, alerted=gone))
        + judge_budgets(spent, budgets, settings.prices, wanted=page)
        + judge_names(load_refusals(database), unknown)
    )


def tell(database: Database, settings: Settings, findings: Findings, open_alerts: Sequence[OpenAlert]) -> Told:
    """Write down what has changed since the alerts were loaded, log it, and post what is not posted yet.

    Several processes may do so at once. A message is posted again only when a process died just after posting it.
    """
    begun, ended = save_changes(database, plan_changes(findings, open_alerts, now=datetime.now(UTC)))
    for message in begun:
        logger.warning("Alert: %s", message)
    for message in ended:
        logger.info("Over: %s", message)
    posted, unposted = _post_news(database, settings)
    return Told(begun, ended, posted, unposted)


def _post_news(database: Database, settings: Settings) -> tuple[int, str | None]:
    """Post what is not posted yet as one message; return how much of it was, and why not."""
    news = take_news(database, lease=TELLING_LEASE)
    if not news:
        return 0, None
    if settings.alert_webhook is None:
        # The log is all that there is to tell; a webhook that is set later does not get what is old.
        note_told(database, news)
        return 0, None
    why_not = webhook.post(settings.alert_webhook, payload_of(news, made_up=settings.uses_sandbox))
    if why_not is None:
        note_told(database, news)
        return len(news), None
    give_back(database, news)
    logger.warning(
        "The webhook did not take %s, which the next look posts again: %s", counted(len(news), "message"), why_not
    )
    return 0, why_not
