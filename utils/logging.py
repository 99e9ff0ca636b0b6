"""One log for people: to stderr, past progress bars, and to a file in the output folder."""

import logging
import sys
from pathlib import Path

from tqdm import tqdm

from utils.errors import UserError


class _PastProgressBars(logging.Handler):
    """Writes to stderr without tearing a tqdm bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def set_up(folder: str | Path | None = None, name: str = "log.txt", quiet: bool = False) -> None:
    """Log INFO and above to stderr and, if given, append to ``folder``/``name``.

    Args:
        quiet: warnings only and no file: for the processes that are not the first of a distributed run.

    Raises:
        UserError: the folder cannot be written to.
    """
    handlers: list[logging.Handler] = [_PastProgressBars()]
    if folder is not None and not quiet:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(Path(folder) / name))
        except OSError as error:
            raise UserError(f"cannot write to the output folder {folder}: {error.strerror}") from error
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(
        level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers, force=True
    )
