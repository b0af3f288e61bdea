"""Runs a command: parses its flags and handles --help, bad input and Ctrl-C.

Exit statuses:
    0: Success.
    1: A trial crashed.
    2: Bad input.
    130: Interrupted with Ctrl-C.
    141: The output pipe was closed, for example by `head`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from absl import flags as absl_flags

import sweeps
from sweeps.harness.errors import UserError

FAILED, BAD_INPUT, INTERRUPTED, CLOSED_PIPE = 1, 2, 130, 141


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, `python -m sweeps.NAME`.

    Attributes:
        name: Name of its package in `sweeps`.
        question: The question that it answers, in one sentence, for --help.
        define_flags: Function of (flag values). Defines the command's flags.
        run: Function of (flag values). Does the work and returns the exit status.
        when_interrupted: Sentence to print after Ctrl-C. It says which results are kept.
        without: Flags of other commands that this one lacks, each with the reason in words. The
            error about such a flag gives the reason.
        captions: A sentence on what to see in each chart, by the pattern of its file name.
    """

    name: str
    question: str
    define_flags: Callable[[absl_flags.FlagValues], None]
    run: Callable[[absl_flags.FlagValues], int]
    when_interrupted: str
    without: Mapping[str, str] = dataclasses.field(default_factory=dict)
    captions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def main(command: Command, argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    Args:
        command: The command.
        argv: Command line, program name first. Default: `sys.argv`.
    """
    if signal.getsignal(signal.SIGINT) is sweeps.end_interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    values = absl_flags.FlagValues()
    command.define_flags(values)
    absl_flags.DEFINE_bool("help", False, "Show this text.", short_name="h", flag_values=values)
    try:
        unknown = values(sys.argv if argv is None else argv)[1:]
        if unknown:
            raise UserError(f"{unknown[0]!r} is not a flag. Flags begin with --. See --help.")
        if values.help:
            usage = f"Usage: python -m sweeps.{command.name} [--flag=value ...]"
            print(f"{command.question}\n\n{usage}")
            print(values.get_help(include_special_flags=False))
            status = 0
        else:
            status = command.run(values)
        sys.stdout.flush()  # a closed pipe must raise its error inside this `try`
        return status
    except absl_flags.UnrecognizedFlagError as error:
        print(f"error: {_about_unknown_flag(command, error.flagname, [*values])}", file=sys.stderr)
        return BAD_INPUT
    except (absl_flags.Error, UserError) as error:
        print(f"error: {error}".replace("\n", " "), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not interrupt the exit
        print(f"\nInterrupted. {command.when_interrupted}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output again at exit. That must not raise a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE


def _about_unknown_flag(command, name, known):
    for without_no in (name, name.removeprefix("no")):  # --nobatch_norm switches --batch_norm off
        if without_no in command.without:
            return f"{command.name} has no --{without_no}: {command.without[without_no]}"
    near = difflib.get_close_matches(name, known, n=1)
    advice = f"Did you mean --{near[0]}?" if near else "See --help."
    return f"{command.name} has no --{name}. {advice}"
