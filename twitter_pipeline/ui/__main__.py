"""`python -m twitter_pipeline.ui`: `dagster-webserver` with its options, and the guard before it."""

import os
import sys
from collections.abc import Callable

from dagster_webserver import cli
from starlette.types import ASGIApp

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.settings import load_settings
from twitter_pipeline.ui.guard import Guard

MAKES_APP = "create_app_from_workspace_process_context"


def main() -> None:
    """Serve the UI until a signal ends it."""
    try:
        settings = load_settings(os.environ)
    except ConfigurationError as error:
        sys.exit(str(error))
    # Dagster's command takes no middleware. A release without this function ends here.
    make_app: Callable[..., ASGIApp] = getattr(cli, MAKES_APP)

    def make_guarded_app(*args: object, **options: object) -> ASGIApp:
        return Guard(make_app(*args, **options), hosts=settings.allowed_hosts, password=settings.ui_password)

    setattr(cli, MAKES_APP, make_guarded_app)
    cli.main()


if __name__ == "__main__":
    main()
