"""The error message for a Keras backend that is not installed."""

from __future__ import annotations

import importlib.util

_BACKENDS = ("tensorflow", "jax", "torch")


def explained(error: ModuleNotFoundError) -> ImportError:
    """Returns the error to raise for an error from `import keras`.

    Args:
        error: Error from `import keras`.

    Returns:
        An ImportError that names the backend and says how to install it, or `error` itself if the
        missing module is not a backend.
    """
    backend = (error.name or "").partition(".")[0].removesuffix("lib")  # jaxlib belongs to jax
    if backend not in _BACKENDS:
        return error
    installed = [name for name in _BACKENDS if name != backend and importlib.util.find_spec(name)]
    return ImportError(
        f"Keras uses the {backend} backend, but {backend} is not installed. Install it with "
        f"`pip install 'kerasbn[{backend}]'`, or set the environment variable KERAS_BACKEND to "
        f"another backend. Installed backends: {', '.join(installed) or 'none'}.",
        name=backend,
    )
