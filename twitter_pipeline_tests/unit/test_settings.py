"""The environment and `.env` as values, or an error that names the variable and shows no secret."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from twitter_pipeline.budgets import Budgets, Limit
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.prices import Prices
from twitter_pipeline.secret import BearerToken, BrokerUrl, UiPassword, WebhookUrl
from twitter_pipeline.settings import Detection, Executor, Settings, bearer_keys, load_settings, render_settings

HOSTS = "names of hosts without a port, with commas between them, such as ui.example.com"

SECRET = "AAAA-not-a-real-one"  # noqa: S105 nobody's


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def write(env_file: Path, text: str) -> Path:
    env_file.write_text(text, encoding="utf-8")
    env_file.chmod(0o600)
    return env_file


def test_without_anything_the_defaults_hold(env_file: Path) -> None:
    assert load_settings({}, env_file=env_file) == Settings()


def test_every_variable_has_its_place(env_file: Path, tmp_path: Path) -> None:
    settings = load_settings(
        {
            "TWITTER_BEARER_MAIN": SECRET,
            "TWITTER_API_URL": "https://api.example.com/",
            "DATABASE_URL": "postgresql://me:pw@db/twitter",
            "DAGSTER_HOME": str(tmp_path / "home"),
            "DAGSTER_PORT": "4000",
            "TWITTER_ALLOWED_HOSTS": "ui.example.com, Metrics.",
            "TWITTER_UI_PASSWORD": "correct horse",
            "TWITTER_PAGE_SIZE": "100",
            "TWITTER_SETTLE_SECONDS": "60",
            "TWITTER_CONFIRM_AFTER_SECONDS": "300",
            "TWITTER_CONCURRENCY": "4",
            "TWITTER_BATCH_ACCOUNTS": "7",
            "TWITTER_PROFILE_MAX_AGE_DAYS": "1",
            "TWITTER_WATCH_DETECTION": "auto",
            "TWITTER_SEARCH_QUERY_CHARACTERS": "4096",
            "TWITTER_WATCH_PROMISE_SECONDS": "300",
            "TWITTER_KEEP_CALLS_DAYS": "30",
            "TWITTER_KEEP_WATCH_RUNS_DAYS": "2",
            "TWITTER_DELETE_CONTENT": "True",
            "TWITTER_PRICE_POST_USD": "0.01",
            "TWITTER_PRICE_USER_USD": "0",
            "TWITTER_BUDGET_RUN_USD": "25.50",
            "TWITTER_BUDGET_RUN_POSTS": "5000",
            "TWITTER_BUDGET_DAY_USD": "0",
            "TWITTER_BUDGET_MONTH_POSTS": "2000000",
            "TWITTER_BILLING_DAY": "17",
            "TWITTER_CONFIRM_USD": "3.5",
            "TWITTER_ALERT_WEBHOOK": "https://hooks.example.com/services/T0/B0/x",
            "TWITTER_EXECUTOR": "celery",
            "TWITTER_BROKER_URL": "rediss://:pw@redis:6380/1",
            "TWITTER_WORKER_LOST_SECONDS": "90",
        },
        env_file=env_file,
    )

    assert settings == Settings(
        bearer_tokens={"TWITTER_BEARER_MAIN": BearerToken(SECRET)},
        api_url="https://api.example.com",
        database_url="postgresql://me:pw@db/twitter",
        dagster_home=tmp_path / "home",
        dagster_port=4000,
        allowed_hosts=frozenset({"ui.example.com", "metrics"}),
        ui_password=UiPassword("correct horse"),
        page_size=100,
        settle=timedelta(seconds=60),
        confirm_after=timedelta(seconds=300),
        concurrency=4,
        batch_accounts=7,
        profile_max_age=timedelta(days=1),
        watch_detection=Detection.AUTO,
        search_query_characters=4096,
        watch_promise=timedelta(seconds=300),
        keep_calls=timedelta(days=30),
        keep_watch_runs=timedelta(days=2),
        delete_content=True,
        prices=Prices(post_usd=Decimal("0.01"), user_usd=Decimal(0)),
        budgets=Budgets(
            run=Limit(usd=Decimal("25.50"), posts=5000),
            day=Limit(usd=Decimal(0)),
            month=Limit(posts=2_000_000),
            billing_day=17,
        ),
        confirm_usd=Decimal("3.5"),
        alert_webhook=WebhookUrl("https://hooks.example.com/services/T0/B0/x"),
        executor=Executor.CELERY,
        broker_url=BrokerUrl("rediss://:pw@redis:6380/1"),
        worker_lost_after=timedelta(seconds=90),
    )


def test_a_child_process_reads_the_settings_that_were_rendered_for_it_whatever_the_environment_and_the_file_say(
    env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(env_file, "TWITTER_BEARER_1=of-the-file\nTWITTER_BEARER_2=of-the-file-too\nTWITTER_PAGE_SIZE=20\n")
    monkeypatch.setitem(bearer_keys.__kwdefaults__, "env_file", env_file)
    settings = Settings(
        bearer_tokens={"TWITTER_BEARER_1": BearerToken(SECRET)},
        api_url="http://127.0.0.1:8000",
        database_url="postgresql+psycopg://me:p%40w@/twitter?host=%2Ftmp%2Fsocket",
        dagster_home=tmp_path / "home",
        dagster_port=4000,
        allowed_hosts=frozenset({"ui.example.com", "metrics"}),
        ui_password=UiPassword("correct horse"),
        page_size=100,
        settle=timedelta(seconds=60),
        confirm_after=timedelta(seconds=300),
        concurrency=4,
        batch_accounts=7,
        profile_max_age=timedelta(days=1),
        watch_detection=Detection.AUTO,
        search_query_characters=4096,
        watch_promise=timedelta(seconds=300),
        keep_calls=timedelta(days=30),
        keep_watch_runs=timedelta(days=2),
        delete_content=True,
        prices=Prices(post_usd=Decimal("0.01"), user_usd=Decimal(0)),
        budgets=Budgets(
            run=Limit(usd=Decimal("25.50"), posts=5000),
            day=Limit(usd=Decimal(0)),
            month=Limit(posts=2_000_000),
            billing_day=17,
        ),
        confirm_usd=Decimal("3.5"),
        alert_webhook=WebhookUrl("https://hooks.example.com/services/T0/B0/x"),
        executor=Executor.CELERY,
        broker_url=BrokerUrl("redis+socket:///run/redis.sock?virtual_host=1"),
        worker_lost_after=timedelta(seconds=90),
    )
    environ = {"TWITTER_BEARER_3": "of-the-environment", "TWITTER_CONCURRENCY": "9", "HOME": "/root"}
    rendered = render_settings(settings, environ)

    assert load_settings(rendered, env_file=env_file) == settings
    assert rendered["HOME"] == "/root"


def test_the_file_is_read_and_the_environment_wins(env_file: Path) -> None:
    write(env_file, f"TWITTER_BEARER_1={SECRET}\nTWITTER_PAGE_SIZE=20\nTWITTER_CONCURRENCY=3\n")
    settings = load_settings({"TWITTER_PAGE_SIZE": "30"}, env_file=env_file)

    assert (settings.page_size, settings.concurrency, list(settings.bearer_tokens)) == (30, 3, ["TWITTER_BEARER_1"])


def test_an_empty_variable_of_the_environment_takes_back_what_the_file_says(env_file: Path) -> None:
    write(env_file, f"TWITTER_BEARER_1={SECRET}\nTWITTER_PAGE_SIZE=20\nDATABASE_URL=postgresql://x/y\n")
    blank = {"TWITTER_BEARER_1": "", "TWITTER_PAGE_SIZE": " ", "DATABASE_URL": ""}

    assert load_settings(blank, env_file=env_file) == Settings()


def test_the_file_may_quote_comment_and_export_and_nothing_is_expanded(env_file: Path) -> None:
    write(
        env_file, f"# a token\nexport TWITTER_BEARER_1='{SECRET}' # ours\nTWITTER_BEARER_2=\"a$HOME${{X}}b\"\nEMPTY\n"
    )
    tokens = load_settings({}, env_file=env_file).bearer_tokens

    assert {name: token.reveal() for name, token in tokens.items()} == {
        "TWITTER_BEARER_1": SECRET,
        "TWITTER_BEARER_2": "a$HOME${X}b",
    }


@pytest.mark.parametrize(
    "line",
    [
        "TWITTER_BEARER_1={}",
        "TWITTER_BEARER_1 =  {}  ",
        "TWITTER_BEARER_1='{}'",
        'TWITTER_BEARER_1="{}"  # ours',
        'TWITTER_BEARER_1="  {} "',
        'TWITTER_BEARER_1="{}\n"',
        "\ufeffTWITTER_BEARER_1={}",
        "TWITTER_BEARER_1={}\r",
    ],
)
def test_quotes_and_blanks_around_a_token_in_the_file_do_not_matter(env_file: Path, line: str) -> None:
    write(env_file, f"{line.format(SECRET)}\nTWITTER_PAGE_SIZE=20\n")
    settings = load_settings({}, env_file=env_file)

    assert (settings.bearer_tokens, settings.page_size) == ({"TWITTER_BEARER_1": BearerToken(SECRET)}, 20)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('TWITTER_PAGE_SIZE=20\nTWITTER_BEARER_1="{}\n', 2),
        ("TWITTER_BEARER_1='{}\nTWITTER_BEARER_2='other'\n", 1),
        ('TWITTER_BEARER_1="{}" and more\n', 1),
        ("TWITTER_BEARER_1: {}\n", 1),
    ],
)
def test_a_line_of_the_file_that_is_none_is_told_by_its_number_and_not_passed_over(
    env_file: Path, text: str, line: int
) -> None:
    with pytest.raises(ConfigurationError, match=rf"\.env, line {line}: expected NAME=value") as raised:
        load_settings({}, env_file=write(env_file, text.format(SECRET)))

    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TWITTER_WATCH_DETECTION", "guess", "timeline or users or search or auto"),
        ("TWITTER_SEARCH_QUERY_CHARACTERS", "19", "a whole number from 20 to 4096"),
        ("DAGSTER_PORT", "0", "a whole number from 1 to 65535"),
        ("DAGSTER_PORT", "http", "a whole number from 1 to 65535"),
        ("TWITTER_ALLOWED_HOSTS", "a.example:80", HOSTS),
        ("TWITTER_ALLOWED_HOSTS", "a.example b.example", HOSTS),
        ("TWITTER_ALLOWED_HOSTS", "*", HOSTS),
        ("TWITTER_PAGE_SIZE", "4", "a whole number from 5 to 100"),
        ("TWITTER_BUDGET_DAY_USD", "-1", "an amount in US dollars, such as 25"),
        ("TWITTER_BUDGET_RUN_POSTS", "5.5", "a whole number from 0 to 999999999"),
        ("TWITTER_BILLING_DAY", "29", "a whole number from 1 to 28"),
        ("TWITTER_CONFIRM_USD", "NaN", "an amount in US dollars, such as 25"),
        ("TWITTER_PAGE_SIZE", "101", "a whole number from 5 to 100"),
        ("TWITTER_PAGE_SIZE", "50.0", "a whole number from 5 to 100"),
        ("TWITTER_PAGE_SIZE", "\u0665\u0660", "a whole number from 5 to 100"),
        ("TWITTER_SETTLE_SECONDS", "-1", "a whole number from 0 to 3600"),
        ("TWITTER_CONFIRM_AFTER_SECONDS", "0", "a whole number from 1 to 86400"),
        ("TWITTER_CONFIRM_AFTER_SECONDS", "86401", "a whole number from 1 to 86400"),
        ("TWITTER_CONCURRENCY", "0", "a whole number from 1 to 256"),
        ("TWITTER_BATCH_ACCOUNTS", "1_0", "a whole number from 1 to 10000"),
        ("TWITTER_DELETE_CONTENT", "yes", "true or false"),
        ("TWITTER_BACKFILL_SHARE", "0.04", "a number from 0.05 to 1, such as 0.8"),
        ("TWITTER_BACKFILL_SHARE", "1.1", "a number from 0.05 to 1, such as 0.8"),
        ("TWITTER_BACKFILL_SHARE", "80 %", "a number from 0.05 to 1, such as 0.8"),
        ("TWITTER_KEEP_CALLS_DAYS", "0", "a whole number from 1 to 3650"),
        ("TWITTER_PROFILE_MAX_AGE_DAYS", "a week", "a whole number from 0 to 3650"),
        ("TWITTER_PAGE_SIZE", "9" * 5000, "a whole number from 5 to 100"),
        ("DAGSTER_HOME", "~nobody_of_this_name/home", "the path of a folder"),
        ("TWITTER_PRICE_POST_USD", "cheap", "an amount in US dollars, such as 0.005"),
        ("TWITTER_PRICE_POST_USD", "-1", "an amount in US dollars, such as 0.005"),
        ("TWITTER_PRICE_USER_USD", "NaN", "an amount in US dollars, such as 0.005"),
        ("TWITTER_PRICE_USER_USD", "inf", "an amount in US dollars, such as 0.005"),
    ],
)
def test_a_bad_value_is_told_with_its_name_and_what_is_expected(
    env_file: Path, name: str, value: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_settings({name: value}, env_file=env_file)

    message = str(raised.value)
    assert len(message) < 150
    assert (message.startswith(f"{name} is "), message.endswith(f"; expected {expected}")) == (True, True)


def test_the_same_token_twice_is_an_error_that_names_both_and_shows_neither(env_file: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_settings({"TWITTER_BEARER_1": SECRET, "TWITTER_BEARER_2": f" {SECRET} "}, env_file=env_file)

    assert str(raised.value) == "TWITTER_BEARER_1 and TWITTER_BEARER_2 hold the same token; remove one of them"


@pytest.mark.parametrize(
    "value",
    ["two words", "naïve", "tab\there", "line\nbreak", "nul\0", f'"{SECRET}"', f"'{SECRET}'", f"Bearer {SECRET}"],
)
def test_a_token_that_cannot_be_one_is_told_by_name(env_file: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^TWITTER_BEARER_1 holds") as raised:
        load_settings({"TWITTER_BEARER_1": value}, env_file=env_file)

    assert value not in str(raised.value)


def test_names_that_only_look_like_tokens_are_left_alone(env_file: Path) -> None:
    others = {"TWITTER_BEARER": SECRET, "TWITTER_BEARER_": SECRET, "MY_TWITTER_BEARER_1": SECRET}

    assert load_settings(others, env_file=env_file).bearer_tokens == {}


def test_no_secret_shows_in_what_is_printed(env_file: Path) -> None:
    environ = {
        "TWITTER_BEARER_1": SECRET,
        "DATABASE_URL": "postgresql://me:hunter2@db/twitter",
        "TWITTER_UI_PASSWORD": "hunter2",
    }
    settings = load_settings(environ, env_file=env_file)

    assert SECRET not in repr(settings) + str(settings) + f"{settings.bearer_tokens}"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("mode", "warnings"),
    [(0o600, 0), (0o400, 0), (0o700, 0), (0o640, 1), (0o604, 1), (0o620, 1), (0o602, 1), (0o644, 1), (0o666, 1)],
)
def test_a_file_that_is_open_to_others_is_warned_of_once(
    env_file: Path, caplog: pytest.LogCaptureFixture, mode: int, warnings: int
) -> None:
    write(env_file, f"TWITTER_BEARER_1={SECRET}\n").chmod(mode)
    for _ in range(3):
        load_settings({}, env_file=env_file)

    assert (caplog.text.count("; run: chmod 600 "), SECRET in caplog.text) == (warnings, False)


def test_a_file_that_is_no_text_is_told(env_file: Path) -> None:
    write(env_file, "").write_bytes(b"TWITTER_BEARER_1=\xff\xfe\n")

    with pytest.raises(ConfigurationError, match="cannot be read: it is no UTF-8 text"):
        load_settings({}, env_file=env_file)


@pytest.mark.parametrize("address", ["https://hooks.example.com/x", "http://127.0.0.1:8080/x", "http://localhost/x"])
def test_alerts_are_posted_where_nobody_on_the_way_can_read_the_address(env_file: Path, address: str) -> None:
    settings = load_settings({"TWITTER_ALERT_WEBHOOK": address}, env_file=env_file)

    assert settings.alert_webhook == WebhookUrl(address)
    assert address not in repr(settings)


@pytest.mark.parametrize(
    "address",
    [
        "http://hooks.example.com/plugh",
        "hooks.example.com/plugh",
        "ftp://hooks.example.com/plugh",
        "https:///plugh",
        "https://[::1/plugh",
        "https://hooks.example.com:http/plugh",
        "https://hooks.example.com/plu gh",
        "https://hooks.example.com/plughü",
    ],
)
def test_another_address_is_refused_without_being_repeated(env_file: Path, address: str) -> None:
    with pytest.raises(ConfigurationError, match="TWITTER_ALERT_WEBHOOK is no address to post to") as raised:
        load_settings({"TWITTER_ALERT_WEBHOOK": address}, env_file=env_file)

    assert "plu" not in str(raised.value)
    assert "example.com" not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    [
        "redis://localhost",
        "redis://user:p%40w@host:6379/2",
        "rediss://:pw@[::1]:6380/0",
        "redis+socket:///run/redis.sock",
    ],
)
def test_the_broker_is_a_redis_server(env_file: Path, address: str) -> None:
    settings = load_settings({"TWITTER_BROKER_URL": address}, env_file=env_file)

    assert settings.broker_url == BrokerUrl(address)
    assert "pw" not in repr(settings)


@pytest.mark.parametrize(
    "address",
    ["amqp://user:pw@host", "redis://", "redis:pw@host", "redis://:p w@host", "redis://host:port", "redis+socket://"],
)
def test_another_broker_is_refused_without_showing_it(env_file: Path, address: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_settings({"TWITTER_BROKER_URL": address}, env_file=env_file)

    assert str(raised.value) == "TWITTER_BROKER_URL is no address of Redis; expected redis://host:6379/0"


def test_an_unknown_executor_is_refused_with_those_there_are(env_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="TWITTER_EXECUTOR is 'k8s'; expected in_process or celery"):
        load_settings({"TWITTER_EXECUTOR": "k8s"}, env_file=env_file)
