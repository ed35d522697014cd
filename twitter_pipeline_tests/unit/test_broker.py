"""The address of the broker: what is said when it is missing or does not answer, and never its password."""

import importlib.util
import socket
import ssl

import pytest
from celery import Celery

from twitter_pipeline.broker import BrokerFault, broker_of, celery_config, require_broker, shown
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.secret import BrokerUrl
from twitter_pipeline.settings import Settings


def test_workers_need_a_broker() -> None:
    with pytest.raises(ConfigurationError, match="TWITTER_BROKER_URL is not set"):
        broker_of(Settings())


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "redis" else known(name))

    with pytest.raises(
        ConfigurationError, match=r"need redis, which is not installed: pip install 'twitter-pipeline\["
    ):
        broker_of(Settings(broker_url=BrokerUrl("redis://host")))


def test_a_broker_that_does_not_answer_is_named_without_its_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        settings = Settings(broker_url=BrokerUrl(f"redis://user:plugh@127.0.0.1:{port}/3"))

        with pytest.raises(BrokerFault) as raised:
            require_broker(settings)

    assert str(raised.value).startswith(f"The broker redis://127.0.0.1:{port}/3 cannot be reached: ")
    assert "plugh" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("redis://:pw@host:6379/0", "redis://host:6379/0"),
        ("redis://host", "redis://host"),
        ("rediss://me:p%40w@[::1]:6380/1?password=pw", "rediss://[::1]:6380/1"),
        ("redis+socket:///run/redis.sock?password=pw", "redis+socket:///run/redis.sock"),
    ],
)
def test_it_is_shown_without_what_is_secret(address: str, told: str) -> None:
    assert shown(BrokerUrl(address)) == told


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("redis://host", None),
        ("rediss://:pw@host", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        # Where the address has options, redis-py verifies unless they say that it is not to.
        ("rediss://host?ssl_ca_certs=/etc/redis/ca.crt", {"ssl_ca_certs": "/etc/redis/ca.crt"}),
    ],
)
def test_tls_verifies_the_certificate(address: str, options: dict[str, object] | None) -> None:
    with Celery(broker=address, set_as_current=False) as app:
        app.conf.update(celery_config(Settings(broker_url=BrokerUrl(address))))

        assert app.connection_for_write().ssl == options
