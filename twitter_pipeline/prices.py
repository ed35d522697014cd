"""What X charges for reading."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars a post and a user, as of 2026 (docs.x.com, pricing)."""

    post_usd: Decimal = Decimal("0.005")
    user_usd: Decimal = Decimal("0.010")
