"""Embeds the studies' charts in the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path


def embedded(chart: Path) -> str:
    """A chart as a data address for the page.

    The chart is encoded as lossless WebP, which saves about a quarter of a PNG. (Lossy WebP is
    larger for charts.) It stays a PNG if that is smaller.

    Args:
        chart: The chart's PNG file.

    Returns:
        The address, "data:image/...;base64,...".
    """
    from PIL import Image

    kind, content = "png", chart.read_bytes()
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").save(buffer, "WEBP", lossless=True, method=4)
    if len(buffer.getvalue()) < len(content):
        kind, content = "webp", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
