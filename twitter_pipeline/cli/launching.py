"""Run a request through Dagster in this process, with its progress on stderr."""

from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass

from twitter_pipeline.cli.places import Workplace
from twitter_pipeline.cli.progress import Progress
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store.runs import RunReport, load_run


@dataclass(frozen=True, slots=True)
class Ending:
    """What a run came to. `report` is None when it broke before it was recorded; `error` says why it broke."""

    dagster_run_id: str | None
    report: RunReport | None
    error: str | None = None
    interrupted: bool = False


def run_request(
    terminal: Terminal, work: Workplace, requests: Sequence[FetchRequest], *, show_progress: bool
) -> Ending:
    """Run the job on a request, blocking; Ctrl-C ends it cleanly, and what was fetched is in the report."""
    started: list[str] = []
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(terminal.err, work.place.database_url)) if show_progress else None
        # Whatever a library prints, stdout is for the result.
        stack.enter_context(redirect_stdout(terminal.err.file))

        def note_start(dagster_run_id: str) -> None:
            started.append(dagster_run_id)
            if progress is not None:
                progress.follow(dagster_run_id)

        try:
            # Dagster takes a second to import, which only a run has to spend.
            from twitter_pipeline.orchestration.launch import run_fetch_job

            result = run_fetch_job(requests, work.place, on_start=note_start)
        except KeyboardInterrupt:
            report = load_run(work.database, dagster_run_id=started[0]) if started else None
            return Ending(started[0] if started else None, report, interrupted=True)
    return Ending(result.dagster_run_id, result.report, result.error)
