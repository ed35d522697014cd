"""How a worker tells the others which tokens it has, so that they leave it the steps that they have no token for."""

import logging
import threading
from collections.abc import Collection

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from twitter_pipeline.errors import PipelineError
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import HOLD_TOKENS, WORKER_LOCK, register_tokens
from twitter_pipeline.texts import first_line
from twitter_pipeline.x_api.endpoints import Endpoint

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0


def hold_tokens(database: Database, env_keys: Collection[str], *, until: threading.Event) -> None:
    """Hold a lock for each token until told to end, and take them again after an outage of the database.

    Tokens that nobody has used yet become known. The server gives them up when the process dies.
    """
    held = {"lock": WORKER_LOCK, "env_keys": sorted(env_keys)}
    while not until.is_set():
        try:
            register_tokens(database, env_keys, [endpoint.value for endpoint in Endpoint])
            with database.lock_session() as session:
                session.execute(HOLD_TOKENS, held)
                while not until.wait(LOOK_EVERY_S):
                    session.execute("SELECT")
        except (PipelineError, psycopg.Error, SQLAlchemyError) as error:
            logger.debug("The tokens of this worker could not be told: %s", first_line(error))
            until.wait(LOOK_EVERY_S)
