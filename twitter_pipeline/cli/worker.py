"""`worker`: a process that works on the steps of runs, beside others on this machine or on more."""

import os
from dataclasses import replace

import click

from twitter_pipeline.broker import broker_of, require_broker, shown
from twitter_pipeline.cli.commands import Command, environment_settings
from twitter_pipeline.cli.places import workplace
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.texts import counted


@click.command(cls=Command, short_help="Work on the steps of requests and backfills, until Ctrl-C.")
@click.option(
    "--concurrency",
    "-c",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="How many steps at once, each a process.",
)
@click.pass_obj
def worker(terminal: Terminal, *, concurrency: int) -> int:
    """Take steps of requests and backfills from the broker (TWITTER_BROKER_URL) and work on them, until Ctrl-C.

    Runs that are started with TWITTER_EXECUTOR=celery hand their steps to all workers there are, on any number of
    machines. A worker uses the tokens of its own environment. Asked to end, by SIGTERM or Ctrl-C, it stores what is
    under way and leaves the rest to the others; if it is killed, they take up its steps by themselves.

    \b
    Examples:
      twitter-pipeline worker
      twitter-pipeline worker --concurrency 4
    """
    settings = environment_settings()
    storage = {name: url for name, url in os.environ.items() if name == "DAGSTER_POSTGRES_URL"}
    with workplace(settings, terminal) as work:
        broker = broker_of(settings)
        require_broker(settings)
        # The storage that a deployment has given Dagster stays.
        os.environ.update({**work.place.environment(), **storage})
        # The children are forks, which must not share a connection.
        work.database.close()
        settings = replace(settings, bearer_tokens=work.place.bearer_tokens)
        from twitter_pipeline.orchestration.worker import work as work_on_steps

        def tell_ready() -> None:
            tokens = ", ".join(sorted(settings.bearer_tokens))
            terminal.say(f"Taking {counted(concurrency, 'step')} at once from {shown(broker)}, with {tokens}.")

        code = work_on_steps(settings, concurrency=concurrency, ready=tell_ready)
    terminal.say("Stopped.")
    return code
