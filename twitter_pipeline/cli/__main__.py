"""`python -m twitter_pipeline.cli`: the same as `twitter-pipeline`, where its folder is not on the path."""

import sys

from twitter_pipeline.cli import main

sys.exit(main())
