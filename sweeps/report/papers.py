"""Web addresses of the papers and tutorials that claims cite."""

from __future__ import annotations

_ARXIV = "https://arxiv.org/abs/"
ADDRESSES = {
    "Bjorck et al. 2018": f"{_ARXIV}1806.02375",
    "Choi et al. 2019": f"{_ARXIV}1910.05446",
    "Daneshmand et al. 2020": f"{_ARXIV}2003.01652",
    "De & Smith 2020": f"{_ARXIV}2002.10444",
    "Frankle et al. 2021": f"{_ARXIV}2003.00152",
    "Hendrycks & Gimpel 2017": f"{_ARXIV}1607.02488",
    "Hoffer, Hubara & Soudry 2017": f"{_ARXIV}1705.08741",
    "Ioffe & Szegedy 2015": f"{_ARXIV}1502.03167",
    "Ioffe 2017": f"{_ARXIV}1702.03275",
    "LeNet tutorials": "https://d2l.ai/chapter_convolutional-modern/batch-norm.html",
    "Li & Arora 2020": f"{_ARXIV}1910.07454",
    "Li et al. 2016": f"{_ARXIV}1603.04779",
    "Li et al. 2019": f"{_ARXIV}1801.05134",
    "Morvan": "https://github.com/MorvanZhou/PyTorch-Tutorial",
    "Rawles 2018": (
        "https://towardsdatascience.com/how-to-use-batch-normalization-with-tensorflow-and-tf-"
        "keras-to-train-deep-neural-networks-faster-60ba4d054b73"
    ),
    "Santurkar et al. 2018": f"{_ARXIV}1805.11604",
    "Schneider et al. 2020": f"{_ARXIV}2006.16971",
    "Wu & He 2018": f"{_ARXIV}1803.08494",
    "Wu & Johnson 2021": f"{_ARXIV}2105.07576",
    "Yang et al. 2019": f"{_ARXIV}1902.08129",
}


def linked(source: str) -> str:
    """A claim's source as Markdown, with a link for each paper whose address is known."""
    for name, address in ADDRESSES.items():
        source = source.replace(name, f"[{name}]({address})")
    return source
