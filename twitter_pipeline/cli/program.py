"""The program `twitter-pipeline`: its commands by name, and how an error becomes a message and an exit code."""

import errno
import importlib
import logging
import sys
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from keyword import iskeyword

import click
from click.shell_completion import CompletionItem

from twitter_pipeline import __version__
from twitter_pipeline.cli import INTERRUPTED
from twitter_pipeline.cli.commands import HELP_NAMES, Failure, debug_option
from twitter_pipeline.cli.safe_text import printable
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.errors import ConfigurationError, PipelineError
from twitter_pipeline.local.processes import ending_signals_interrupt, let_go_of_stdout
from twitter_pipeline.texts import first_line

DONE, INCOMPLETE, WRONG = 0, 1, 2

COMMANDS = {
    "fetch": ("fetch", "Download the tweets of accounts."),
    "backfill": ("backfill", "Fill months of accounts, from X's archive where a token may use it."),
    "status": ("status", "Show what is stored of each account, and what is missing."),
    "runs": ("runs", "Show the latest runs and what they achieved."),
    "costs": ("costs", "Show what was spent, and what is left of the budgets."),
    "tracked": ("watchlist", "Show the accounts that are watched."),
    "track": ("watchlist", "Put accounts on the watch list."),
    "untrack": ("watchlist", "Take accounts off the watch list."),
    "import": ("importing", "Bring in tweets from files that you have."),
    "export": ("exporting", "Write stored tweets to a file: Parquet, CSV or JSON lines."),
    "listen": ("listen", "Store tweets of the watch list as they are written, until Ctrl-C."),
    "worker": ("worker", "Work on the steps of requests and backfills, until Ctrl-C."),
    "tokens": ("tokens", "Show every token and what is left of its limits."),
    "alerts": ("alerts", "Show what somebody should know of."),
    "health": ("health", "Tell whether all parts are there and at work."),
    "metrics": ("metrics", "Serve figures for Prometheus until Ctrl-C."),
    "db": ("db", "Look after the database and ask it questions."),
    "demo": ("local", "Fetch a sample request from the sandbox and show what was stored."),
    "up": ("local", "Run the Dagster UI and its daemon until Ctrl-C."),
    "sandbox": ("local", "Serve the sandbox API alone."),
    "completion": ("completion", "Print a script that completes words when Tab is pressed."),
}
"""Each command with its module and its short help, so that the list is shown without loading the database's drivers."""

_HELP = """Download and watch X (Twitter) accounts into PostgreSQL.

\b
Examples:
  twitter-pipeline fetch @nasa @esa --mode limit:200
  twitter-pipeline fetch request.json
  twitter-pipeline status nasa
  twitter-pipeline COMMAND --help

Without a token in the environment or in .env the sandbox API is used, whose accounts and tweets are made up.

\b
Exit codes: 0 everything asked for is there, 1 something could not be had,
2 the request or the configuration is wrong, 130 interrupted."""


class Program(click.Group):
    """The group of all commands; a command's module is imported when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"twitter_pipeline.cli.{COMMANDS[cmd_name][0]}")
        # Python's own words cannot be names.
        command: click.Command = getattr(module, f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Suggest commands without importing any, and options of the program itself."""
        options = super(click.Group, self).shell_complete(ctx, incomplete)
        commands = [(name, said) for name, (_, said) in COMMANDS.items() if name.startswith(incomplete)]
        return [*(CompletionItem(name, help=said) for name, said in commands), *options]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from their short helps, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in COMMANDS.items()])


program = Program(
    "twitter-pipeline",
    help=_HELP,
    params=[debug_option()],
    no_args_is_help=True,
    context_settings={"help_option_names": HELP_NAMES, "max_content_width": 110},
)
click.version_option(__version__, prog_name="twitter-pipeline")(program)


def run(arguments: Sequence[str] | None) -> int:
    """Run one command and return its exit code; what goes wrong is one readable message on stderr."""
    terminal = Terminal.open()
    try:
        with _warnings_shown_on(terminal), ending_signals_interrupt():
            code: object = program.main(arguments, "twitter-pipeline", standalone_mode=False, obj=terminal)
            sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        terminal.say("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        let_go_of_stdout()  # whoever read our output has seen enough
        return INCOMPLETE
    except Exception as error:  # noqa: BLE001 a person gets a message, whatever it is
        code = _report(terminal, error)
        try:
            sys.stdout.flush()
        except OSError:
            let_go_of_stdout()  # it was the output itself that failed
        return code
    return code if isinstance(code, int) else DONE


def _report(terminal: Terminal, error: Exception) -> int:
    """Say what went wrong and return the exit code."""
    if terminal.debug:
        terminal.say(traceback.format_exc())
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        if context is not None:
            terminal.say(context.get_usage())
            terminal.say(f"Try: {context.command_path} --help\n")
        terminal.say(f"Error: {error.format_message()}")
        return WRONG
    if isinstance(error, PipelineError):
        terminal.say(f"Error: {error}")
        if isinstance(error, Failure):
            return error.exit_code
        return WRONG if isinstance(error, ConfigurationError) else INCOMPLETE
    terminal.say(f"Error: {_describe(error)}")
    return INCOMPLETE


_ADVICE = {
    errno.ENOSPC: "Make room, or send the output elsewhere, and run the command again; what was stored stays.",
    errno.EDQUOT: "Make room, or send the output elsewhere, and run the command again; what was stored stays.",
    errno.EFBIG: "Send the output elsewhere, or raise the limit (ulimit -f), and run the command again.",
    errno.EACCES: "Run the command as the user to whom it belongs, or let this one use it.",
    errno.EPERM: "Run the command as the user to whom it belongs, or let this one use it.",
    errno.EROFS: "Let the program write there, or give it another place.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n) and run the command again.",
    errno.EIO: "Look at the disk or the terminal behind it.",
}
"""What to do about errors of the machine, which are no fault of the program."""


def _describe(error: Exception) -> str:
    """Describe an exception that nobody expected in one line."""
    import psycopg
    from sqlalchemy.exc import DBAPIError

    cause = (isinstance(error, DBAPIError) and error.orig) or error
    said = first_line(cause)
    if isinstance(cause, OSError) and cause.errno in _ADVICE:
        where = f"{printable(str(cause.filename))}: " if cause.filename is not None else ""
        return f"{where}{cause.strerror}. {_ADVICE[cause.errno]}"
    if isinstance(cause, psycopg.OperationalError):
        return f"the database stopped answering: {said}. Run the command again."
    return f"{type(cause).__name__}: {said}\nThis is a fault of the program. Run again with --debug for details."


class _TerminalHandler(logging.Handler):
    """Shows warnings of the core on stderr, above a progress display if there is one."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.log(record)


@contextmanager
def _warnings_shown_on(terminal: Terminal) -> Generator[None]:
    """Show the warnings of the core as a person reads them, and nowhere else, while a command runs."""
    core = logging.getLogger("twitter_pipeline")
    handler, propagated = _TerminalHandler(terminal), core.propagate
    core.addHandler(handler)
    core.propagate = False
    try:
        yield
    finally:
        core.removeHandler(handler)
        core.propagate = propagated
