"""While one model is exported and evaluated, the next one is trained: still one training at a time."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from types import TracebackType
from typing import Any

from components.pipeline.isolated import end_running


class Ahead:
    """Trains the detectors of *order*, each named once. Behind one that is ``trained`` the next begins, if it *may*.

    Within a ``with`` block: an error behind a training ends the one that is ahead, so that the error is told at once.
    """

    def __init__(self, order: Sequence[str], train: Callable[[str], Any], may: Callable[[str], bool]) -> None:
        self.order, self.train, self.may = list(order), train, may
        self.begun: dict[str, Future[Any]] = {}

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:  # Ctrl-C while one is waited for, too
            end_running()

    def trained(self, name: str) -> None:
        """Return when *name* is trained. Raises what its training raised."""
        if name in self.begun:
            self.begun.pop(name).result()
        else:
            self.train(name)
        for following in self.order[self.order.index(name) + 1 :][:1]:
            if self.may(following):
                self._begin(following)

    def _begin(self, name: str) -> None:
        end: Future[Any] = Future()
        self.begun[name] = end
        # In the context of the flow, to which its task belongs; a daemon, or the end of this process would wait for it.
        thread = threading.Thread(target=copy_context().run, args=(_settle, end, self.train, name), daemon=True)
        thread.start()


def _settle(end: Future[Any], train: Callable[[str], Any], name: str) -> None:
    try:
        end.set_result(train(name))
    except BaseException as error:  # whatever it is, it is raised where the training is waited for
        end.set_exception(error)
