"""The project's virtual environment, and locks between processes."""


class LocalSetupFailed(Exception):
    """Raised when something local cannot be prepared or started; the message says what to do."""
