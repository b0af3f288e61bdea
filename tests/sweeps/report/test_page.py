"""The parts of the results page, without a browser."""

import base64
import configparser
import functools
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from results_folders import TRACKED, copy_of_depth
from tuned_tables import network, trials

from sweeps import catalog
from sweeps.harness import claims
from sweeps.harness.errors import UserError
from sweeps.report import document, headline, page, papers, pictures

ALL_TRIALS = {"grids": lambda study: None}  # made by hand, so no trial is in the default grid


def folder_with(tmp_path, study, frame):
    folder = tmp_path / "mnist" / study
    folder.mkdir(parents=True)
    frame.to_csv(folder / "trials.csv", index=False)
    return {study: [folder]}


def tuned_study(published_plain=53):
    rates = {0.001: 60, 0.003: 20, 0.01: 30}
    return trials(
        *network(7, False, rates, {0.003: 28, 0.01: published_plain}),
        *network(7, True, rates, {0.003: 16, 0.01: 18}),
    )


def test_the_headline_compares_the_published_and_the_tuned_rate(tmp_path):
    found = headline.find(folder_with(tmp_path, "tuned", tuned_study()), **ALL_TRIALS)
    assert "with 7 hidden layers needs 53 training steps to reach 90%" in found.text
    assert "With batch norm, it needs 18." in found.text
    assert "the numbers are 28 and 16." in found.text
    assert "saves 66% of the steps" in found.text  # 1 - (28 - 16) / (53 - 18)
    assert found.note == ""
    shown = {(each["panel"], each["arm"]): each["text"] for each in found.points}
    assert shown == {
        (headline.PUBLISHED, "plain"): "53 [53, 53]",
        (headline.PUBLISHED, "batch norm"): "18 [18, 18]",
        (headline.TUNED, "plain"): "28 [28, 28]",
        (headline.TUNED, "batch norm"): "16 [16, 16]",
    }


def test_a_miss_is_never_a_number_in_the_headline(tmp_path):
    folders = folder_with(tmp_path, "tuned", tuned_study(published_plain=None))
    found = headline.find(folders, **ALL_TRIALS)
    assert "needs over 300 training steps" in found.text
    assert "%" not in found.text.replace("90%", "")  # no share of an unknown number
    (missed,) = [each for each in found.points if each["text"].startswith(">300")]
    assert missed["median"] is None
    assert {trial["steps"] for trial in missed["trials"]} == {None}


def test_without_tuned_rates_the_headline_is_the_depth_study_and_says_so(tmp_path):
    copy_of_depth(tmp_path)
    found = headline.find(document.studies(tmp_path))
    medians = pd.read_csv(TRACKED / "mnist" / "depth" / "summary.csv")
    deepest = medians[medians.depth == 7].set_index("batch_norm").median_steps
    assert f"needs {deepest[False]:g} training steps" in found.text
    assert f"With batch norm, it needs {deepest[True]:g}." in found.text
    assert "no complete results" in found.note
    assert {each["panel"] for each in found.points} == {headline.PUBLISHED}
    assert headline.find({}) is None


def test_trials_with_other_settings_are_no_headline(tmp_path):
    folders = folder_with(tmp_path, "tuned", tuned_study())  # none of them is a default trial
    assert headline.find(folders) is None
    copy_of_depth(tmp_path)
    assert "no complete results" in headline.find(document.studies(tmp_path)).note


def test_a_rule_is_shown_by_its_threshold_and_its_outcomes():
    (first, reproduced, *_, not_reproduced) = page.rule(catalog.claims()[2][1])
    assert first == "From the median steps to the target at each depth, with batch norm."
    assert reproduced == "**Reproduced:** the largest median is at most 1.5 times the smallest."
    assert not_reproduced.startswith("**Not reproduced:** the largest median is more than")


@pytest.mark.parametrize("number", catalog.claims())
def test_every_rule_states_when_the_claim_is_reproduced(number):
    sentences = page.rule(catalog.claims()[number][1])
    assert any(each.startswith("**Reproduced:**") for each in sentences)
    assert not any("\n" in each or "Claim " in each for each in sentences)


def test_sources_link_to_their_papers():
    assert papers.linked("Ioffe & Szegedy 2015") == (
        "[Ioffe & Szegedy 2015](https://arxiv.org/abs/1502.03167)"
    )
    assert papers.linked("Li et al. 2016, Schneider et al. 2020").count("](https://") == 2
    assert papers.linked("practice") == "practice"
    sources = {claim.source for _, claim in catalog.claims().values()}
    unlinked = {source for source in sources if "](" not in papers.linked(source)}
    assert unlinked <= {"practice", "arithmetic"}


def test_a_picture_keeps_every_pixel():
    chart = TRACKED / "mnist" / "depth" / "steps_to_target.png"
    address = pictures.embedded(chart)
    content = base64.b64decode(address.partition("base64,")[2])
    assert len(content) < chart.stat().st_size
    with Image.open(io.BytesIO(content)) as made, Image.open(chart) as original:
        assert made.convert("RGB").tobytes() == original.convert("RGB").tobytes()


@pytest.fixture(scope="module")
def render(tmp_path_factory):
    """Renders the page of a folder with the depth study alone."""
    results = tmp_path_factory.mktemp("results")
    copy_of_depth(results)
    folders = document.studies(results)
    return functools.partial(page.render, results, folders, document.decide(folders))


def test_the_page_has_every_claim_and_loads_nothing(render):
    text = render()
    assert len(text.encode()) < page.LIMIT
    for number, (_, claim) in catalog.claims().items():
        assert f'id="claim-{number}"' in text
        assert claim.text.replace("'", "&#39;") in text
    assert "The study was not run" in text
    # Everything outside of links and of Vega's own text is part of the file.
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.findall(r'(?:src|data|poster)="(?!data:)[^"]', markup.replace("data-", ""))
    assert "<link" not in markup.replace('<link rel="icon" href="data:,">', "")
    assert "default-src 'none'" in markup


def test_a_page_that_would_be_too_large_has_shorter_curves_and_says_so(render):
    whole = render()
    assert "The curves have all recorded points" in whole
    short = render(limit=len(whole.encode()) - 1000)
    assert len(short) < len(whole)
    assert re.search(r"On mnist, the curves of depth show about \d+ of their points", short)
    with pytest.raises(UserError, match="at most 1,000 are allowed"):
        render(limit=1000)


def test_charts_that_no_claim_shows_are_left_out_last(render):
    whole = render()
    pictures = [len(each) for each in re.findall(r'data-picture="[^"]*">data:[^<]*', whole)]
    assert len(pictures) == 3
    fewer = render(limit=len(whole.encode()) - sum(pictures) // 2)
    assert "2 charts are not part of this page" in fewer
    assert re.findall(r'data-picture="([^"]*)">data:', fewer) == ["mnist/depth/steps_to_target.png"]


def test_charts_of_a_claim_are_those_that_it_names():
    for _, claim in catalog.claims().values():
        assert isinstance(claim, claims.Claim)
        assert not claim.charts.endswith(".png")
    assert catalog.claims()[1][1].charts == "steps_to_target"


def test_a_wheel_has_the_templates():
    root = Path(page.__file__).parents[2]
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    patterns = config["options.package_data"]["sweeps.report"].split()
    folder = Path(page.__file__).parent
    packed = {path for pattern in patterns for path in folder.glob(pattern)}
    assert set((folder / "templates").iterdir()) <= packed
