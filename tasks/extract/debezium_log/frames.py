"""Frames: what the engine's process sends to the flow's. A letter, a length, and so many bytes."""

import struct
from typing import Literal

Kind = Literal["S", "R", "E"]
HEAD = struct.Struct("!cI")


def frame(kind: Kind, payload: bytes) -> bytes:
    """A whole frame."""
    return HEAD.pack(kind.encode(), len(payload)) + payload
