"""Posting to a webhook over real HTTP: taken, refused, redirected, hanging, gone; never a word of its address."""

import logging
import time
from collections.abc import Iterator

import pytest

from twitter_pipeline import webhook
from twitter_pipeline.secret import WebhookUrl
from twitter_pipeline_tests.webhooks import SECRET_PATH, Receiver, receiver


@pytest.fixture
def slack() -> Iterator[Receiver]:
    with receiver() as served:
        yield served


def test_what_is_posted_arrives_as_json(slack: Receiver) -> None:
    assert webhook.post(slack.url, {"text": "שלום & <hello>"}) is None
    assert (slack.paths, slack.posted) == ([SECRET_PATH], [{"text": "שלום & <hello>"}])


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_a_refusal_is_told_by_its_status(slack: Receiver, status: int) -> None:
    slack.status = status

    assert webhook.post(slack.url, {}) == f"status {status}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(slack: Receiver, status: int) -> None:
    with receiver() as other:
        slack.status, slack.location = status, other.url.reveal()
        said = webhook.post(slack.url, {"text": "secret plans"})

        assert said == f"status {status}; redirects are not followed"
        assert (len(slack.posted), other.posted) == (1, [])


def test_a_server_that_answers_a_little_all_the_time_is_left_after_the_time_that_a_post_may_take(
    slack: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "LONGEST_S", 0.3)
    slack.drip_s = 0.05
    began = time.monotonic()
    said = webhook.post(slack.url, {})

    assert said is not None
    assert "Timeout" in said
    assert time.monotonic() - began < 3


def test_nobody_there_and_an_address_that_no_library_takes_are_told_without_the_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    nobody = webhook.post(WebhookUrl(f"http://127.0.0.1:9{SECRET_PATH}"), {})
    nonsense = webhook.post(WebhookUrl(f"http://[::1{SECRET_PATH}"), {})

    assert nobody is not None
    assert nobody.startswith("ConnectError")
    assert nonsense in ("ValueError", "InvalidURL")
    assert "xyzzyplugh" not in caplog.text + nobody + nonsense


def test_nothing_that_is_logged_on_the_way_has_the_address(slack: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    slack.status, slack.location = 301, f"https://elsewhere.invalid{SECRET_PATH}/"
    webhook.post(slack.url, {})

    assert "connect_tcp" in caplog.text
    assert "xyzzyplugh" not in caplog.text + repr(slack.url) + str(slack.url)
