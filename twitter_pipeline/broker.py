"""Redis, through which steps reach the workers: how Celery is to use it, and whether it is there."""
# pyright: reportUnknownMemberType=false

import importlib.util
import ssl
from typing import Any
from urllib.parse import urlsplit

from twitter_pipeline.errors import ConfigurationError, PipelineError
from twitter_pipeline.secret import BrokerUrl
from twitter_pipeline.settings import Settings
from twitter_pipeline.texts import first_line

NEEDED = ("celery", "dagster_celery", "redis")

STEP_TASK = "twitter_pipeline.execute_step"

NO_RESULTS = "disabled://"
"""How a step has ended is in Dagster's storage, never in Redis."""

VERIFIED = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
"""For an address with rediss:// and no options kombu would accept any certificate."""

PATIENTLY = {"max_retries": None, "interval_start": 0, "interval_step": 0.5, "interval_max": 2.0}
"""Tries again until it comes off: Redis is restarted now and then, and runs are to go on."""

CONNECT_TIMEOUT_S = 5.0


class BrokerFault(PipelineError):
    """The broker cannot be reached, or refuses us."""


def broker_of(settings: Settings) -> BrokerUrl:
    """Return the broker's address; raise ConfigurationError when none is set, or what speaks to it is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"Workers need {', '.join(missing)}, which is not installed: pip install 'twitter-pipeline[workers]'"
        )
    if settings.broker_url is None:
        raise ConfigurationError(
            "TWITTER_BROKER_URL is not set; workers get their steps from Redis: redis://host:6379/0"
        )
    return settings.broker_url


def require_broker(settings: Settings) -> None:
    """Raise BrokerFault when the broker does not answer, ConfigurationError when none is set."""
    broker = broker_of(settings)
    from kombu.connection import Connection
    from kombu.exceptions import OperationalError

    try:
        with Connection(
            broker.reveal(),
            ssl=tls_of(broker),  # pyright: ignore[reportArgumentType] it takes options too
            transport_options={"socket_connect_timeout": CONNECT_TIMEOUT_S},
        ) as connection:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_TIMEOUT_S)
    except (OperationalError, OSError) as error:
        raise BrokerFault(
            f"The broker {shown(broker)} cannot be reached: {_masked(first_line(error), broker)}. Check "
            "TWITTER_BROKER_URL, and that Redis runs."
        ) from None


def tls_of(broker: BrokerUrl) -> dict[str, Any] | None:
    """Return the options of TLS where the address does not say more, None where it asks for none."""
    return VERIFIED if broker.reveal().startswith("rediss:") else None


def celery_config(settings: Settings) -> dict[str, Any]:
    """Return Celery's settings, the same for those who hand out steps and those who take them."""
    lost_after_s = settings.worker_lost_after.total_seconds()
    return {
        "broker_use_ssl": tls_of(broker_of(settings)),
        # A message can come from anyone who can write to Redis: it names a step, in JSON, and does nothing else.
        "accept_content": ["json"],
        "worker_enable_remote_control": False,
        "task_ignore_result": True,
        "broker_transport_options": {
            # A step that nobody has answered for so long is handed out again. Who works on it renews that in time.
            "visibility_timeout": lost_after_s,
            "unacked_restore_interval": max(1.0, lost_after_s / 12),
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            **PATIENTLY,
        },
        "broker_connection_max_retries": None,
        "broker_connection_retry_on_startup": True,
        "task_publish_retry_policy": PATIENTLY,
        # A step is answered for when it has ended, so that one whose worker dies is not lost.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_default_queue": "dagster",
        # A step that waits in a worker's memory could be worked on elsewhere.
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": 50,
        "worker_redirect_stdouts": False,
    }


def shown(broker: BrokerUrl) -> str:
    """Return the broker's address as it may be shown: without user and password."""
    parts = urlsplit(broker.reveal())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _masked(text: str, broker: BrokerUrl) -> str:
    password = urlsplit(broker.reveal()).password
    return text.replace(password, "***") if password else text
