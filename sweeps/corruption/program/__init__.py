"""The recorders of the corruption study."""

from __future__ import annotations

from sweeps.corruption.program.recorders import Corruption, Examples

RECORDERS = {"corruption": Corruption, "examples": Examples}
