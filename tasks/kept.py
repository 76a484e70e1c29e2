"""`KeptFile`: a small private file under `TIDEGATE_HOME`, replaced whole, and a lock beside it."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import settings
from tasks.errors import ConfigError


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A JSON object that outlives this process, for this user's eyes only (mode 0600, in a folder of mode 0700).

    Attributes:
        name: of the file, without its suffix.
    """

    name: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return settings.home() / "secrets" / f"{self.name}.json"

    def read(self) -> dict[str, Any] | None:
        """What was written last, or None.

        Raises:
            ConfigError: the file is there, and holds something else.
        """
        try:
            kept = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            # Not taken for absent: the value from before it, a spent token perhaps, would be used again.
            raise ConfigError(
                f"{self._shown} cannot be read ({type(error).__name__}). Make it readable for this user, or remove it "
                "and put a new value where the secret is declared."
            ) from None
        if not isinstance(kept, dict):
            raise ConfigError(f"{self._shown} holds no JSON object. Remove it.")
        return kept

    def write(self, content: dict[str, Any]) -> None:
        """Replace the file: after a crash at any moment it is the old one or the new one, whole.

        Raises:
            ConfigError: it cannot be written.
        """
        with self._named_errors():
            folder = self._folder()
            # Of mode 0600, as `mkstemp` makes them.
            number, temporary = tempfile.mkstemp(dir=folder, prefix=f".{self.name}-")
            try:
                with open(number, "w", encoding="utf-8") as file:
                    json.dump(content, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            # The name, too, has to be on disk before anyone relies on it.
            _sync_folder(folder)

    def remove(self) -> None:
        """Remove the file where it is."""
        with self._named_errors():
            self.path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other thread and process of this machine out; a process that dies lets go.

        Raises:
            ConfigError: there is no place for the lock, and so none for the file.
        """
        with self._named_errors():
            lock = os.open(self._folder() / f"{self.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @property
    def _shown(self) -> str:
        return f"The file secrets/{self.name}.json under TIDEGATE_HOME"

    def _folder(self) -> Path:
        folder = self.path.parent
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"{self._shown} cannot be written: {error.strerror}. Let TIDEGATE_HOME name a folder that this user "
                "can write to, on a disk with room."
            ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
