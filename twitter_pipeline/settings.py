"""The environment as values: `.env` of the project folder, and above it the variables that are set."""

import logging
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from dotenv.parser import parse_stream

from twitter_pipeline.budgets import Budgets, Limit
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.hosts import is_loopback
from twitter_pipeline.prices import Prices
from twitter_pipeline.secret import BearerToken, BrokerUrl, UiPassword, WebhookUrl
from twitter_pipeline.stream_rules import RuleLimits

logger = logging.getLogger(__name__)

PROJECT_DIR = Path(__file__).resolve().parent.parent
BEARER_PREFIX = "TWITTER_BEARER_"
LOG_FORMAT = "TWITTER_LOG_FORMAT"

SANDBOX_PREFIX = f"{BEARER_PREFIX}SANDBOX_"
"""How the tokens of the local sandbox API are named."""

_TOKEN = re.compile(r"[!#-&(-_a-~]+")
"""Whatever can be sent but quotes."""

_SENDABLE = re.compile(r"[!-~]+")

_HOST_NAME = re.compile(r"[a-z0-9._-]+")

_DECIMAL = re.compile(r"[0-9](\.[0-9]{1,17})?")

# Who can write it can have the tokens sent to an address of theirs.
_OPEN_TO_OTHERS = stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH

_BROKER_SCHEMES = ("redis", "rediss", "redis+socket")

T = TypeVar("T")
W = TypeVar("W", bound=StrEnum)


class LogFormat(StrEnum):
    """How a line of a log is written."""

    TEXT = "text"
    JSON = "json"


class Executor(StrEnum):
    """Where the steps of requests and backfills are worked on."""

    IN_PROCESS = "in_process"
    CELERY = "celery"


