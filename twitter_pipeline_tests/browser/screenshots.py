"""`make screenshots`: the pictures in `docs/images`, of a UI over the sandbox that does what the README tells."""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect

from twitter_pipeline.orchestration.run_pages import SAID
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline_tests.browser.person import Person, in_a_window, window_of
from twitter_pipeline_tests.browser.place import MISSING, chromium_running, find_chromium, ui_of

FOLDER = PROJECT_DIR / "docs" / "images"

HEIGHT = 850

COLOURS = 128
"""The UI has few; so a picture takes a third of the bytes, and every clone of the repository holds all of them."""

MOST_BYTES = 200_000

REQUEST = """\
request: [
  {"username": "nasa", "track_after": true, "fetch_mode": "full"},
  {"username": "@esa", "track_after": true, "fetch_mode": "full"},
  {"username": "tide_tables", "fetch_mode": "limit:400"},
  {"username": "gull_watch", "fetch_mode": "limit:500"},
  {"username": "protected_reef"}
]"""


def main() -> None:
    """Take all pictures anew; needs Chromium or Chrome."""
    executable = find_chromium()
    if executable is None:
        sys.exit(f"No picture was taken: {MISSING}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium_running(executable) as browser,
        ui_of(Path(folder)) as url,
        window_of(browser, height=HEIGHT) as window,
        in_a_window(window, url) as person,
    ):
        take_launchpad_and_run(person)
        take_backfill(person)
        take_token_page(person)
        take_costs(person)
        take_catalog(person)
        take_automation(person)


def take_launchpad_and_run(person: Person) -> None:
    """Take the Launchpad with a pasted request, the page of its run, what it says in full, and its two charts."""
    person.open_launchpad("fetch_tweets")
    person.paste(REQUEST)
    expect(person.page.get_by_text("No errors")).to_be_visible()
    save(person.page, "launchpad")
    person.launch()
    for name, title in (("chart-tweets", "tweets by account"), ("chart-calls", "calls against the limits")):
        save(person.show(title).get_by_role("img", name=title), name)
        person.close()
    person.page.get_by_text("Hide navigation").click()
    person.page.get_by_text(SAID).scroll_into_view_if_needed()
    save(person.page, "run")
    person.page.get_by_text("View full message").last.click()
    expect(person.page.get_by_role("dialog").get_by_role("cell", name="span")).to_be_visible()
    save(person.page, "run-summary")


def take_backfill(person: Person) -> None:
    """Take the partitions of months, some of them filled, with what one of them tells."""
    person.fill_months("2026-01", "2026-06", accounts=["nasa", "esa"])
    expect(person.page.get_by_text("Materialized (6)")).to_be_visible()
    person.page.locator("span", has_text="2026-04").click()
    expect(person.page.get_by_text("whole by timeline")).to_be_visible()
    save(person.page, "backfill")


def take_token_page(person: Person) -> None:
    """Take what the asset `tokens` shows after the job that shows them has run."""
    person.open_launchpad("show_tokens")
    person.launch()
    person.open("/assets/tokens?view=events")
    expect(person.page.get_by_text("what holds work up").first).to_be_visible()
    save(person.page, "tokens")


def take_costs(person: Person) -> None:
    """Take what the asset `costs` shows after the job that shows what was paid has run."""
    person.open_launchpad("show_costs")
    person.launch()
    person.open("/assets/costs?view=events")
    save(person.show("cost by day").get_by_role("img", name="cost by day"), "chart-costs")
    person.close()


def take_catalog(person: Person) -> None:
    """Take the graph of all assets, its groups open."""
    person.open("/asset-groups")
    expect(person.page.get_by_text("backfills", exact=True).first).to_be_visible()
    person.page.keyboard.press("Alt+KeyE")
    expect(person.page.get_by_text("fetch_runs", exact=True).first).to_be_visible()
    save(person.page, "catalog")


def take_automation(person: Person) -> None:
    """Take the list of sensors and schedules, when all have told their state."""
    person.open("/automation")
    # Each has a box to choose it from the start, and a switch once its state is known.
    row = person.page.locator("[data-index]").filter(has_text="tracked_accounts_sensor")
    expect(row.get_by_role("checkbox")).to_have_count(2)
    save(person.page, "automation")


def save(seen: Page | Locator, name: str) -> None:
    """Wait until the page is at rest, and keep what is seen as a PNG of few colours."""
    page = seen.page if isinstance(seen, Locator) else seen
    page.wait_for_load_state("networkidle")
    # What moves is at its end, so that the same page gives the same picture.
    picture = Image.open(BytesIO(seen.screenshot(animations="disabled")))
    path = FOLDER / f"{name}.png"
    picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(PROJECT_DIR)}  {picture.width} x {picture.height}  {size:,} bytes", flush=True)
    if size > MOST_BYTES:
        sys.exit(f"{path.name} is larger than {MOST_BYTES:,} bytes.")


if __name__ == "__main__":
    main()
