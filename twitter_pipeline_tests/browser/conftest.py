"""One `up` over the sandbox for all tests of a module, and a window of its own for each."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from twitter_pipeline_tests.browser.person import Person, person_at
from twitter_pipeline_tests.browser.place import chromium_running, find_chromium, ui_of

# High enough for all events of a short run: the log has only those in the page that can be seen.
HEIGHT = 2600

MISSING = "neither Chromium nor Chrome is installed here; the UI was not looked at in a browser"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, where one is asked for: these tests take a minute and a half, most of it waiting for the daemon."""
    if not os.environ.get("BROWSER_TESTS"):
        pytest.skip("the UI is looked at in a browser by `make browser`")
    executable = find_chromium()
    if executable is None:
        pytest.skip(MISSING)
    with chromium_running(executable) as browser:
        yield browser


@pytest.fixture(scope="module")
def url(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The UI's address; depends on the browser, so that nothing is started without one."""
    with ui_of(tmp_path_factory.mktemp("browser")) as url:
        yield url


@pytest.fixture
def person(browser: Browser, url: str) -> Iterator[Person]:
    """Somebody who sees the UI for the first time."""
    person = person_at(browser, url, height=HEIGHT)
    yield person
    person.page.context.close()
