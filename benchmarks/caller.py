"""A process that calls one timeline for as long as it is left: `python -m benchmarks.caller USER_ID SHARE`.

Its settings are the environment's. It says when it is ready and ends when its standard input does.
"""

import os
import sys
import threading

from twitter_pipeline.calls import XApi
from twitter_pipeline.errors import ApiError, Interrupted
from twitter_pipeline.planning import TimelineRequest
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.tokens import TokenPool
from twitter_pipeline.x_api.client import XApiClient

THREADS = 4
REQUEST = TimelineRequest(max_results=5)


def main() -> None:
    """Call until the standard input ends."""
    user_id, settings, stop = int(sys.argv[1]), load_settings(os.environ), threading.Event()
    database = Database(settings.database_url or "", pool_size=THREADS)
    with XApiClient(settings.api_url, max_connections=THREADS) as client:
        pool = TokenPool(
            database, settings.bearer_tokens, lease_s=client.longest_call_s, share=float(sys.argv[2]), stop=stop
        )
        api = XApi(client, pool, database, stop=stop)
        threads = [threading.Thread(target=_call, args=(api, user_id, stop)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.read()
        stop.set()
        for thread in threads:
            thread.join()
    database.close()


def _call(api: XApi, user_id: int, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            api.fetch_user_tweets(user_id, REQUEST, fetch_run_id=None)
        except Interrupted:
            return
        except ApiError as error:
            print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
