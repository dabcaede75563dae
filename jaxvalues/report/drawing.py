"""From matplotlib to accessible pictures: SVG with a title and a description, in the ink of the page, and PNG."""

from __future__ import annotations

import html
import io
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jaxvalues.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1b1d"
"""What is drawn in this colour has the colour of the page's text: dark on light, light on dark."""
FAINT = "#8a8a91"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6a00", "#8f5bd0")
"""Told apart by people who see few colours (Okabe & Ito 2008, the first six); marks differ too."""
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_SYSTEMS = len(COLORS)
"""As many systems as there are colours and marks that can be told apart."""
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Picture:
    """A figure of the report, with the finding in words and the data as a table."""

    name: str
    title: str
    finding: str
    """What it shows, for those who do not see it."""
    svg: str = field(repr=False)
    png: bytes = field(repr=False)
    table: Table


def shown(name: str) -> str:
    """A name that matplotlib shows as it is: $ begins mathematics there, and legends leave out what begins with _."""
    return f"{' ' * name.startswith('_')}{name}".replace("$", r"\$")


def wrapped(name: str, width: int = 30) -> str:
    """A name as `shown`, on lines of at most so many characters."""
    return shown("\n".join(textwrap.wrap(name, width, break_on_hyphens=False)))


def best_of(estimates: Mapping[str, float], most: int = MOST_SYSTEMS) -> tuple[list[str], str]:
    """The systems with the highest estimates, at most this many, in their own order; and a sentence on the others."""
    best = sorted(estimates, key=lambda name: -estimates[name])[:most]
    kept = [name for name in estimates if name in best]
    return kept, f" Drawn: the best {most} of {len(estimates)} systems." if len(kept) < len(estimates) else ""


def places(systems: Iterable[str], kept: Sequence[str]) -> dict[str, int]:
    """{kept system: place of its colour and mark}, the same in every figure if there are enough for all systems."""
    systems = list(systems)
    every = systems if len(systems) <= MOST_SYSTEMS else list(kept)
    return {name: every.index(name) for name in kept}


@contextmanager
def drawing(name: str, width: float, height: float) -> Iterator[Figure]:
    """A figure of this size in inches, in the style of the report. Nothing is shown on a screen."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # Letters that the font lacks are boxes in the PNG. In the SVG they are text, which the reader's fonts have.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from|Matplotlib currently does not support")
        yield Figure(figsize=(width, height), layout="constrained")


def caption(figure: Figure, text: str) -> None:
    """Write what the x axis shows below the whole figure: beside long labels, the axes are too narrow for it."""
    figure.supxlabel(text, fontsize=10)


def legend_beside(axes: Axes) -> None:
    """Put the legend to the right of the axes."""
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def picture(figure: Figure, name: str, title: str, finding: str, table: Table) -> Picture:
    """The figure as SVG and PNG. The same data give the same bytes. Call it inside `drawing`."""
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return Picture(name, title, finding, _accessible(svg.getvalue(), name, title, finding), png.getvalue(), table)


def _accessible(svg: str, name: str, title: str, finding: str) -> str:
    """An SVG without a prologue, named for screen readers, in the ink of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)  # several figures share a page
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", svg)
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    label = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    head = f'<title id="{name}-title">{html.escape(title)}</title><desc id="{name}-desc">{html.escape(finding)}</desc>'
    return re.sub(r"<svg([^>]*)>", rf"<svg\1 {label}>{head.replace(chr(92), '')}", svg, count=1)
