"""Charts as metadata: the UI shows a PNG that lies in the event itself."""

import dagster as dg

from twitter_pipeline.charts.canvas import as_markdown


def image_of(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """Return a PNG as Markdown, which the page of an asset shows and a run's log opens as a dialog."""
    return dg.MetadataValue.md(as_markdown(png, title))