class Detection(StrEnum):
    """How the watch learns that an account has something new."""

    TIMELINE = "timeline"
    USERS = "users"
    SEARCH = "search"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the environment decides; see `.env.example` for each variable."""

    bearer_tokens: Mapping[str, BearerToken] = field(default_factory=dict[str, BearerToken])
    api_url: str = "https://api.x.com"
    database_url: str | None = field(default=None, repr=False)
    database_reader_url: str | None = field(default=None, repr=False)
    dagster_home: Path = PROJECT_DIR / ".local" / "dagster"
    dagster_port: int = 3000
    allowed_hosts: frozenset[str] = frozenset()
    ui_password: UiPassword | None = None
    page_size: int = 50
    settle: timedelta = timedelta(seconds=30)
    confirm_after: timedelta = timedelta(seconds=120)
    concurrency: int = 16
    batch_accounts: int = 25
    profile_max_age: timedelta = timedelta(days=7)
    backfill_share: float = 0.8
    archive_query_characters: int = 1024
    archive_page_size: int = 500
    watch_detection: Detection = Detection.TIMELINE
    search_query_characters: int = 512
    watch_polls_per_hour: int = 1000
    watch_shortest: timedelta = timedelta(seconds=60)
    watch_longest: timedelta = timedelta(hours=6)
    watch_spacing: timedelta = timedelta(seconds=15)
    watch_promise: timedelta = timedelta(seconds=900)
    stream_rules: RuleLimits = field(default_factory=RuleLimits)
    keep_calls: timedelta = timedelta(days=90)
    keep_watch_runs: timedelta = timedelta(days=14)
    delete_content: bool = False
    prices: Prices = field(default_factory=Prices)
    budgets: Budgets = field(default_factory=Budgets)
    confirm_usd: Decimal = Decimal(20)
    alert_webhook: WebhookUrl | None = None
    executor: Executor = Executor.IN_PROCESS
    broker_url: BrokerUrl | None = None
    worker_lost_after: timedelta = timedelta(seconds=60)
    log_format: LogFormat = LogFormat.TEXT

    @property
    def uses_sandbox(self) -> bool:
        """Whether what is fetched is made up by the sandbox, and nothing is charged."""
        return any(map(is_of_sandbox, self.bearer_tokens))

    @property
    def local_dir(self) -> Path:
        """Where everything lies that the project makes on this machine."""
        return PROJECT_DIR / ".local"


def load_settings(environ: Mapping[str, str], *, env_file: Path = PROJECT_DIR / ".env") -> Settings:
    """Read the settings; a variable that is set in `environ` wins over the file, also when it is empty.

    Raises ConfigurationError with the variable's name, never with the value of a token.
    """
    variables = _Variables({**_read_env_file(env_file), **environ})
    # What shows errors with their local variables would show the environment here.
    del environ
    reader = _Reader(variables)
    defaults = Settings()
    settings = Settings(
        bearer_tokens=_bearer_tokens(variables),
        api_url=reader.read("TWITTER_API_URL", str, defaults.api_url).rstrip("/"),
        database_url=reader.read("DATABASE_URL", str, None),
        database_reader_url=reader.read("DATABASE_READER_URL", str, None),
        dagster_home=reader.read("DAGSTER_HOME", _folder, defaults.dagster_home),
        dagster_port=reader.read("DAGSTER_PORT", _whole(1, 65535), defaults.dagster_port),
        allowed_hosts=reader.read("TWITTER_ALLOWED_HOSTS", _host_names, defaults.allowed_hosts),
        ui_password=reader.read("TWITTER_UI_PASSWORD", UiPassword, None),
        page_size=reader.read("TWITTER_PAGE_SIZE", _whole(5, 100), defaults.page_size),
        settle=timedelta(seconds=reader.read("TWITTER_SETTLE_SECONDS", _whole(0, 3600), 30)),
        confirm_after=timedelta(
            seconds=reader.read(
                "TWITTER_CONFIRM_AFTER_SECONDS", _whole(1, 86_400), 2 if any(map(is_of_sandbox, variables)) else 120
            )
        ),
        concurrency=reader.read("TWITTER_CONCURRENCY", _whole(1, 256), defaults.concurrency),
        batch_accounts=reader.read("TWITTER_BATCH_ACCOUNTS", _whole(1, 10_000), defaults.batch_accounts),
        profile_max_age=timedelta(days=reader.read("TWITTER_PROFILE_MAX_AGE_DAYS", _whole(0, 3650), 7)),
        backfill_share=reader.read("TWITTER_BACKFILL_SHARE", _share, defaults.backfill_share),
        archive_query_characters=reader.read(
            "TWITTER_ARCHIVE_QUERY_CHARACTERS", _whole(20, 4096), defaults.archive_query_characters
        ),
        archive_page_size=reader.read("TWITTER_ARCHIVE_PAGE_SIZE", _whole(10, 500), defaults.archive_page_size),
        watch_detection=reader.read("TWITTER_WATCH_DETECTION", _one_of(Detection), defaults.watch_detection),
        search_query_characters=reader.read(
            "TWITTER_SEARCH_QUERY_CHARACTERS", _whole(20, 4096), defaults.search_query_characters
        ),
        watch_polls_per_hour=reader.read(
            "TWITTER_WATCH_POLLS_PER_HOUR", _whole(1, 1_000_000), defaults.watch_polls_per_hour
        ),
        watch_shortest=timedelta(seconds=reader.read("TWITTER_WATCH_SHORTEST_SECONDS", _whole(1, 86_400), 60)),
        watch_longest=timedelta(seconds=reader.read("TWITTER_WATCH_LONGEST_SECONDS", _whole(1, 604_800), 21_600)),
        watch_spacing=timedelta(seconds=reader.read("TWITTER_WATCH_SPACING_SECONDS", _whole(0, 86_400), 15)),
        watch_promise=timedelta(seconds=reader.read("TWITTER_WATCH_PROMISE_SECONDS", _whole(1, 604_800), 900)),
        stream_rules=RuleLimits(
            characters=reader.read(
                "TWITTER_STREAM_RULE_CHARACTERS", _whole(20, 4096), defaults.stream_rules.characters
            ),
            rules=reader.read("TWITTER_STREAM_RULES", _whole(1, 100_000), defaults.stream_rules.rules),
        ),
        keep_calls=timedelta(days=reader.read("TWITTER_KEEP_CALLS_DAYS", _whole(1, 3650), 90)),
        keep_watch_runs=timedelta(days=reader.read("TWITTER_KEEP_WATCH_RUNS_DAYS", _whole(1, 3650), 14)),
        delete_content=reader.read("TWITTER_DELETE_CONTENT", _yes_or_no, defaults.delete_content),
        prices=Prices(
            post_usd=reader.read("TWITTER_PRICE_POST_USD", _money, defaults.prices.post_usd),
            user_usd=reader.read("TWITTER_PRICE_USER_USD", _money, defaults.prices.user_usd),
        ),
        budgets=Budgets(
            run=_limit(reader, "TWITTER_BUDGET_RUN"),
            day=_limit(reader, "TWITTER_BUDGET_DAY"),
            month=_limit(reader, "TWITTER_BUDGET_MONTH"),
            billing_day=reader.read("TWITTER_BILLING_DAY", _whole(1, 28), defaults.budgets.billing_day),
        ),
        confirm_usd=reader.read("TWITTER_CONFIRM_USD", _dollars, defaults.confirm_usd),
        # Never refused by its conversion, whose error would show it.
        alert_webhook=reader.read("TWITTER_ALERT_WEBHOOK", WebhookUrl, None),
        executor=reader.read("TWITTER_EXECUTOR", _one_of(Executor), defaults.executor),
        broker_url=reader.read("TWITTER_BROKER_URL", BrokerUrl, None),
        worker_lost_after=timedelta(seconds=reader.read("TWITTER_WORKER_LOST_SECONDS", _whole(5, 3600), 60)),
        log_format=reader.read(LOG_FORMAT, _one_of(LogFormat), defaults.log_format),
    )
    if settings.watch_shortest > settings.watch_longest:
        raise ConfigurationError("TWITTER_WATCH_SHORTEST_SECONDS is more than TWITTER_WATCH_LONGEST_SECONDS")
    if settings.alert_webhook is not None and not _is_fit_to_post_to(settings.alert_webhook):
        raise ConfigurationError(
            "TWITTER_ALERT_WEBHOOK is no address to post to; expected https://, or http:// on this machine"
        )
    if settings.broker_url is not None and not _names_redis(settings.broker_url):
        raise ConfigurationError("TWITTER_BROKER_URL is no address of Redis; expected redis://host:6379/0")
    return settings


def load_log_format(environ: Mapping[str, str], *, env_file: Path = PROJECT_DIR / ".env") -> LogFormat:
    """Read how to log, which has to be known before anything is told, also that another setting is wrong."""
    try:
        variables = _Variables({**_parse_env_file(env_file), **environ})
        return _Reader(variables).read(LOG_FORMAT, _one_of(LogFormat), LogFormat.TEXT)
    except ConfigurationError:
        # Whoever reads all settings tells of it.
        return LogFormat.TEXT


def bearer_keys(environ: Mapping[str, str], *, env_file: Path = PROJECT_DIR / ".env") -> list[str]:
    """Return the names of all variables for tokens, in the environment or the file, whatever is in them."""
    names = dict.fromkeys((*_read_env_file(env_file), *environ))
    return [name for name in names if name.startswith(BEARER_PREFIX)]


def is_of_sandbox(env_key: str) -> bool:
    """Whether a token is one of the local sandbox API's."""
    return env_key.startswith(SANDBOX_PREFIX)


