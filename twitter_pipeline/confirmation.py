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


def require_confirmation(estimate: Estimate, settings: Settings) -> None:
    """Raise NotConfirmed when a request wants confirmation."""
    if wants_confirmation(estimate, settings):
        raise NotConfirmed(
            f"{what_it_costs(estimate)} That is more than {dollars(settings.confirm_usd)} (TWITTER_CONFIRM_USD), so no "
            "tweet was fetched. To go on, put `confirm: true` into the run's config, or --yes on the command line; or "
            "set a budget, such as TWITTER_BUDGET_RUN_USD."
        )
