"""What every command line here does alike: flags, --help, one clear line for bad input, Ctrl-C.

Exit statuses: 0; 1 if a trial crashed; 2 for bad input; 130 after Ctrl-C; 141 where who reads the
output has gone, as `head` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from absl import flags as absl_flags

from sweeps.harness.errors import UserError

FAILED, BAD_INPUT, INTERRUPTED, NO_READER = 1, 2, 130, 141  # exit statuses, beside 0


def main(
    name: str,
    question: str,
    define_flags: Callable[[absl_flags.FlagValues], None],
    run: Callable[[absl_flags.FlagValues], int],
    when_interrupted: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Runs a module of `sweeps` from its command line; returns the exit status.

    Args:
        name: Of the module.
        question: What it answers, in a sentence, for --help.
        define_flags: Defines its flags.
        run: Does the work; returns the exit status.
        when_interrupted: What Ctrl-C leaves, in a sentence.
        argv: The command line; default: the process's own.
    """
    values = absl_flags.FlagValues()
    define_flags(values)
    absl_flags.DEFINE_bool("help", False, "Show this.", short_name="h", flag_values=values)
    try:
        unknown = values(sys.argv if argv is None else argv)[1:]
        if unknown:
            raise UserError(f"{unknown[0]!r} is no flag: flags begin with --. See --help.")
        if values.help:
            print(f"{question}\n\npython -m sweeps.{name} [--flag=value ...]")
            print(values.get_help(include_special_flags=False))
            status = 0
        else:
            status = run(values)
        sys.stdout.flush()  # here, where it can be told that no one reads
        return status
    except (absl_flags.Error, UserError) as error:
        print(f"error: {error}".replace("\n", " "), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"\nInterrupted. {when_interrupted}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # for Python's own last flush
        return NO_READER
