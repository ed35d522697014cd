"""The table `refused_names`."""

from datetime import datetime

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from twitter_pipeline.models.base import Base


class RefusedName(Base):
    """A field, an expansion or a parameter that X does not know at an endpoint."""

    __tablename__ = "refused_names"

    endpoint: Mapped[str] = mapped_column(primary_key=True)
    parameter: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    message: Mapped[str]
    refused_at: Mapped[datetime] = mapped_column(server_default=func.now())
    again_at: Mapped[datetime]
