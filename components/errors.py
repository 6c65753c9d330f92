"""Every error a user can cause: each message says what is wrong, where, and what to do."""


class LoupeError(Exception):
    """Base class; the command line prints its message as one sentence and exits with 1."""


class SettingsError(LoupeError):
    """A setting is unknown, has the wrong type or contradicts another."""


class DataError(LoupeError):
    """A data set, image or mask does not keep its contract."""


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
