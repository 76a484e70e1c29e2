"""Arrow as binary COPY writes it into PostgreSQL's own types."""

from collections.abc import Iterator

import pgpq
import pyarrow as pa
from pgpq.encoders import StringEncoderBuilder
from pgpq.schema import Jsonb

from tasks.column_types import JSON


def binary_copy(rows: pa.Table) -> Iterator[bytes]:
    """`rows` as the body of COPY … FROM STDIN (FORMAT binary): a uuid is its 16 bytes, a JSON text becomes jsonb."""
    documents = {field.name for field in rows.schema if field.type == JSON}
    plain = _without_extensions(rows)
    encoders = {
        field.name: StringEncoderBuilder.new_with_output(field, Jsonb())
        if field.name in documents
        else pgpq.ArrowToPostgresBinaryEncoder.infer_encoder(field)
        for field in plain.schema
    }
    encoder = pgpq.ArrowToPostgresBinaryEncoder.new_with_encoders(plain.schema, encoders)
    yield encoder.write_header()
    for part in plain.to_batches():
        yield encoder.write_batch(part)
    yield encoder.finish()


def _without_extensions(rows: pa.Table) -> pa.Table:
    for place, field in enumerate(rows.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            column = rows.column(place)
            stored = pa.chunked_array([chunk.storage for chunk in column.chunks], field.type.storage_type)
            rows = rows.set_column(place, field.name, stored)
    return rows
