"""What EC2 answers when it says no."""


class ApiError(Exception):
    """An EC2 error document: `code` for programs, `message` for people, an HTTP status."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
