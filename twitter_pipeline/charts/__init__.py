"""Charts: pure functions from pandas DataFrames to PNGs that can be read on a light and on a dark page.

matplotlib takes most of a second to import, and pandas half of one, so both are imported when a chart is drawn and not
before: these modules can be imported anywhere. A function that has nothing to show returns None.
"""

import os

from twitter_pipeline.settings import PROJECT_DIR

# matplotlib looks once at all fonts of a machine, for seconds, and keeps what it found in a folder, by default one of
# the home folder; without one it would look again in every process. It reads the variable when it is imported.
os.environ.setdefault("MPLCONFIGDIR", str(PROJECT_DIR / ".local" / "matplotlib"))
