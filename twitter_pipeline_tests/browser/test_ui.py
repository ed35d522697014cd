"""The UI in a real browser: what a person types, presses and sees."""

import re

import pytest
from playwright.sync_api import expect

from twitter_pipeline_tests.browser.person import Person

pytestmark = [
    # The first test also waits for `up`, and the last one for the daemon's next look at backfills.
    pytest.mark.timeout(600),
    # Side by side with others, but not with each other: they share one `up`.
    pytest.mark.xdist_group("browser"),
    # Under way while the other tests work.
    pytest.mark.usefixtures("filling"),
]

REQUEST = """\
request: [
  {"username": "nasa", "track_after": false, "fetch_mode": "limit:100"},
  {"username": "@ESA", "track_after": false, "fetch_mode": "limit:60"},
  {"username": "protected_reef"}
]"""


def test_a_pasted_request_succeeds_and_its_page_shows_the_table_and_both_charts(person: Person) -> None:
    person.open_launchpad("fetch_tweets")
    person.paste(REQUEST)
    person.launch()
    table = person.account_table()
    widths: list[int] = []
    for name in ("tweets by account", "calls against the limits"):
        # Not as it is on the page, where a dialog grows while it opens.
        widths.append(person.show(name).get_by_role("img", name=name).evaluate("image => image.naturalWidth"))
        person.close()

    assert [(row["account"], row["asked"], row["new"], row["stored"]) for row in table] == [
        ("@esa", "limit:60", "60", "60"),
        ("@nasa", "limit:100", "100", "100"),
        ("@protected_reef", "full", "0", "0"),
    ]
    assert [row["outcome"] for row in table] == ["done", "done", "unavailable"]
    assert widths == [920, 920]


def test_a_wrong_request_is_explained_over_the_launchpad_and_stays_there_to_be_mended(person: Person) -> None:
    person.open_launchpad("fetch_tweets")
    person.paste('request: [{"username": "no such name"}, {"username": "nasa", "fetch_mode": "limit:0"}]')
    person.launch_button.click()
    dialog = person.page.get_by_role("dialog")

    expect(dialog).to_contain_text("The request has 2 mistakes; no call was made.")
    expect(dialog).to_contain_text('entry 1, username: got "no such name", expected 1 to 15 letters')
    expect(dialog).to_contain_text('entry 2 (nasa), fetch_mode: got "limit:0", expected "full"')
    dialog.get_by_role("button", name="OK").click()
    expect(person.page.locator(".CodeMirror-code")).to_contain_text("no such name")
    expect(person.page).to_have_url(re.compile("/jobs/fetch_tweets/playground"))


def test_the_sensor_of_the_watch_is_turned_off_and_on_again(person: Person) -> None:
    person.open("/locations/twitter_pipeline/sensors/tracked_users_sensor")
    switch = person.page.get_by_role("checkbox")
    for turned in (False, True):
        expect(switch).to_be_checked(checked=not turned)
        # The switch turns before the server knows of it; a page that is loaded anew by then would break that off.
        with person.page.expect_response(lambda response: "mutation" in (response.request.post_data or "")):
            person.page.locator("label", has=switch).click()
        expect(switch).to_be_checked(checked=turned)
        # The page is told by the server, not by the switch.
        person.page.reload()
        expect(switch).to_be_checked(checked=turned)


def test_the_months_of_a_backfill_fill_while_somebody_looks(filling: Person) -> None:
    filling.page.bring_to_front()

    expect(filling.page.get_by_text("Materialized (3)")).to_be_visible()
    expect(filling.page.get_by_text("Failed (0)")).to_be_visible()
