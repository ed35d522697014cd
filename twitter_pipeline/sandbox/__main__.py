"""`python -m twitter_pipeline.sandbox`: serve the sandbox API until told to stop."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.api import SandboxApi
from twitter_pipeline.sandbox.faults import Faults
from twitter_pipeline.sandbox.rendering import KEPT_PAGE_BYTES
from twitter_pipeline.sandbox.server import serve
from twitter_pipeline.sandbox.streaming import HEARTBEAT_S
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.sandbox.world import World


def main(arguments: list[str] | None = None) -> int:
    """Serve, and print one line of JSON with the address and the tokens when ready."""
    options = _parser().parse_args(arguments)
    try:
        api = api_of(options)
    except (OSError, ValueError, TypeError) as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 2

    def announce(url: str) -> None:
        print(json.dumps({"url": url, "bearer_tokens": api.bearers}), flush=True)

    try:
        serve(api, host=options.host, port=options.port, on_ready=announce, until=_end(options))
    except OSError as error:
        print(f"sandbox: cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 2
    return 0


def api_of(options: argparse.Namespace) -> SandboxApi:
    """Make the API that the options describe."""
    started_at = _instant(options.started_at) if options.started_at else None
    world = World(
        options.seed,
        accounts=read_accounts(options.accounts),
        started_at=started_at,
        page_cache_bytes=options.page_cache_mb * 1_000_000,
    )
    tokens = [TokenSpec(f"sandbox-token-{number + 1}") for number in range(options.tokens)]
    faults = Faults(seed=options.seed, latency_s=options.latency_ms / 1000)
    limits = {endpoint: int(limit) for endpoint, _, limit in (text.rpartition("=") for text in options.limit)}
    return SandboxApi(
        world,
        tokens=tokens,
        window_seconds=options.window_seconds,
        faults=faults,
        limits=limits,
        heartbeat_s=options.heartbeat_seconds,
        posts_only=options.posts_only,
        unknown_names=options.unknown,
    )


def read_accounts(path: Path | None) -> list[AccountSpec]:
    """Read account specifications from a JSON list of objects; instants are ISO 8601 texts or seconds since 1970."""
    if path is None:
        return []
    return [AccountSpec(**{name: _value(name, value) for name, value in entry.items()}) for entry in _entries(path)]


def _entries(path: Path) -> list[dict[str, Any]]:
    entries = json.loads(path.read_text())
    known = {field.name for field in fields(AccountSpec)}
    for entry in entries:
        if unknown := entry.keys() - known:
            raise ValueError(f"{path}: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    return entries


def _value(name: str, value: Any) -> Any:
    return _instant(value) if name.endswith("_at") and isinstance(value, str) else value


def _instant(text: str) -> float:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return instant.timestamp()


def _end(options: argparse.Namespace) -> Callable[[], bool]:
    """Decide when to stop by oneself: when the parent is gone, if that was asked for."""
    parent = os.getppid()
    return lambda: options.exit_with_parent and os.getppid() != parent


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m twitter_pipeline.sandbox",
        description="Serve a local API that behaves like the X API v2, on made-up data.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same world")
    parser.add_argument("--tokens", type=int, default=3, help="how many bearer tokens there are")
    parser.add_argument("--window-seconds", type=float, default=900.0, help="length of the rate-limit windows")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="ENDPOINT=N", help="calls a window, as /2/users/:id/tweets=50"
    )
    parser.add_argument("--latency-ms", type=float, default=0.0, help="how long every answer takes")
    parser.add_argument("--accounts", type=Path, metavar="FILE.json", help="a list of accounts as you want them")
    parser.add_argument("--started-at", metavar="INSTANT", help="when they have exactly their `tweets`; default: now")
    parser.add_argument(
        "--page-cache-mb", type=int, default=KEPT_PAGE_BYTES // 1_000_000, help="memory for pages that do not change"
    )
    parser.add_argument("--heartbeat-seconds", type=float, default=HEARTBEAT_S, help="between blank lines of a stream")
    parser.add_argument("--posts-only", action="store_true", help="take and give the names of OpenAPI 2.167 alone")
    parser.add_argument(
        "--unknown", action="append", default=[], metavar="NAME", help="refuse a field, an expansion or a parameter"
    )
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when the process that started it is gone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
