"""The errors of the sandbox: what EC2 answers, and what the person who runs the sandbox sees."""


class ApiError(Exception):
    """An error response of EC2: `code` for programs, `message` for people, an HTTP status."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


class SandboxError(Exception):
    """Something expected went wrong: `what` failed, and `hint` says what to do about it."""

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class InputInvalid(SandboxError):
    """A setting, a fault rule, a policy or an argument is wrong; nothing has happened."""


class HostUnfit(SandboxError):
    """This host cannot do what was asked: rights, devices or kernel features are missing."""
