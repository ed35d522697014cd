"""The end of a log file, for an error message."""

from pathlib import Path


def tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a text file, or a remark that there are none."""
    try:
        text = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return "(no such file)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"


def indented(text: str) -> str:
    """Return the text set off from the message around it."""
    return "\n".join(f"  {line}" for line in text.strip().splitlines())
