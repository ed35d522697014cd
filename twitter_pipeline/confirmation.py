"""Whether a request costs so much that somebody must say that it may."""

from twitter_pipeline.budgets import dollars
from twitter_pipeline.errors import NotConfirmed
from twitter_pipeline.estimate import Estimate
from twitter_pipeline.request import FULL
from twitter_pipeline.settings import Settings
from twitter_pipeline.texts import counted


def wants_confirmation(estimate: Estimate, settings: Settings) -> bool:
    """Whether an estimate is above the threshold, and nothing else bounds what is spent.

    `limit:N` bounds itself, budgets bound everything, and of the sandbox nothing is charged.
    """
    if settings.budgets or settings.uses_sandbox or estimate.cost_usd <= settings.confirm_usd:
        return False
    modes = [each.request.fetch_mode for each in estimate.accounts]
    return any(mode == FULL or mode.months is not None for mode in modes)


def what_it_costs(estimate: Estimate) -> str:
    """Say in a sentence what a request would cost."""
    accounts = counted(len(estimate.accounts), "account")
    return (
        f"Fetching {accounts} would cost about {dollars(estimate.cost_usd)}, at most {dollars(estimate.most_usd)}, "
        f"for {counted(estimate.likely.posts, 'post')}."
    )


LOOK_UPS = "Looking up "


def require_confirmed_look_ups(profiles: int, settings: Settings) -> None:
    """Raise NotConfirmed when looking up so many profiles costs more than may be spent unasked."""
    cost = profiles * settings.prices.user_usd
    if settings.budgets or settings.uses_sandbox or cost <= settings.confirm_usd:
        return
    raise NotConfirmed(
        f"{LOOK_UPS}{counted(profiles, 'account')} would cost up to {dollars(cost)}. That is more than "
        f"{dollars(settings.confirm_usd)} (TWITTER_CONFIRM_USD), so nothing was requested from X. What their tweets "
        "cost is known once they are looked up. To go on with both, put `confirm: true` into the run's config, or "
        "--yes on the command line; or set a budget, such as TWITTER_BUDGET_RUN_USD."
    )


def require_confirmation(estimate: Estimate, settings: Settings) -> None:
    """Raise NotConfirmed when a request wants confirmation."""
    if wants_confirmation(estimate, settings):
        raise NotConfirmed(
            f"{what_it_costs(estimate)} That is more than {dollars(settings.confirm_usd)} (TWITTER_CONFIRM_USD), so no "
            "tweet was fetched. To go on, put `confirm: true` into the run's config, or --yes on the command line; or "
            "set a budget, such as TWITTER_BUDGET_RUN_USD."
        )
