"""The report as one web page that needs no network.

The page's templates are in `templates/`: page.html (Jinja), page.css and the scripts. Vega-Lite
draws the charts that respond to the reader. vl-convert supplies its JavaScript in one piece. The
studies' own charts and all curves are embedded in the page.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sweeps import catalog
from sweeps.harness import claims
from sweeps.harness.charts import looks
from sweeps.harness.claims.wording import chart, spelled
from sweeps.harness.errors import UserError
from sweeps.report import document, explorer, headline, papers, pictures

LIMIT = 6_000_000  # bytes of the whole page
# Points per curve to try, until the page is small enough.
_POINTS = (None, 1000, 500, 250, 120, 60, 30)
_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("charts.js", "claims.js", "explorer.js")
_VEGA_LITE = "v6.1"
_VERDICTS = {
    claims.REPRODUCED: "reproduced",
    claims.DEPENDS: "partly reproduced",
    claims.NOT_REPRODUCED: "not reproduced",
    claims.UNDECIDED: "undecided",
}
_NOT_RUN = "not run"  # in place of a data set
_OUTCOME = re.compile(r"^(Reproduced|Not reproduced|Depends on [^:.]*): ")
_RULE_IS_ABOUT = re.compile(r"^Claim \d+[,.]\s+")


class Shown(NamedTuple):
    """A claim as the page shows it.

    Attributes:
        number: Number of the claim.
        text: The claim.
        cited: Name of the paper or tutorial that makes the claim.
        source: The same in Markdown, with a link.
        topic: Name of the study or command.
        rule: The rule that decides, from its docstring: sentences in Markdown, the outcomes last.
        results: The findings, one per data set.
    """

    number: int
    text: str
    cited: str
    source: str
    topic: str
    rule: list[str]
    results: list[dict[str, Any]]


def render(
    results: Path,
    folders: Mapping[str, Sequence[Path]],
    decided: Sequence[document.Decided],
    limit: int = LIMIT,
) -> str:
    """The page on a results folder.

    Args:
        results: The results folder.
        folders: Results folders by study, see `document.studies`.
        decided: The claims with their findings.
        limit: Largest size of the page in bytes. If it would be larger, curves lose points, and
            then the page leaves out charts that no claim shows.

    Raises:
        UserError: If the page would be too large even so.
    """
    values, trials = gather(results, folders, decided), _trials(folders)
    every, named = values.pop("pictures"), _of_claims(values["claims"])
    fewer = {path: picture for path, picture in every.items() if path in named}
    for most, pictured in [*((most, every) for most in _POINTS), (_POINTS[-1], fewer)]:
        curves = {name: explorer.pack(groups, most) for name, groups in trials.items()}
        page = _template().render(
            values, pictures=pictured, curves=curves, most=most, left_out=len(every) - len(pictured)
        )
        size = len(page.encode())
        if size <= limit:
            return page
    raise UserError(
        f"The page would have {size:,} bytes, but at most {limit:,} are allowed. The charts in "
        f"{results} take most of them. Move charts that you do not need away."
    )


def _of_claims(shown):
    """The paths of the charts that claims show."""
    return {
        chart["path"] for claim in shown for result in claim.results for chart in result["charts"]
    }


def gather(
    results: Path, folders: Mapping[str, Sequence[Path]], decided: Sequence[document.Decided]
) -> dict[str, Any]:
    """Everything that the template shows, except the curves. See `render` for the arguments."""
    return {
        "vega": _vega(),
        "looks": looks.LOOKS,
        "arms": looks.ARMS,
        "not_run": _NOT_RUN,
        "headline": headline.find(folders),
        "summary": document.summary(decided),
        "evidence": document.EVIDENCE,
        "verdicts": list(_VERDICTS.values()),
        "claims": _shown(decided, results),
        "sources": sorted({each.claim.source for each in decided}),
        "datasets": sorted({_dataset(each) for each in decided}, key=document.rank),
        "studies": _studies(folders, results),
        "pictures": {
            path.relative_to(results).as_posix(): pictures.embedded(path)
            for of_study in folders.values()
            for folder in of_study
            for path in sorted(folder.glob("*.png"))
        },
        "styles": (_TEMPLATES / "page.css").read_text(),
        "script": "\n".join((_TEMPLATES / name).read_text() for name in _SCRIPTS),
    }


@functools.cache
def _vega():
    """The JavaScript of Vega and Vega-Lite. The page's own scripts call it.

    It takes 0.9 MB of the page. (Bokeh takes 1.3 MB and Plotly 4.8 MB.) It draws SVG, so charts
    print sharply, follow the theme through CSS variables, and have descriptions for screen readers.
    """
    import vl_convert

    return vl_convert.javascript_bundle(vl_version=_VEGA_LITE)


def _template():
    """The page's template, with the filters `markdown` (a line of text) and `script` (JSON)."""
    import jinja2
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    markdown = MarkdownIt("commonmark", {"html": False})
    environment.filters["markdown"] = lambda text: Markup(markdown.renderInline(text))
    # Inside <script>, "</" could end the script.
    environment.filters["script"] = lambda value: Markup(
        json.dumps(value, allow_nan=False).replace("</", "<\\/")
    )
    return environment.get_template("page.html")


