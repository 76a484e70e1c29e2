"""JSON documents, drawn and written with decimals."""

import json
from decimal import Decimal

from hypothesis import strategies as st

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**65), 2**65),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.decimals(-1_000, 1_000, places=2),
    st.text(),
)


def dumped(value: object) -> str:
    """`value` as JSON, blanks of all kinds in it."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}:\t{dumped(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",\n".join(map(dumped, value)) + " ]"
    return json.dumps(value)
