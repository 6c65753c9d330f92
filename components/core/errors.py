"""Every error a user can cause: each message says what is wrong, where, and what to do."""

LONGEST = 4_000  # characters of a message; a name that somebody else has given may be as long as a file


class LoupeError(Exception):
    """Base class; the command line prints its message as one sentence and exits with *status*."""

    status = 1

    def __str__(self) -> str:
        said = super().__str__()
        return said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."


class SettingsError(LoupeError):
    """A setting is unknown, has the wrong type or contradicts another."""


class PlaceError(LoupeError):
    """A place cannot be written or read: a full disk, missing rights, a limit, or somebody else there."""


class DataError(LoupeError):
    """A data set, image or mask does not keep its contract."""


class PartlyScoredError(LoupeError):
    """Some files of a batch could not be scored; the table of all of them is written."""

    status = 3


class WeightsError(LoupeError):
    """Backbone weights are missing or differ from the manifest."""


class CalibrationError(LoupeError):
    """There are too few normal images for the false-alarm rate asked for."""


class ParityError(LoupeError):
    """The exported graph does not score as the trained detector does."""


class RegistryError(LoupeError):
    """The model registry refuses a request."""


class BundleError(LoupeError):
    """A bundle is incomplete or its files do not match its manifest."""


class StorageError(LoupeError):
    """The object store cannot be reached or has no such object."""


class ObjectError(StorageError):
    """One object is absent or cannot be read; the store itself answers."""


class MonitorError(LoupeError):
    """There is too little to judge drift by."""


class RequestError(LoupeError):
    """A request to the scoring service is refused; *status* is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class StageError(LoupeError):
    """A stage that runs in a process of its own failed or took too long."""
