"""Sphinx settings. Build with `sphinx-build -W --keep-going docs site`."""

import os
import re
import shutil
import sys
from pathlib import Path

from sphinx.util import inspect

ROOT = Path(__file__).parents[1]
os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path.insert(0, str(ROOT))

import keras  # noqa: E402  after the choice of its backend

import kerasbn  # noqa: E402

project = "kerasbn"
release = version = kerasbn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"kerasbn {release}"
html_copy_source = False

myst_heading_anchors = 3
myst_url_schemes = {
    **dict.fromkeys(["http", "https", "mailto", "ftp"]),
    "results-page": "results/{{path}}#{{fragment}}",
}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
default_role = "literal"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Call arguments", "params_style")]

_SECTION = re.compile(r"[A-Z][a-z ]+:$")
# *Emphasis*, which both languages have, or else a character that only reStructuredText reads.
_EMPHASIS_OR_SPECIAL = re.compile(r"(?P<emphasis>\*\S(?:[^*]*\S)?\*)|[|*]")


def _markdown_to_rst(app, what, name, obj, options, lines):
    """Docstrings are written as Markdown: indented blocks are code, and | and * are characters."""
    new: list[str] = []
    literal = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        literal &= indented or not line
        if indented and not literal and number and not lines[number - 1]:
            before = next((text for text in reversed(new) if text), "")
            if before and not before.startswith(" ") and not _SECTION.match(before):
                literal = not line.lstrip().startswith((">>>", "* ", "- "))
                if literal:
                    new += ["::", ""]
        new.append(line if literal or ">>>" in line else _escaped(line))
    lines[:] = new


def _escaped(line):
    parts = re.split(r"(`+[^`]*`+)", line)
    bullet, parts[0] = re.match(r"(\s*(?:\* |\*+kwargs: )?)(.*)", parts[0], re.DOTALL).groups()
    for i in range(0, len(parts), 2):  # the others are code
        parts[i] = _EMPHASIS_OR_SPECIAL.sub(lambda m: m["emphasis"] or f"\\{m[0]}", parts[i])
    return bullet + "".join(parts)


def _signature(app, what, name, obj, options, signature, returns):
    """The signature of a layer's `__init__`; the names of types, where Sphinx shows its own."""
    if what == "class" and issubclass(obj, keras.layers.Layer):
        # Keras's layers have a `__new__(*args, **kwargs)`, which Sphinx would show.
        shown = inspect.signature(obj.__init__, bound_method=True)
        return inspect.stringify_signature(shown, show_return_annotation=False), returns
    if signature is None:
        return None
    return re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", signature), returns


def _link_to_results(app, docname, source):
    """Documents link to the results page in the repository. On the site, it is in results/."""
    source[0] = source[0].replace("](../results/index.html", "](results-page:index.html")


def _copy_results(app, error):
    """Copies the results page with the tables and charts that it links to."""
    if error is None and app.builder.format == "html":
        only_for_readers = shutil.ignore_patterns("trials", "*.md")
        target = Path(app.outdir) / "results"
        shutil.copytree(ROOT / "results", target, ignore=only_for_readers, dirs_exist_ok=True)


def setup(app):
    """Converts docstrings before napoleon (priority 500) reads their sections."""
    app.connect("source-read", _link_to_results)
    app.connect("build-finished", _copy_results)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _markdown_to_rst, priority=400)
