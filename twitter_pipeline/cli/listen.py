"""`listen`: tweets of the watch list as they are written."""

import threading
from contextlib import closing
from datetime import UTC, datetime

import click

from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.places import workplace
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.listen import Listener
from twitter_pipeline.store.database import Database


@click.command(cls=Command, short_help="Store tweets of the watch list as they are written, until Ctrl-C.")
@json_option
@click.pass_obj
def listen(terminal: Terminal, *, as_json: bool) -> None:
    """Hold one connection to X's filtered stream until Ctrl-C, beside the polls of `twitter-pipeline up`.

    What tracked accounts write is stored within seconds, and the account is polled at once. X bills each post that it
    brings as one that was read. The rules of the stream follow the watch list; rules of other programs are left alone.
    With --json each thing that happens is one line.

    \b
    Examples:
      twitter-pipeline listen
      twitter-pipeline listen --json
    """

    def say(line: str) -> None:
        now = datetime.now(UTC)
        if as_json:
            terminal.write_json_line({"at": now, "what": line})
        else:
            terminal.write(f"{now:%H:%M:%S}  {line}")

    with workplace(environment_settings(), terminal) as work, closing(Database(work.place.database_url)) as database:
        settings = work.applied_to(environment_settings())
        try:
            Listener(settings, database, say=say, stop=threading.Event()).run()
        except KeyboardInterrupt:
            say("stopped")
