"""What the scripts run on this machine: the project's virtual environment and a real Kafka."""


class LocalSetupFailed(Exception):
    """Raised when something local cannot be made or started; the message says what to do."""