def _trials(folders):
    """The explorer's groups by data set, the preferred one first."""
    by_dataset: dict[str, list[Path]] = {}
    for of_study in folders.values():
        for folder in of_study:
            by_dataset.setdefault(folder.parent.name, []).append(folder)
    found = {
        name: explorer.gather(by_dataset[name]) for name in sorted(by_dataset, key=document.rank)
    }
    return {name: groups for name, groups in found.items() if groups}


def _shown(decided, results):
    found: dict[int, Shown] = {}
    for each in decided:
        shown = found.setdefault(
            each.number,
            Shown(
                each.number,
                each.claim.text,
                each.claim.source,
                papers.linked(each.claim.source),
                each.study,
                rule(each.claim),
                [],
            ),
        )
        shown.results.append(_result(each, results))
    return list(found.values())


def _dataset(each):
    """The name of a finding's data set."""
    return each.folder.parent.name if each.folder else _NOT_RUN


def _result(each, results):
    """A claim's finding on one data set."""
    rows = list(each.finding.rows)
    return {
        "dataset": _dataset(each),
        "verdict": _VERDICTS[document.kind(each.finding.verdict)],
        "sentence": document.sentence(each.finding.verdict),
        "measured": document.as_sentence(each.finding.measured),
        "columns": list(dict.fromkeys(name for row in rows for name in row)),
        "rows": rows,
        "command": document.command(each.study, each.folder),
        "tables": _tables(each.folder, results) if each.folder else [],
        "charts": _charts(each.folder, results, each.claim.charts) if each.folder else [],
    }


def rule(claim: claims.Claim) -> list[str]:
    """The rule of a claim in sentences, from the rule's docstring.

    Lines that belong together are joined. A sentence begins in bold if it is about an outcome.
    """
    text = inspect.getdoc(claim.rule) or ""
    paragraphs: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            paragraphs.append("")
        elif not paragraphs or _OUTCOME.match(line):
            paragraphs.append(line)
        else:
            paragraphs[-1] = f"{paragraphs[-1]} {line.strip()}".strip()
    about = [
        document.capital(_RULE_IS_ABOUT.sub("", text)) if number == 0 else text
        for number, text in enumerate(filter(None, paragraphs))
    ]
    return [_OUTCOME.sub(r"**\1:** ", text) for text in about]


def _studies(folders, results):
    """Every study or command with results, with its folders and their charts."""
    questions = catalog.commands()
    found = []
    for name, of_study in folders.items():
        is_study = name not in questions or catalog.study(name) is not None
        found.append(
            {
                "name": name,
                "title": document.capital(spelled(name.replace("_", " "))),
                "question": questions.get(name, ""),
                "is_study": is_study,
                "folders": [
                    {
                        "dataset": folder.parent.name,
                        "command": document.command(name, folder),
                        "tables": _tables(folder, results),
                        "charts": _charts(folder, results),
                        "animations": [
                            path.relative_to(results).as_posix()
                            for path in sorted(folder.glob("*.gif"))
                        ],
                    }
                    for folder in of_study
                ],
            }
        )
    return found


def _tables(folder, results):
    """The tables of a folder, as paths relative to the page."""
    paths = sorted([*folder.glob("*.csv"), *folder.glob("*.csv.xz")])
    return [path.relative_to(results).as_posix() for path in paths]


def _charts(folder, results, pattern="*"):
    """The charts of a folder that match a pattern, each with a name and a caption.

    If no chart matches, as in older results, all charts are returned.
    """
    captions = catalog.captions(folder.name)
    every = sorted(folder.glob("*.png"))
    matching = [path for path in every if path.match(f"{pattern}.png")] or every
    return [
        {
            "path": path.relative_to(results).as_posix(),
            "name": chart(path.stem),
            "caption": next((text for glob, text in captions.items() if path.match(glob)), ""),
        }
        for path in matching
    ]
