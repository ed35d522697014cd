"""One `up` over the sandbox for all tests of the UI, where a browser is found."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext

from twitter_pipeline_tests.browser.person import Person, in_a_window, window_of
from twitter_pipeline_tests.browser.place import MISSING, chromium_running, find_chromium, ui_of

# High enough for all events of a short run: the log has only those in the page that can be seen.
HEIGHT = 2600


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A browser, where there is one."""
    executable = find_chromium()
    if executable is None:
        pytest.skip(f"nobody looks at the UI: {MISSING}")
    with chromium_running(executable) as browser:
        yield browser


@pytest.fixture(scope="package")
def url(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The UI's address; depends on the browser, so that nothing is started without one."""
    with ui_of(tmp_path_factory.mktemp("browser")) as url:
        yield url


@pytest.fixture(scope="package")
def window(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """A window that loads the UI's program once, as a person's does."""
    with window_of(browser, height=HEIGHT) as window:
        yield window


@pytest.fixture
def person(window: BrowserContext, url: str) -> Iterator[Person]:
    """Somebody at a new tab of the window."""
    with in_a_window(window, url) as person:
        yield person


@pytest.fixture(scope="module")
def filling(window: BrowserContext, url: str) -> Iterator[Person]:
    """Somebody who has started a backfill of three months, and leaves its tab open.

    The daemon looks for backfills every half minute, so it is started before all tests and looked at in the last one.
    """
    with in_a_window(window, url) as person:
        person.fill_months("2024-01", "2024-03", accounts=["esa"])
        yield person
