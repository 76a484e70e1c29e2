"""Types a contract names that pandas has none for: `id: Uuid`, `document: Json`."""

import pandas as pd
import pyarrow as pa
from pandera import dtypes
from pandera.engines import pandas_engine

from tasks.column_types import JSON, UUID


class LogicalType(pandas_engine.DataType):
    """One that Arrow knows as an extension of another."""

    arrow: pa.DataType


@pandas_engine.Engine.register_dtype
@dtypes.immutable
class Uuid(LogicalType):
    """A UUID: 16 bytes, or its text in any usual form."""

    type = pd.ArrowDtype(UUID)
    arrow = UUID

    def __str__(self) -> str:
        return "uuid"


@pandas_engine.Engine.register_dtype
@dtypes.immutable
class Json(LogicalType):
    """A JSON document, as text."""

    type = pd.ArrowDtype(JSON)
    arrow = JSON

    def __str__(self) -> str:
        return "json"
