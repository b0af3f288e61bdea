"""Studies of what batch norm does. `python -m sweeps.depth` is the main one."""

import importlib.util
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

# One module of each package in the extra `sweeps`. The commands need all of them.
_EXTRA = (
    *("absl", "distributed", "jinja2", "markdown_it", "matplotlib", "mlxtend", "pandas"),
    *("tensorflow", "vl_convert"),
)


def command_names() -> list[str]:
    """The names of all commands, in alphabetical order."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/__main__.py"))


def refuse_command(problem: str, name: str, arguments: Sequence[str] = ()) -> NoReturn:
    """Ends the process with one line that suggests the command of the most similar name.

    Args:
        problem: Sentence that describes the problem.
        name: Name to look for.
        arguments: Arguments that follow it on the command line.
    """
    import difflib
    import shlex

    names = command_names()
    for near in difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5):
        _end(
            f"{problem} Did you mean: {shlex.join(['python', '-m', f'sweeps.{near}', *arguments])}"
        )
    _end(f"{problem} The commands are: {', '.join(names)}.")


def end_interrupted(*_: object) -> NoReturn:
    """Handles Ctrl-C while Python imports a command: ends the process without a traceback."""
    os.write(2, b"\nInterrupted. Nothing was started.\n")
    os._exit(130)


def _require_command(module: str, arguments: Sequence[str]) -> None:
    """Ends the process with one clear line if `python -m MODULE` names no command."""
    name = module.split(".")[1] if "." in module else ""
    if name and name not in command_names() and not importlib.util.find_spec(f"sweeps.{name}"):
        refuse_command(f"There is no command {name!r} in sweeps.", name, arguments)


def _require_extra() -> None:
    """Ends the process with one clear line if the extra `sweeps` is not installed."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        _end(
            f"the sweeps need packages that are not installed ({', '.join(missing)}). "
            "Install them with: pip install 'kerasbn[sweeps]' "
            "(in a checkout: pip install -e '.[sweeps]')"
        )


def _end(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


if sys.argv[:1] == ["-m"]:  # Python sets this while it looks for the module of `python -m`
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_interrupted)
    for _i, _word in enumerate(sys.orig_argv):  # -msweeps.depth is a single word
        if _match := re.fullmatch(r"(?:-\w*m)?(sweeps(?:\.[\w.-]*)?)", _word):
            _require_command(_match[1], sys.orig_argv[_i + 1 :])
            break
    _require_extra()
