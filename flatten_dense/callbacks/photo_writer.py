"""What the writers of `predict` share."""

from abc import abstractmethod
from pathlib import Path

from lightning import Callback


class PhotoWriter(Callback):
    """Writes what was predicted for photos into a folder, as it comes.

    Args:
        directory: an empty or new folder.

    Attributes:
        num_written: photos so far.
        failed: messages about photos that could not be read, or that the model refuses.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.num_written = 0
        self.failed: list[str] = []

    def path_of(self, folder: str, file: str) -> Path:
        """A file in a folder of this name, which is made."""
        (self.directory / folder).mkdir(parents=True, exist_ok=True)
        return self.directory / folder / file

    @property
    @abstractmethod
    def summary(self) -> str:
        """What lies where, in one line."""