def with_tokens(environ: Mapping[str, str], tokens: Mapping[str, BearerToken]) -> dict[str, str]:
    """Return an environment in which a child process finds these tokens and no others.

    Others, also those of `.env`, are blanked, not left out: a blank wins over the file, which the child would read
    again.
    """
    blanks = dict.fromkeys(bearer_keys(environ), "")
    return {**environ, **blanks, **{key: token.reveal() for key, token in tokens.items()}}


def render_settings(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment from which `load_settings` reads these very settings in a child process.

    It holds the secrets. A time that is no whole number of its unit cannot be said, and the child will refuse it.
    """
    return {
        **with_tokens(environ, settings.bearer_tokens),
        "TWITTER_API_URL": settings.api_url,
        "DATABASE_URL": settings.database_url or "",
        "DATABASE_READER_URL": settings.database_reader_url or "",
        "DAGSTER_HOME": str(settings.dagster_home),
        "DAGSTER_PORT": str(settings.dagster_port),
        "TWITTER_ALLOWED_HOSTS": ",".join(sorted(settings.allowed_hosts)),
        "TWITTER_UI_PASSWORD": "" if settings.ui_password is None else settings.ui_password.reveal(),
        "TWITTER_PAGE_SIZE": str(settings.page_size),
        "TWITTER_SETTLE_SECONDS": f"{settings.settle / timedelta(seconds=1):g}",
        "TWITTER_CONFIRM_AFTER_SECONDS": f"{settings.confirm_after / timedelta(seconds=1):g}",
        "TWITTER_CONCURRENCY": str(settings.concurrency),
        "TWITTER_BATCH_ACCOUNTS": str(settings.batch_accounts),
        "TWITTER_PROFILE_MAX_AGE_DAYS": f"{settings.profile_max_age / timedelta(days=1):g}",
        "TWITTER_BACKFILL_SHARE": str(settings.backfill_share),
        "TWITTER_ARCHIVE_QUERY_CHARACTERS": str(settings.archive_query_characters),
        "TWITTER_ARCHIVE_PAGE_SIZE": str(settings.archive_page_size),
        "TWITTER_WATCH_DETECTION": settings.watch_detection.value,
        "TWITTER_SEARCH_QUERY_CHARACTERS": str(settings.search_query_characters),
        "TWITTER_WATCH_POLLS_PER_HOUR": str(settings.watch_polls_per_hour),
        "TWITTER_WATCH_SHORTEST_SECONDS": f"{settings.watch_shortest / timedelta(seconds=1):g}",
        "TWITTER_WATCH_LONGEST_SECONDS": f"{settings.watch_longest / timedelta(seconds=1):g}",
        "TWITTER_WATCH_SPACING_SECONDS": f"{settings.watch_spacing / timedelta(seconds=1):g}",
        "TWITTER_WATCH_PROMISE_SECONDS": f"{settings.watch_promise / timedelta(seconds=1):g}",
        "TWITTER_STREAM_RULE_CHARACTERS": str(settings.stream_rules.characters),
        "TWITTER_STREAM_RULES": str(settings.stream_rules.rules),
        "TWITTER_KEEP_CALLS_DAYS": f"{settings.keep_calls / timedelta(days=1):g}",
        "TWITTER_KEEP_WATCH_RUNS_DAYS": f"{settings.keep_watch_runs / timedelta(days=1):g}",
        "TWITTER_DELETE_CONTENT": "true" if settings.delete_content else "false",
        "TWITTER_PRICE_POST_USD": str(settings.prices.post_usd),
        "TWITTER_PRICE_USER_USD": str(settings.prices.user_usd),
        **_render_limit("TWITTER_BUDGET_RUN", settings.budgets.run),
        **_render_limit("TWITTER_BUDGET_DAY", settings.budgets.day),
        **_render_limit("TWITTER_BUDGET_MONTH", settings.budgets.month),
        "TWITTER_BILLING_DAY": str(settings.budgets.billing_day),
        "TWITTER_CONFIRM_USD": str(settings.confirm_usd),
        "TWITTER_ALERT_WEBHOOK": "" if settings.alert_webhook is None else settings.alert_webhook.reveal(),
        "TWITTER_EXECUTOR": settings.executor.value,
        "TWITTER_BROKER_URL": "" if settings.broker_url is None else settings.broker_url.reveal(),
        "TWITTER_WORKER_LOST_SECONDS": f"{settings.worker_lost_after / timedelta(seconds=1):g}",
        LOG_FORMAT: settings.log_format.value,
    }


def _render_limit(name: str, limit: Limit) -> dict[str, str]:
    return {
        f"{name}_USD": "" if limit.usd is None else str(limit.usd),
        f"{name}_POSTS": "" if limit.posts is None else str(limit.posts),
    }


class _Variables(dict[str, str]):
    """Variables with secrets among them: `repr` shows their names."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)})"


class _Reader:
    """Reads one variable at a time; a bad value is an error that names the variable."""

    def __init__(self, variables: _Variables) -> None:
        self._variables = variables

    def read(self, name: str, convert: Callable[[str], T], default: T) -> T:
        text = self._variables.get(name, "").strip()
        if not text:
            return default
        try:
            return convert(text)
        except ValueError as error:
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise ConfigurationError(f"{name} is {shown!r}; expected {error}") from None


def _limit(reader: _Reader, name: str) -> Limit:
    return Limit(
        usd=reader.read(f"{name}_USD", _dollars, None), posts=reader.read(f"{name}_POSTS", _whole(0, 999_999_999), None)
    )


def _whole(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        # The length first: int() refuses thousands of digits with an error of its own.
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return convert


def _share(text: str) -> float:
    if not (_DECIMAL.fullmatch(text) and 0.05 <= float(text) <= 1):
        raise ValueError("a number from 0.05 to 1, such as 0.8")
    return float(text)


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return text.lower() == "true"


def _folder(text: str) -> Path:
    try:
        return Path(text).expanduser().resolve()
    except (RuntimeError, ValueError, OSError):  # "~name" of nobody, a NUL, links in a circle
        raise ValueError("the path of a folder") from None


def _host_names(text: str) -> frozenset[str]:
    names = [each.strip().lower().removesuffix(".") for each in text.split(",")]
    if not all(map(_HOST_NAME.fullmatch, names)):
        raise ValueError("names of hosts without a port, with commas between them, such as ui.example.com")
    return frozenset(names)


def _one_of(words: type[W]) -> Callable[[str], W]:
    def convert(text: str) -> W:
        try:
            return words(text)
        except ValueError:
            raise ValueError(" or ".join(words)) from None

    return convert


def _money(text: str) -> Decimal:
    return _amount(text, most=1000, example="0.005")


def _dollars(text: str) -> Decimal:
    return _amount(text, most=10_000_000, example="25")


def _amount(text: str, *, most: int, example: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not (amount.is_finite() and 0 <= amount <= most):
        raise ValueError(f"an amount in US dollars, such as {example}")
    return amount


def _is_fit_to_post_to(webhook: WebhookUrl) -> bool:
    """Tell whether nobody on the way could read the address."""
    try:
        parts = urlsplit(webhook.reveal())
        host, _ = parts.hostname or "", parts.port
    except ValueError:  # a bracket or a port that is none
        return False
    if _SENDABLE.fullmatch(webhook.reveal()) is None or not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def _names_redis(broker: BrokerUrl) -> bool:
    try:
        parts = urlsplit(broker.reveal())
        where, _ = parts.path if parts.scheme == "redis+socket" else parts.hostname, parts.port
    except ValueError:  # a bracket or a port that is none
        return False
    return parts.scheme in _BROKER_SCHEMES and bool(where) and _SENDABLE.fullmatch(broker.reveal()) is not None


def _bearer_tokens(variables: _Variables) -> dict[str, BearerToken]:
    tokens = {
        name: BearerToken(value.strip())
        for name, value in sorted(variables.items())
        if name.startswith(BEARER_PREFIX) and len(name) > len(BEARER_PREFIX) and value.strip()
    }
    for name, token in tokens.items():
        if _TOKEN.fullmatch(token.reveal()) is None:
            # Such as the quotes that `docker run --env-file` takes for a part of the value, or the word Bearer.
            raise ConfigurationError(
                f"{name} holds blanks, quotes or characters that no bearer token has; paste the token alone"
            )
    if len(set(tokens.values())) < len(tokens):
        first: dict[BearerToken, str] = {}
        for name, token in tokens.items():
            if token in first:
                raise ConfigurationError(f"{first[token]} and {name} hold the same token; remove one of them")
            first[token] = name
    return tokens


def _read_env_file(path: Path) -> _Variables:
    if path.is_file() and path.stat().st_mode & _OPEN_TO_OTHERS:
        _warn_once_of_loose_permissions(path)
    return _parse_env_file(path)


def _parse_env_file(path: Path) -> _Variables:
    if not path.is_file():
        return _Variables()
    try:
        # With or without the byte order mark that some editors of Windows write.
        with path.open(encoding="utf-8-sig") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigurationError(f"{path} cannot be read: {why}") from None
    for binding in bindings:
        if binding.error:
            raise ConfigurationError(
                f"{path}, line {binding.original.line}: expected NAME=value, with a quote at both ends of the value or "
                "at none"
            )
    return _Variables({each.key: each.value for each in bindings if each.key and each.value is not None})


@cache
def _warn_once_of_loose_permissions(path: Path) -> None:
    # A command reads its settings in several places; one warning is enough.
    logger.warning("%s is open to other users of this machine; run: chmod 600 %s", path, path)
