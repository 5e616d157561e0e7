"""The base class of every part of a record."""

from pydantic import BaseModel, ConfigDict


class RecordPart(BaseModel):
    """A frozen part of a record. An unknown key is an error: it comes from a newer version."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
