"""Run a request or a backfill through Dagster in this process, with its progress on stderr."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import click

from twitter_pipeline.cli.commands import environment_settings
from twitter_pipeline.cli.looking_up import is_somebody_there, look_up
from twitter_pipeline.cli.places import Workplace
from twitter_pipeline.cli.progress import Progress
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.confirmation import LOOK_UPS
from twitter_pipeline.months import Months
from twitter_pipeline.request import FetchMode, FetchRequest
from twitter_pipeline.store.months import load_tracked_names
from twitter_pipeline.store.runs import RunReport, load_run
from twitter_pipeline.words import Source

if TYPE_CHECKING:
    from twitter_pipeline.orchestration.launch import FetchResult


class _RunConfirmed(Protocol):
    def __call__(self, on_start: Callable[[str], None], *, confirm: bool) -> "FetchResult": ...


YES_HELP = "Fetch it though it may cost much (see TWITTER_CONFIRM_USD), without being asked."


@dataclass(frozen=True, slots=True)
class Ending:
    """What a run came to. `report` is None when it broke before it was recorded; `error` says why it broke.

    `wants_confirmation` tells that it fetched nothing because it would cost much.
    """

    dagster_run_id: str | None
    report: RunReport | None
    error: str | None = None
    interrupted: bool = False
    wants_confirmation: bool = False


def run_request(
    terminal: Terminal, work: Workplace, requests: Sequence[FetchRequest], *, show_progress: bool, confirm: bool
) -> Ending:
    """Run the job on a request, blocking; Ctrl-C ends it cleanly, and what was fetched is in the report.

    Without `confirm` a person at the terminal is asked when it would cost much.
    """

    def run(on_start: Callable[[str], None], *, confirm: bool) -> "FetchResult":
        # Dagster takes a second to import, which only a run has to spend.
        from twitter_pipeline.orchestration.launch import run_fetch_job

        return run_fetch_job(requests, work.place, on_start=on_start, confirm=confirm)

    return _run_confirmed(terminal, work, requests, run, show_progress=show_progress, confirm=confirm)


def run_months(
    terminal: Terminal,
    work: Workplace,
    names: Sequence[str],
    months: Months,
    source: Source,
    *,
    show_progress: bool,
    confirm: bool,
) -> Ending:
    """Run a backfill of months, of all tracked accounts without a name, in the same way."""

    def run(on_start: Callable[[str], None], *, confirm: bool) -> "FetchResult":
        from twitter_pipeline.orchestration.launch import run_backfill

        return run_backfill(names, months, source, work.place, on_start=on_start, confirm=confirm)

    mode = FetchMode(months=months, source=source)
    asked = names or [name.lower() for name in load_tracked_names(work.database)]
    requests = [FetchRequest(name, fetch_mode=mode) for name in asked]
    return _run_confirmed(terminal, work, requests, run, show_progress=show_progress, confirm=confirm)


def _run_confirmed(
    terminal: Terminal,
    work: Workplace,
    requests: Sequence[FetchRequest],
    run: "_RunConfirmed",
    *,
    show_progress: bool,
    confirm: bool,
) -> Ending:
    """Run, and run again when it would cost much and the person at the terminal says yes.

    Who says yes to the look-ups alone is asked again when it is known what the tweets cost.
    """
    while True:
        ending = _run(terminal, work, requests, partial(run, confirm=confirm), show_progress=show_progress)
        if not ending.wants_confirmation or not is_somebody_there():
            return ending
        terminal.say(ending.error or "")
        is_of_look_ups = (ending.error or "").startswith(LOOK_UPS)
        if not click.confirm("Look them up?" if is_of_look_ups else "Fetch it?", default=False, err=True):
            return ending
        if is_of_look_ups:
            look_up(terminal, environment_settings(), work, requests, yes=True)
        else:
            confirm = True


def _run(
    terminal: Terminal,
    work: Workplace,
    requests: Sequence[FetchRequest],
    run: Callable[[Callable[[str], None]], "FetchResult"],
    *,
    show_progress: bool,
) -> Ending:
    started: list[str] = []
    settings = work.applied_to(environment_settings())
    with ExitStack() as stack:
        progress = (
            stack.enter_context(Progress(terminal.err, work.database, requests, settings=settings))
            if show_progress
            else None
        )
        # Whatever a library prints, stdout is for the result. Not to the terminal's own stderr: Dagster turns the file
        # behind sys.stdout to its logs while a run works, and the progress with it.
        stack.enter_context(redirect_stdout(sys.stderr))

        def note_start(dagster_run_id: str) -> None:
            started.append(dagster_run_id)
            if progress is not None:
                progress.follow(dagster_run_id)

        try:
            result = run(note_start)
        except KeyboardInterrupt:
            work.database.hurry()
            report = load_run(work.database, dagster_run_id=started[0]) if started else None
            return Ending(started[0] if started else None, report, interrupted=True)
    return Ending(result.dagster_run_id, result.report, result.error, wants_confirmation=result.wants_confirmation)
