"""Fills the numbers in README.md and docs/ in from the tables in results/.

usage: python docs/fill_in_numbers.py [--check]

Documents say in HTML comments where their numbers come from. A number in a sentence is followed by
its source:

    It takes **55**<!-- = {median_steps:g} if depth == 7, from results/mnist/depth/summary.csv -->

A table stands below its source. The cells of a row are separated by `|`, and rows from another file
can follow after a line that starts with `and: `:

    <!-- table: results/mnist/depth/summary.csv, a row for each depth, where batch_norm
    {depth} | {median_steps:g} ({reached}/{total}) | {median_seconds:.2f}
    -->

`{...}` is a Python expression over the columns and a format. `if`, and `where` for a whole table,
is a pandas query that selects rows. Without `from`, the file is the last one that was named. If one
row is left, a column's name is its value, else it is the Series of all its values. Tables with a
`trial_id` also have the columns of the `trials.csv` next to them. NaN prints as nothing, infinity
as "never".
"""

from __future__ import annotations

import argparse
import functools
import re
import string
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]

_SOURCE = re.compile(
    r"(?P<shown>[^\s*(`]+)(?P<after>[*`]*)<!-- = (?P<cell>.+?) -->"
    r"|<!-- table: (?P<parts>(?:(?!-->)[\s\S])+)\n-->\n"
    r"(?P<head>\|[^\n]*\n\|[-:| ]+\n)(?P<body>(?:\|[^\n]*\n)*)"
)
_PART = re.compile(
    r"(?P<file>\S+), a row for each (?P<keys>[\w, ]+?)(?:, where (?P<where>.+))?\n(?P<cells>.+)"
)
_CELL = re.compile(r"(?P<template>.*?)(?: if (?P<query>.+?))?(?:, from (?P<file>\S+))?")
_FUNCTIONS = {"geometric_mean": lambda values: np.exp(np.log(values).mean())}


def filled_in(text: str) -> str:
    """The document with all numbers as the tracked tables have them."""
    file = None

    def replacement(match):
        nonlocal file
        if match["cell"]:
            cell = _CELL.fullmatch(match["cell"])
            file = cell["file"] or file
            source = match[0][match[0].index("<!--") :]
            return _show(cell, _table(file)) + match["after"] + source
        parts = [_PART.fullmatch(part) for part in match["parts"].split("\nand: ")]
        body = "".join(row for part in parts for row in _rows(part))
        return match[0].removesuffix(match["body"]) + body

    return _SOURCE.sub(replacement, text)


def _rows(part):
    where, keys = part["where"], part["keys"].split(", ")
    cells = [_CELL.fullmatch(text.strip()) for text in part["cells"].split("|")]
    main = _selected(_table(part["file"]), where)
    for values in main[keys].drop_duplicates().itertuples(index=False):
        shown = []
        for cell in cells:
            rows = _selected(_table(cell["file"] or part["file"]), where)
            for key, value in zip(keys, values, strict=True):
                rows = rows[rows[key] == value]
            shown.append(_show(cell, rows, dict(zip(keys, values, strict=True))))
        yield "|" + "|".join(f" {text} " if text else " " for text in shown) + "|\n"


def _show(cell, rows, key=None):
    rows = _selected(rows, cell["query"])
    if not len(rows):
        raise ValueError(f"No row is left for {cell[0]!r}.")
    names = rows.iloc[0] if len(rows) == 1 else rows
    columns = {name: names[name] for name in rows.columns} | (key or {})
    text = ""
    for literal, expression, form, _ in string.Formatter().parse(cell["template"]):
        text += literal
        if expression is not None:
            value = eval(expression, _FUNCTIONS, columns)
            if isinstance(value, pd.Series):
                raise ValueError(f"{len(rows)} rows are left for {cell[0]!r}.")
            text += _formatted(value, form)
    return text


def _formatted(value, form):
    if isinstance(value, float) and np.isnan(value):
        return ""
    return "never" if isinstance(value, float) and np.isinf(value) else format(value, form)


def _selected(rows, query):
    return rows.query(query) if query else rows


@functools.cache
def _table(file):
    path = ROOT / file
    table = pd.read_csv(path)
    trials = path.with_name("trials.csv")
    if "trial_id" not in table or path == trials:
        return table
    settings = pd.read_csv(trials)
    return table.merge(settings[["trial_id", *settings.columns.difference(table.columns)]])


def main() -> int:
    """Rewrites the documents, or says with --check which ones are out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="Only report documents out of date.")
    check = parser.parse_args().check
    stale = 0
    for path in DOCUMENTS:
        text = path.read_text()
        new = filled_in(text)
        if new != text:
            stale += 1
            print(f"{path.relative_to(ROOT)}: {'is out of date' if check else 'filled in'}")
            if not check:
                path.write_text(new)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
