"""What the process that children are forked from does first: everything slow that opens no database and no thread."""

import pyarrow as pa

from tasks.transform.contract import Contract
from tests.crash import child
from tests.crash.scenarios import UPSERT

__all__ = ["child"]

# Pandera and pandas load half of themselves at the first batch.
Contract("warm", UPSERT.pipeline.schema, key=["id"], cursor="updated_at").judge(
    pa.Table.from_pylist(list(UPSERT.states[0])), 0
)
