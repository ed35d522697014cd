"""`health`: whether the parts of an installation are there and at work, for people and for what restarts programs."""

import os
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.text import Text

from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.local.addresses import addresses_of
from twitter_pipeline.probes import NEEDED, Finding, Part, probe


@click.command(cls=Command, short_help="Tell whether all parts are there and at work.")
@click.option("--live", is_flag=True, help="Look at the database only.")
@click.option(
    "--part",
    "named",
    type=click.Choice([part.value for part in Part]),
    multiple=True,
    help="Look at this part only; may be given several times.",
)
@click.option("--webserver", metavar="URL", help="Look also at Dagster's webserver, such as http://127.0.0.1:3000")
@json_option
@click.pass_obj
def health(terminal: Terminal, *, live: bool, named: Sequence[str], webserver: str | None, as_json: bool) -> int:
    """Tell whether all parts are there and at work: exit code 0 if so, 1 if not. Nothing is started for it.

    Without options these are the database, its schema, Dagster's storage and daemon, and the tokens: one that is fit
    for use is enough, of this environment or, where it has none, of all that are known. The listener is looked at when
    it is named. The daemon is well while its signs of life are younger than three minutes.

    \b
    Examples:
      twitter-pipeline health
      twitter-pipeline health --webserver http://127.0.0.1:3000
      twitter-pipeline health --live
      twitter-pipeline health --part database --part listener --json
    """
    settings = environment_settings()
    parts = {*map(Part, named), *([Part.DATABASE] if live else [])} or set(NEEDED)
    if webserver is not None:
        parts.add(Part.WEBSERVER)
    addresses = addresses_of(settings, os.environ, webserver=webserver)
    findings = probe(parts, addresses, env_keys=settings.bearer_tokens)
    is_well = all(each.is_well for each in findings)
    if as_json:
        terminal.write_json({"is_well": is_well, "parts": [asdict(each) for each in findings]})
    else:
        _show(terminal, findings)
    return 0 if is_well else 1


def _show(terminal: Terminal, findings: Sequence[Finding]) -> None:
    lines = table("part", "", "what", prose=["what"])
    for each in findings:
        lines.add_row(each.part, _word(each), cell(each.said))
    terminal.show(lines)


def _word(finding: Finding) -> Text:
    return Text("well") if finding.is_well else Text("not well", style="red")
