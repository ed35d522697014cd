"""`metrics`: figures for Prometheus."""

import os
import threading

import click
from prometheus_client import generate_latest

from twitter_pipeline.cli.commands import Command, environment_settings
from twitter_pipeline.cli.places import tables
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.local.addresses import addresses_of
from twitter_pipeline.metrics import Metrics
from twitter_pipeline.metrics_server import serving


@click.command(cls=Command, short_help="Serve figures for Prometheus until Ctrl-C.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 serves other machines too.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=9464, show_default=True, help="0 takes any that is free."
)
@click.option("--once", is_flag=True, help="Print the figures and end, as for node_exporter's textfile collector.")
@click.pass_obj
def metrics(terminal: Terminal, *, host: str, port: int, once: bool) -> None:
    """Serve /metrics, and /healthz and /readyz, which answer 200 or 503 as `health --live` and `health` would end.

    All is read from the database when it is asked for. Nobody is asked for a password: the figures name tokens by their
    variables and hold no secret, but serve them to your own machines only.

    \b
    Examples:
      twitter-pipeline metrics
      twitter-pipeline metrics --host 0.0.0.0 --port 9464
      twitter-pipeline metrics --once
    """
    settings = environment_settings()
    with tables(settings, terminal, current=False) as opened:
        figures = Metrics(opened.database, addresses_of(settings, os.environ), settings)
        if once:
            terminal.out.file.write(generate_latest(figures).decode())
            return
        with serving(figures, host=host, port=port, names=settings.allowed_hosts) as served:
            terminal.say(f"http://{host}:{served}/metrics, until Ctrl-C")
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                terminal.say("stopped")
