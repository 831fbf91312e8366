"""The watcher of a demo: looks eight times a second and shows what it saw."""

import os
import signal
from threading import Event, Thread
from types import TracebackType
from typing import Protocol, Self

from ebs_autoscale_demo.progress import Scene

_LOOK_EVERY_SECONDS = 0.125


class View(Protocol):
    """How a scene is shown."""

    def show(self, scene: Scene) -> None:
        """Show it as it is now."""

    def close(self) -> None:
        """Leave the last picture standing."""


class Watcher:
    """A thread that looks and shows until the end; the play goes on in the main thread.

    What goes wrong in showing (nobody reads on, say) ends the play, and is raised at the end.
    """

    def __init__(self, scene: Scene, view: View) -> None:
        self._scene = scene
        self._view = view
        self._end = Event()
        self._error: Exception | None = None
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _watch(self) -> None:
        try:
            while not self._end.wait(_LOOK_EVERY_SECONDS):
                self._scene.look()
                self._view.show(self._scene)
            self._scene.look()
            self._view.show(self._scene)
            self._view.close()
        except Exception as error:  # noqa: BLE001 -- raised again in the main thread
            self._error = error
            os.kill(os.getpid(), signal.SIGTERM)
