"""Use case: write what files hold as one run, some thousand tweets at a time, and tell what became of it.

The run claims nothing: no range of ids is covered by it, for a file cannot tell what it leaves out. Importing the same
file again changes nothing, so an import that was killed is completed by running it again.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.importing.files import STDIN, ImportFile
from twitter_pipeline.importing.found import Author, Finding, Found, Gauge, Unreadable
from twitter_pipeline.prices import Prices
from twitter_pipeline.runs import OpenRun
from twitter_pipeline.settings import is_of_sandbox
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.imports import Saved, Sighting, save_authors, save_found, save_request
from twitter_pipeline.store.tokens import load_tokens
from twitter_pipeline.words import FetchKind, RunStatus

BATCH_TWEETS = 2000
BATCH_CHARACTERS = 16 * 2**20
"""A batch is written with the first of both; characters are those of the tweets' JSON."""

SHOWN = 5
"""How many of the unreadable places of a file are remembered."""


@dataclass(slots=True)
class FileReport:
    """What became of one file."""

    file: ImportFile
    sha256: str | None
    tweets: int = 0
    new: int = 0
    updated: int = 0
    unreadable: int = 0
    unreadable_places: list[Unreadable] = field(default_factory=list[Unreadable])
    gauge: Gauge = field(default_factory=Gauge)

    @property
    def kept(self) -> int:
        """How many tweets were stored already: as they are, later, or more of them."""
        return self.tweets - self.new - self.updated

    def note(self, place: Unreadable) -> None:
        """Count a place that could not be read."""
        self.unreadable += 1
        if len(self.unreadable_places) < SHOWN:
            self.unreadable_places.append(place)

    def add(self, saved: Saved, *, tweets: int) -> None:
        """Count what was written."""
        self.tweets += tweets
        self.new += saved.new
        self.updated += saved.updated

    def as_request(self) -> dict[str, object]:
        """Return what `fetch_runs.request` tells of the file."""
        return {
            "file": Path(self.file.name).name,
            "format": self.file.format.value,
            "bytes": self.file.size,
            "sha256": self.sha256,
        }


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of an import."""

    fetch_run_id: int
    files: Sequence[FileReport]

    @property
    def is_complete(self) -> bool:
        """Whether everything in the files could be read."""
        return not any(file.unreadable for file in self.files)


Progress = Callable[[FileReport], None]


class Importer:
    """Imports files into a database. `progress` is called after each batch, with the file as it stands."""

    def __init__(
        self,
        database: Database,
        *,
        owner: Author | None,
        prices: Prices,
        now: datetime,
        progress: Progress = lambda _: None,
    ) -> None:
        self._database = database
        self._owner = owner
        self._prices = prices
        self._now = now
        self._progress = progress

    def check(self, files: Sequence[ImportFile]) -> None:
        """Read all files and write nothing; raise ConfigurationError when a place in them cannot be read."""
        if any(file.name == STDIN for file in files):
            raise ConfigurationError("Standard input can be read only once, so --strict needs files.")
        reports = [FileReport(file, None) for file in files]
        for report in reports:
            for finding in self._read(report):
                if isinstance(finding, Unreadable):
                    report.note(finding)
        if any(report.unreadable for report in reports):
            raise ConfigurationError("Nothing was imported.\n" + "\n".join(describe_unreadable(reports)))

    def run(self, files: Sequence[ImportFile]) -> ImportReport:
        """Import the files in one run; what cannot be read is counted and passed over."""
        reports = [FileReport(file, file.sha256()) for file in files]
        with OpenRun(self._database, dagster_run_id=None, kind=FetchKind.IMPORT, requests=[]) as run:
            save_request(self._database, run.id, [report.as_request() for report in reports])
            with self._closing(run):
                for report in reports:
                    self._import(report, run.id)
            said = describe_unreadable(reports)
            status = RunStatus.PARTIAL if said else RunStatus.DONE
            run.close(status=status, error="\n".join(said) or None, prices=self._prices)
        return ImportReport(run.id, reports)

    @contextmanager
    def _closing(self, run: OpenRun) -> Generator[None]:
        """Close the run when it breaks off; what was written by then stays."""
        try:
            yield
        except Exception as error:
            run.close(status=RunStatus.FAILED, error=f"{type(error).__name__}: {error}", prices=self._prices)
            raise
        except BaseException:
            run.close(status=RunStatus.CANCELLED, error="stopped on request", prices=self._prices)
            raise

    def _import(self, report: FileReport, fetch_run_id: int) -> None:
        for batch in batches(self._readable(report)):
            save_authors(self._database, newest_sightings(batch))
            for tweets in (newest(batch, is_dated=False), newest(batch, is_dated=True)):
                if tweets:
                    report.add(save_found(self._database, tweets, fetch_run_id=fetch_run_id), tweets=len(tweets))
            self._progress(report)

    def _readable(self, report: FileReport) -> Iterator[Found]:
        for finding in self._read(report):
            if isinstance(finding, Unreadable):
                report.note(finding)
            else:
                yield finding

    def _read(self, report: FileReport) -> Iterator[Finding]:
        return report.file.read(owner=self._owner, now=self._now, gauge=report.gauge)


def batches(found: Iterator[Found]) -> Iterator[list[Found]]:
    """Give tweets in lists of bounded size, in their order."""
    batch: list[Found] = []
    characters = 0
    for each in found:
        batch.append(each)
        characters += len(each.tweet.raw)
        if len(batch) >= BATCH_TWEETS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def newest(batch: Iterable[Found], *, is_dated: bool) -> list[Found]:
    """Return the tweets that have a date, or those that have none, each id once: as it was read last, else first."""
    kept: dict[int, Found] = {}
    for each in batch:
        other = kept.get(each.tweet.id)
        if each.is_dated is is_dated and (other is None or each.last_read_at > other.last_read_at):
            kept[each.tweet.id] = each
    return list(kept.values())


def newest_sightings(batch: Iterable[Found]) -> list[Sighting]:
    """Return the authors of tweets, each as often as the file shows another name, and as it was seen last under it."""
    kept: dict[tuple[int, str | None, bool, bool], Sighting] = {}
    for each in batch:
        author = each.author
        key = (author.id, author.username, author.profile is not None, each.is_dated)
        other = kept.get(key)
        if other is None or each.last_read_at > other.read_at:
            kept[key] = Sighting(author, each.last_read_at, each.is_dated)
    return list(kept.values())


def describe_unreadable(reports: Iterable[FileReport]) -> list[str]:
    """Say what could not be read, a line for each file that has such places."""
    said: list[str] = []
    for report in reports:
        if report.unreadable:
            more = report.unreadable - len(report.unreadable_places)
            places = "; ".join(map(str, report.unreadable_places)) + (f"; and {more:,} more" if more else "")
            count = "one place" if report.unreadable == 1 else f"{report.unreadable:,} places"
            said.append(f"{report.file.name}: {count} could not be read: {places}")
    return said


def refuse_to_mix(database: Database, files: Iterable[ImportFile]) -> None:
    """Raise ConfigurationError when tweets that the sandbox made up would come to lie among real ones.

    The tokens that a database has seen tell where its tweets are from.
    """
    holds_real_ones = any(not is_of_sandbox(token.env_key) for token in load_tokens(database))
    made_up = [file.name for file in files if file.made_up]
    if holds_real_ones and made_up:
        raise ConfigurationError(
            f"{made_up[0]} is an export of the sandbox: its tweets are made up and must not mix with the real ones of "
            "this database. Name another database in DATABASE_URL."
        )
