"""Addresses of databases: every program reads the same, and no secret is shown."""

from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.local.instance import dagster_storage_url
from twitter_pipeline.orchestration.storage import for_psycopg2
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.urls import for_libpq, masked, shown, without_secrets

PASSWORDS = ["hunter2", *(f"h{character}nter2" for character in "@:/%?# +&"), "h%40nter2"]


def forms(password: str) -> list[str]:
    """Return the addresses in which a password may stand, with it as far as it is written as it should be."""
    written = quote(password, safe="")
    return [
        f"postgresql://me:{written}@host:5433/tweets",
        f"postgresql+psycopg://me:{written}@host/tweets?sslmode=require&options=-cx%3Dy%20-cz%3D1",
        f"postgresql://me@host/tweets?password={written}",
        f"postgresql://me@/tweets?host=/run/postgresql&password={written}&passfile=/home/me/.pgpass",
        f"postgresql://me:first@host/tweets?password={written}",
    ]


@pytest.mark.parametrize("password", PASSWORDS)
def test_no_form_of_an_address_shows_its_password(password: str) -> None:
    for url in forms(password):
        for text in (shown(url), without_secrets(url)):
            assert password not in text
            assert quote(password, safe="") not in text
            assert "first" not in text
        assert "***" in shown(url)
        assert "password" not in without_secrets(url)
        assert masked(f'no entry "{password}"', url) == 'no entry "***"'


@pytest.mark.parametrize("password", PASSWORDS)
def test_every_program_reads_the_same_from_an_address(password: str) -> None:
    for url in forms(password):
        engine = create_engine(url.replace("+psycopg", "").replace("postgresql", "postgresql+psycopg", 1))
        _, wanted = engine.dialect.create_connect_args(engine.url)
        wanted.pop("context")
        read = conninfo_to_dict(for_libpq(url))
        public = conninfo_to_dict(without_secrets(url))

        assert read["password"] == password == wanted["password"]
        assert {name: str(value) for name, value in wanted.items()} == read
        assert {name: value for name, value in read.items() if name != "password"} == public


def test_every_secret_of_libpq_is_hidden_and_what_only_names_one_is_not() -> None:
    url = "postgresql:///tweets?service=x&passfile=/p&sslkey=/k&sslpassword=hunter2&oauth_client_secret=hunter3"

    assert shown(url) == (
        "postgresql:///tweets?oauth_client_secret=***&passfile=%2Fp&service=x&sslkey=%2Fk&sslpassword=***"
    )
    assert without_secrets(url) == "postgresql:///tweets?passfile=%2Fp&service=x&sslkey=%2Fk"
    assert shown("postgresql://me@host") == "postgresql://me@host"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter@2@host/tweets",
        "postgresql://me:hunt@er:2@host/tweets",
        "postgresql://me:hunter2@host:port/tweets",
        "hunter2",
    ],
)
def test_of_an_address_that_is_none_nothing_is_repeated(url: str) -> None:
    for read in (shown, without_secrets, for_libpq, dagster_storage_url, Database, for_psycopg2):
        with pytest.raises(ConfigurationError, match="%40 for @") as refused:
            read(url)

        assert "hunt" not in str(refused.value)
        assert refused.value.__context__ is None or refused.value.__suppress_context__
