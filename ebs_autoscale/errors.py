"""What callers must tell apart: four families, because four reactions exist."""


class EbsAutoscaleError(Exception):
    """Something expected went wrong: what failed, with which values, and what to do about it.

    `cause` names the condition in one word or two (for back-off, conditions and
    metrics); `hint` is the sentence that tells the operator what to do.
    """

    def __init__(self, what: str, *, hint: str = "", cause: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.cause = cause or type(self).__name__.lower()

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class Transient(EbsAutoscaleError):
    """The same step may succeed later, unchanged: try again after a back-off."""


class Unfit(EbsAutoscaleError):
    """Waiting alone will not help, a human has to act: keep polling and say so."""


class NameTaken(Transient):
    """The device name asked for is in use, perhaps invisibly: ask for another."""


class LockHeld(EbsAutoscaleError):
    """Another instance works on this filesystem: exit 3, having changed nothing."""


class Refused(EbsAutoscaleError):
    """A limit forbids it: exit 4, having bought nothing."""


class ConfigInvalid(EbsAutoscaleError):
    """The configuration or the command line is wrong: exit 2, having changed nothing."""


class CommandFailed(EbsAutoscaleError):
    """A tool ended with a non-zero status, was killed, or ran out of time.

    `status` is None when the tool was ended by our own timeout.
    """

    def __init__(self, argv: tuple[str, ...], status: int | None, stderr: str) -> None:
        ended = "timed out" if status is None else f"exit status {status}"
        tail = " / ".join(stderr.strip().splitlines()[-3:])
        super().__init__(f"`{' '.join(argv)}`: {ended}: {tail or 'no message'}", cause="command")
        self.argv = argv
        self.status = status
        self.stderr = stderr


class Stopped(Exception):
    """A stop was requested while waiting; the work goes on from here at the next start."""
