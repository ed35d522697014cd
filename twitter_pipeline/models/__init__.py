"""SQLAlchemy models of the tables, one module a table, named as the files in `sql/`."""

from twitter_pipeline.models.alerts import Alert
from twitter_pipeline.models.api_calls import ApiCall
from twitter_pipeline.models.base import Base
from twitter_pipeline.models.doubts import Doubt
from twitter_pipeline.models.fetch_runs import FetchRun, FetchRunAccount
from twitter_pipeline.models.refused_names import RefusedName
from twitter_pipeline.models.spending import Spending
from twitter_pipeline.models.tokens import Token
from twitter_pipeline.models.tokens_endpoint_rl import TokenEndpointRateLimit
from twitter_pipeline.models.tweets import Tweet
from twitter_pipeline.models.user_state import UserState
from twitter_pipeline.models.users import User, UserName
from twitter_pipeline.models.walks import Walk

__all__ = [
    "Alert",
    "ApiCall",
    "Base",
    "Doubt",
    "FetchRun",
    "FetchRunAccount",
    "RefusedName",
    "Spending",
    "Token",
    "TokenEndpointRateLimit",
    "Tweet",
    "User",
    "UserName",
    "UserState",
    "Walk",
]
