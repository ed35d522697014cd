"""Charts: pure functions from pandas DataFrames to PNGs that can be read on a light and on a dark page.

matplotlib takes most of a second to import, and pandas half of one, so both are imported when a chart is drawn and not
before: these modules can be imported anywhere. A function that has nothing to show returns None.
"""
