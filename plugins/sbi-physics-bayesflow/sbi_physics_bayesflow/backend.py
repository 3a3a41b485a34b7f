"""The only way to keras and BayesFlow: the torch backend, and no trace of the import.

Importing BayesFlow switches torch's autograd off, configures the root logger and sets an
environment variable; importing keras may write a file into the home folder. Building layers draws
from global generators of Python, NumPy, torch and keras. Everything is put back here.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sbi_physics.errors import PluginError
from sbi_physics.guard import preserve_state, quiet

BACKEND = "torch"

_VARIABLE, _HOME = "KERAS_BACKEND", "KERAS_HOME"
_GLOBALS = ("dtype_policy", "global_random_seed", "global_seed_generator")


class Backend(NamedTuple):
    """The two packages.

    Attributes:
        bayesflow: The module `bayesflow`.
        keras: The module `keras`, on torch.
    """

    bayesflow: Any
    keras: Any


def import_backend() -> Backend:
    """Import BayesFlow on torch and leave the process as it was.

    Raises:
        PluginError: If keras runs, or is told to run, on another backend, or cannot be imported.
    """
    try:
        return probe()
    except ImportError as error:
        if isinstance(error, PluginError):
            raise
        raise PluginError(
            f"the engine needs bayesflow and keras, and importing them failed: {error}; "
            'install them with: pip install "sbi-physics[bayesflow]", or ask `sbi-physics doctor` '
            "what is broken"
        ) from error


def probe() -> Backend:
    """Do what `import_backend` does, but raise what the packages raise; `doctor` explains it."""
    _refuse_other_backend()
    if "bayesflow" in sys.modules:  # perhaps by its own user, whose settings are theirs
        return Backend(importlib.import_module("bayesflow"), importlib.import_module("keras"))
    with preserve_state(), quiet(["bayesflow"]):
        logging.disable(logging.WARNING)
        os.environ[_VARIABLE] = BACKEND
        _keep_home_clean()
        keras = importlib.import_module("keras")
        bayesflow = importlib.import_module("bayesflow")
    return Backend(bayesflow, keras)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[Backend]:
    """Build layers in single precision on the processor, their randomness a function of `seed`.

    Restores keras's own generator, precision, data format and device besides what
    `preserve_state` does.
    """
    backend = import_backend()
    keras = backend.keras
    # keras offers no public way to read its generator back, and reading the policy makes one.
    state = importlib.import_module("keras.src.backend.common.global_state")
    kept = {name: state.get_global_attribute(name) for name in _GLOBALS}
    floatx, data_format = keras.config.floatx(), keras.config.image_data_format()
    with preserve_state(), keras.device("cpu"):
        try:
            keras.config.set_floatx("float32")
            keras.config.set_dtype_policy("float32")
            keras.config.set_image_data_format("channels_last")
            keras.utils.set_random_seed(seed)
            yield backend
        finally:
            keras.config.set_floatx(floatx)
            keras.config.set_image_data_format(data_format)
            for name, value in kept.items():
                state.set_global_attribute(name, value)


def _refuse_other_backend() -> None:
    if "keras" in sys.modules:
        found = str(importlib.import_module("keras").backend.backend())
        if found != BACKEND:
            raise PluginError(
                f"keras is already imported with the backend {found!r}, and a process has one; "
                f"this engine needs {BACKEND!r}: start again with {_VARIABLE}={BACKEND}, or load "
                "the engine before anything else imports keras"
            )
        return
    asked = os.environ.get(_VARIABLE, BACKEND).lower()
    if asked != BACKEND:
        raise PluginError(
            f"{_VARIABLE} is {asked!r}; this engine needs {BACKEND!r}: unset it, or set "
            f"{_VARIABLE}={BACKEND}"
        )


def _keep_home_clean() -> None:
    """Let keras write its configuration to a temporary folder unless the user has one."""
    if _HOME not in os.environ and not (Path("~").expanduser() / ".keras").exists():
        os.environ[_HOME] = str(Path(tempfile.gettempdir()) / f"sbi-physics-keras-{os.getuid()}")
