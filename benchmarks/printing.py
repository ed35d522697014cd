"""How figures are printed, and whether they are what was wanted."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path


class Sheet:
    """Prints one benchmark as it goes, and remembers whether every wanted figure was reached."""

    def __init__(self, title: str) -> None:
        self.misses: list[str] = []
        print(f"\n{title}\n{'=' * len(title)}", flush=True)

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print rows under their names, the first column to the left and the others to the right."""
        cells = [[*head], *([shown(value) for value in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(["  " + first.strip().ljust(widths[0]), *rest]).rstrip())
        print(flush=True)

    def judge(self, what: str, found: str, wanted: str, *, ok: bool) -> None:
        """Print a figure beside what was wanted of it."""
        print(f"  {'OK    ' if ok else 'MISSED'}  {what}: {found} (wanted: {wanted})", flush=True)
        if not ok:
            self.misses.append(f"{what}: {found}, wanted {wanted}")


def shown(value: object) -> str:
    """Return a number with its thousands apart, anything else as it is."""
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def machine() -> str:
    """Describe this machine and how busy it is: the figures are worth nothing without."""
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    python = platform.python_version()
    return f"{_processor()}, {os.cpu_count()} cores, {memory_gb:.0f} GB; Python {python}; load average {load}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
