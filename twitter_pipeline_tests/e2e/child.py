"""`python -m twitter_pipeline_tests.e2e.child REQUEST [OPTIONS]`: run the job where it can be killed.

The working place is the environment's. Exit codes are those of the command line.
"""

import argparse
import logging
import os
import signal
import sys
from itertools import count

from twitter_pipeline.local.places import WorkingPlace
from twitter_pipeline.local.processes import ending_signals_interrupt
from twitter_pipeline.orchestration.launch import run_fetch_job
from twitter_pipeline.request import parse_request
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store.timelines import PageToSave, SavedPage, TimelineStore


def die_before_page(number: int) -> None:
    """Be killed where a page has been answered, and not yet stored."""
    pages, save_page = count(), TimelineStore.save_page

    def save_or_die(store: TimelineStore, page: PageToSave) -> SavedPage:
        if next(pages) >= number:
            os.kill(os.getpid(), signal.SIGKILL)
        return save_page(store, page)

    TimelineStore.save_page = save_or_die


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("request")
    parser.add_argument("--die-before-page", type=int)
    parser.add_argument("--debug", action="store_true")
    options = parser.parse_args()
    if options.debug:
        logging.basicConfig(level=logging.DEBUG)
    if options.die_before_page is not None:
        die_before_page(options.die_before_page)
    settings = load_settings(os.environ)
    place = WorkingPlace(
        database_url=settings.database_url or "",
        dagster_url=os.environ["DAGSTER_POSTGRES_URL"],
        dagster_home=settings.dagster_home,
        api_url=settings.api_url,
        bearer_tokens=settings.bearer_tokens,
        sandbox=None,
        server=None,
    )
    try:
        with ending_signals_interrupt():
            result = run_fetch_job(parse_request(options.request), place)
    except KeyboardInterrupt:
        return 130
    print(result.error or "done")
    return 1 if result.error else 0


if __name__ == "__main__":
    sys.exit(main())
