"""Studies of what batch norm does. `python -m sweeps.depth` is the main one."""

import importlib.util
import sys

# One module of each package in the extra `sweeps`. The commands need all of them.
_EXTRA = ("absl", "distributed", "markdown_it", "matplotlib", "mlxtend", "pandas", "tensorflow")


def _require_extra() -> None:
    """Ends the process with one clear line if the extra `sweeps` is not installed."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"error: the sweeps need packages that are not installed ({', '.join(missing)}). "
            "Install them with: pip install 'kerasbn[sweeps]' "
            "(in a checkout: pip install -e '.[sweeps]')",
            file=sys.stderr,
        )
        raise SystemExit(2)


if sys.argv[:1] == ["-m"]:  # Python sets this while it looks for the module of `python -m`
    _require_extra()
