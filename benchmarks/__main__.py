"""`python -m benchmarks [NAME]`: measure, print, and end with 1 when a wanted figure was missed."""

import argparse
import sys
import time
from collections.abc import Callable

from benchmarks import (
    backfills,
    calls,
    days,
    delays,
    exchange,
    growth,
    limits,
    load,
    overhead,
    polls,
    share,
    watching,
    workers,
)
from benchmarks.place import Place, Unusable, benchmark_place
from benchmarks.printing import machine


def main() -> int:
    """Run all benchmarks, or the one that is named."""
    options = _parser().parse_args()
    all_of_them: dict[str, Callable[[Place], list[str]]] = {
        "calls": calls.run,
        "load": lambda place: load.run(place, accounts=options.accounts),
        "overhead": overhead.run,
        "limits": limits.run,
        "growth": lambda place: growth.run(place, millions=options.millions),
        "watching": watching.run,
        "polls": polls.run,
        "delays": delays.run,
        "days": days.run,
        "backfills": backfills.run,
        "exchange": exchange.run,
        "share": share.run,
        "workers": workers.run,
    }
    chosen = [options.name] if options.name else list(all_of_them)
    print(machine(), flush=True)
    began = time.monotonic()
    misses: list[str] = []
    try:
        with benchmark_place() as place:
            for name in chosen:
                misses += all_of_them[name](place)
    except Unusable as error:
        print(f"\nThe benchmark could not be run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    print(f"\n{machine()}\n{time.monotonic() - began:.0f} s in all; {_summary(misses)}")
    return 1 if misses else 0


def _summary(misses: list[str]) -> str:
    return "every wanted figure was reached" if not misses else "missed:\n" + "\n".join(f"  {each}" for each in misses)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure what the project promises; see each module."
    )
    parser.add_argument(
        "name",
        nargs="?",
        choices=(
            "calls",
            "load",
            "overhead",
            "limits",
            "growth",
            "watching",
            "polls",
            "delays",
            "days",
            "backfills",
            "exchange",
            "share",
            "workers",
        ),
        help="default: all of them",
    )
    parser.add_argument("--accounts", type=int, default=100, metavar="N", help="load: accounts of 3,200 tweets")
    parser.add_argument(
        "--millions", type=int, default=5, metavar="N", help="growth: million tweets in the large table"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
