"""What all models share: one metadata, and Python types that say their column type."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, DateTime, Text
from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The base of all models; `sql/` creates the tables, and a test holds the two against each other."""

    type_annotation_map = {datetime: DateTime(timezone=True), int: BigInteger, str: Text}  # noqa: RUF012 read by SQLAlchemy


def enum_of(words: type[StrEnum], name: str) -> ENUM:
    """Return the PostgreSQL enum `name` for a StrEnum; the type itself is made by `sql/00_enums.sql`."""
    return ENUM(*(word.value for word in words), name=name, create_type=False)
