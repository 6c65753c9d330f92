"""What a user sees of an error: one sentence and an exit status, never a traceback unless asked for one."""

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from components.core.cache import cache_folder
from components.core.errors import LoupeError
from components.core.places import refusal

DEBUG = "LOUPE_DEBUG"  # set to show tracebacks; the option --debug sets it, for child processes too
BROKEN, INTERRUPTED = 70, 130  # exit statuses: a mistake of ours (sysexits.h), and what shells expect after Ctrl-C
OURS = {__name__.partition(".")[0], "flows", "benchmarks"}
SERVING = {"serve", "watch"}  # commands of a line that the extra serve is for
STOPPED = "stopped before the end; the same command can be given again"


@contextmanager
def boundary(prefix: str = "loupe: ") -> Iterator[None]:
    """End the process with one sentence on standard error where the block fails."""
    try:
        yield
    except LoupeError as error:
        _end(f"{prefix}{error}", error.status, error)
    except KeyboardInterrupt as error:
        _end(f"{prefix}{STOPPED}", INTERRUPTED, error)
    except SystemExit as ended:  # Typer ends so on Ctrl-C, without a word
        if ended.code == INTERRUPTED:
            sys.stderr.write(f"{prefix}{STOPPED}\n")
        raise
    except BrokenPipeError:  # the reader of our output has gone, as in `loupe detectors | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError as error:
        _end(f"{prefix}the memory of this machine is used up; end other programs or take a smaller preset", 1, error)
    except Exception as error:
        if said := refusal(error) or lacking(error):
            _end(f"{prefix}{said}", 1, error)
        where = _written(error)
        _end(
            f"{prefix}a mistake in Loupe itself ({type(error).__name__}: {_first_line(error)}); {where}", BROKEN, error
        )


def lacking(error: BaseException) -> str | None:
    """What to install for a package that is not there; None for another error, or a module of our own."""
    if not isinstance(error, ModuleNotFoundError) or not (name := (error.name or "").partition(".")[0]):
        return None
    if name in OURS:
        return None
    serving = SERVING & set(sys.argv[1:2])
    extra = "tables" if name == "pyarrow" else "serve" if serving else "train"
    return f"{name} is not installed, which this needs; pip install 'loupe[{extra}]' brings it"


def _end(sentence: str, status: int, error: BaseException) -> None:
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    sys.stderr.write(f"{sentence}\n")
    sys.exit(status)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]


def _written(error: BaseException) -> str:
    """Write the traceback to a file, and say where it is."""
    text = f"{' '.join(sys.argv)}\n{''.join(traceback.format_exception(error))}"
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    for folder in (cache_folder() / "log", Path(tempfile.gettempdir()) / "loupe-log"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        except OSError:
            continue
        return f"send {folder / name}, where the details are, to its makers"
    return f"nothing could be written either: run it again with {DEBUG}=1 to see the details"
