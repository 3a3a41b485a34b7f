"""The one place where swyft is imported, so that it works today and leaves nothing behind.

swyft 0.4.5 imports `scipy.integrate.simps`, which SciPy renamed `simpson`, and pytorch-lightning
1.9.5, which needs `pkg_resources`, sets an environment variable and gives its loggers handlers of
their own. The alias exists only while swyft is being imported; loggers, warning filters and the
rest of the process are put back as they were. Afterwards `import swyft` finds the imported
package.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from sbi_physics.errors import PluginError
from sbi_physics.guard import preserve_state

LOGGERS = (
    "lightning_fabric",
    "pytorch_lightning",
    "lightning_fabric.utilities.rank_zero",
    "pytorch_lightning.utilities.rank_zero",
    "torchmetrics",
)
"""Loggers of Lightning, which announces devices, models and checkpoints at level INFO."""


def import_swyft() -> ModuleType:
    """Import swyft, leaving the process as it was.

    Raises:
        PluginError: If something it needs is missing, with what to install.
    """
    found = sys.modules.get("swyft")
    if found is not None and hasattr(found, "LogRatioEstimator_1dim"):
        return found
    with preserve_state(), _import_path(), _silent_loggers(), _simps():
        warnings.simplefilter("ignore")  # deprecations of pkg_resources, for its maintainers
        try:
            return importlib.import_module("swyft")
        except ImportError as error:
            raise PluginError(
                f"swyft cannot be imported ({error}); it works with: pip install 'swyft==0.4.5' "
                "'pytorch-lightning==1.9.5' 'setuptools<81'"
            ) from error


@contextlib.contextmanager
def _import_path() -> Iterator[None]:
    """Take back what `pkg_resources` appends: packages bundled with setuptools, for itself."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _simps() -> Iterator[None]:
    """Give SciPy the name that swyft asks for, as long as the block runs."""
    import scipy.integrate  # here: it changes warning filters, which the guard puts back

    if hasattr(scipy.integrate, "simps"):
        yield
        return
    scipy.integrate.simps = scipy.integrate.simpson  # the first two arguments kept their order
    try:
        yield
    finally:
        del scipy.integrate.simps


@contextlib.contextmanager
def _silent_loggers() -> Iterator[None]:
    """Let Lightning's loggers pass on only what matters, through the user's own handlers."""
    before = {name: list(logging.getLogger(name).handlers) for name in LOGGERS}
    try:
        yield
    finally:
        for name in LOGGERS:
            log = logging.getLogger(name)
            log.handlers[:] = before[name]
            log.propagate = True
            log.setLevel(logging.ERROR)


swyft: Any = import_swyft()
"""The package."""
