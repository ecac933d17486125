"""The decoding tree as a picture: how the beams walked the trie to the titles. Inline SVG, every text escaped."""

import unicodedata
from collections.abc import Iterator
from html import escape
from typing import Any

ROW = 30  # pixels from one leaf to the next
BEND = 30  # pixels that an edge takes to come to its height
CHARACTER = 8.8  # pixels of a character in a wide bold font: the page's own is not known here
MAX_CHARACTERS = 40
WHAT_BECAME = {"found": "found", "finished": "a title, not among the documents", "pruned": "given up"}


def draw_trees(trees: dict[str, dict[str, Any]]) -> str:
    """
    Draws the walks of the models, beside each other where there is room.

    Args:
        trees (`dict[str, dict[str, Any]]`): by role what [`draw_tree`] takes.

    Returns:
        `str`: HTML.
    """
    pictures = [
        draw_tree(tree, f"tree-{role}", f"How {role.upper()} found its titles") for role, tree in trees.items()
    ]
    return f'<div class="mint-trees">{"".join(pictures)}</div>' if pictures else ""


def draw_tree(tree: dict[str, Any], name: str, heading: str) -> str:
    """
    Draws one model's walk, from the root on the left to the titles on the right: the wider an edge, the more probable
    what is written by then.

    Args:
        tree (`dict[str, Any]`):
            What `BeamTrace.tree` of the model's code gives.
        name (`str`):
            Sets this picture's ids apart from others on the page.
        heading (`str`):
            What the picture shows.

    Returns:
        `str`: HTML: the picture in a box that scrolls by itself, a caption, and the same as a table.
    """
    heights = iter(range(ROW, 10**6, ROW))
    shapes = [f'<circle class="mint-root" cx="12" cy="{_place(tree, heights)}" r="5"/>']
    width = _draw_branches(tree, 12, shapes)
    leaves = list(_leaves(tree))
    found = sorted((leaf for leaf in leaves if leaf["rank"]), key=lambda leaf: leaf["rank"])
    summary = "; ".join(f"{leaf['rank']}. {leaf['title']}, {percent(leaf['probability'])}" for leaf in found)
    hidden = f" {tree['hidden']} less probable branches are not drawn." if tree["hidden"] else ""
    rows = "".join(
        f"<tr><td><bdi>{escape(leaf['prefix'])}{'…' if leaf['state'] == 'pruned' else ''}</bdi></td>"
        f"<td>{WHAT_BECAME[leaf['state']]}</td><td>{leaf['rank'] or ''}</td>"
        f"<td>{percent(leaf['probability'])}</td></tr>"
        for leaf in leaves
    )
    return (
        f'<figure class="mint-tree"><div class="mint-scroll" tabindex="0" role="region" '
        f'aria-label="{escape(heading)}">'
        f'<svg role="img" aria-labelledby="{name}-title {name}-desc" width="{width:.0f}" '
        f'height="{next(heights)}" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{name}-title">{escape(heading)}</title>'
        f'<desc id="{name}-desc">Titles found, with their probabilities: {escape(summary)}</desc>'
        f"{''.join(shapes)}</svg></div>"
        f"<figcaption><b>{escape(heading)}.</b> An edge is as wide as it is probable that the model writes this far. "
        f"Numbered: the documents found; pale: branches given up.{hidden}</figcaption>"
        "<details><summary>As a table</summary><div class='mint-scroll' tabindex='0' role='region' "
        "aria-label='The tree as a table'><table><thead><tr><th>Written</th><th>What became of it</th><th>Rank</th>"
        f"<th>Probability</th></tr></thead><tbody>{rows}</tbody></table></div></details></figure>"
    )


def percent(probability: float) -> str:
    """A probability for reading: `"95%"`, `"0.4%"`, `"<0.1%"`."""
    if probability < 0.001:
        return "<0.1%"
    return f"{probability:.0%}" if probability >= 0.1 else f"{probability:.1%}"


def _leaves(branch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not branch["children"] and "rank" in branch:
        yield branch
    for child in branch["children"]:
        yield from _leaves(child)


def _place(branch: dict[str, Any], heights: Iterator[int]) -> float:
    """Gives each branch its `y`: leaves one below the other, what they grow from in their middle."""
    places = [_place(child, heights) for child in branch["children"]]
    branch["y"] = (places[0] + places[-1]) / 2 if places else next(heights)
    return branch["y"]


def _draw_branches(branch: dict[str, Any], x: float, shapes: list[str]) -> float:
    """Draws all that grows from (x, y) of a branch; how far to the right it reaches."""
    reach = x
    # The pale ones first, so that they lie below.
    for child in reversed(branch["children"]):
        y, start, state = child["y"], x + BEND, child["state"]
        share = percent(child["probability"])
        label = _shortened(child.get("title", child["text"] + ("" if child["children"] else "…")))
        written = f'{escape(label)} <tspan class="mint-percent">{share}</tspan></text>'
        length = _width(f"{label} {share}")
        stop = start + (length + 14 if child["children"] else 6)
        bend = f"C{x + BEND / 2:.1f} {branch['y']:.1f} {start - BEND / 2:.1f} {y:.1f} {start:.1f} {y:.1f}"
        shapes.append(
            f'<path class="mint-edge {state}" stroke-width="{1.5 + 8 * child["probability"] ** 0.5:.2f}" '
            f'd="M{x:.1f} {branch["y"]:.1f}{bend}H{stop:.1f}"/>'
        )
        if child["children"]:
            shapes.append(f'<text class="{state}" x="{start + 4:.1f}" y="{y - 8:.1f}">{written}')
            reach = max(reach, _draw_branches(child, stop, shapes))
            continue
        if child["rank"]:
            shapes.append(
                f'<circle class="mint-rank" cx="{stop + 10:.1f}" cy="{y:.1f}" r="10"/>'
                f'<text class="mint-rank" x="{stop + 10:.1f}" y="{y + 4:.1f}">{child["rank"]}</text>'
            )
            stop += 20
        shapes.append(f'<text class="mint-end {state}" x="{stop + 6:.1f}" y="{y + 4:.1f}">{written}')
        reach = max(reach, stop + 20 + length)
    return reach


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"


def _width(text: str) -> float:
    """Pixels that a text takes at most, roughly; Chinese characters and emoji take two places."""
    return CHARACTER * sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
