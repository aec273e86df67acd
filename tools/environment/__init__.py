"""The project's virtual environment, and locks between processes."""


class LocalSetupFailed(Exception):
    """Raised when something local cannot be made or started; the message says what to do."""
