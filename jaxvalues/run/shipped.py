"""The detectors that come with this package, by name. Importing this imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from jaxvalues.errors import ConfigError, name_list, short

DETECTORS = Path(__file__).parents[1] / "detectors"
ABOUT = "detector.json"
"""The file that makes a folder a detector's."""


def shipped_detector(name: str) -> Path:
    """The folder of the detector of this name in the package. Raises ConfigError, with the names, for another one."""
    names = sorted(path.parent.name for path in DETECTORS.glob(f"*/{ABOUT}"))
    if name not in names:
        known = f"only {name_list(names, most=5)}" if names else "none"
        raise ConfigError(
            f"--model: no detector of this package is called {short(name)}, it has {known}; give the folder of another "
            "one as RUN, without --model"
        )
    return DETECTORS / name
