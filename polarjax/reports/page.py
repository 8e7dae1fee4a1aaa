"""The HTML page of a report: one file, no scripts, readable without anything beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: #1b2733;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 0 0 4px; }
p { margin: 0 0 12px; }
.where { color: #66727f; margin-bottom: 22px; }
.headline { font-size: 19px; line-height: 1.5; margin: 0 0 22px; max-width: 46em; }
section, .tiles > div { background: #fff; border: 1px solid #e3e8ed; border-radius: 10px; }
section { padding: 20px 22px; margin-top: 18px; }
section > p { color: #4b5763; font-size: 14.5px; max-width: 54em; }
section img { display: block; max-width: 100%; height: auto; margin: 6px auto 0; }
section img + .scroll { margin-top: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; }
.tiles > div { padding: 14px 16px; }
.tiles b { display: block; font-size: 25px; line-height: 1.2; font-weight: 650; }
.tiles span { color: #66727f; font-size: 13.5px; }
.scroll { overflow-x: auto; }
.scroll + .scroll { margin-top: 22px; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 10px; border-bottom: 1px solid #edf0f3; white-space: nowrap; }
th { color: #66727f; font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
ul { margin: 0; padding-left: 20px; font-size: 14.5px; columns: 3 180px; }
footer { color: #66727f; font-size: 13.5px; margin-top: 22px; }
"""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; the first column is text, the others numbers."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def image(source: str | None, description: str) -> str:
    """An embedded image with what it shows in words; nothing where there is no image."""
    return f'<img src="{source}" alt="{html.escape(description)}">' if source else ""


def section(title: str, text: str, *content: str) -> str:
    """A titled part of the page; empty where it has no content."""
    inside = "".join(content)
    explained = f"<p>{html.escape(text)}</p>" if text else ""
    return f"<section><h2>{html.escape(title)}</h2>{explained}{inside}</section>" if inside else ""


def bullets(lines: Sequence[str]) -> str:
    """A list; nothing where it is empty."""
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def page(
    title: str, where: str, headline: str, tiles: Mapping[str, str], sections: Sequence[str], footer: str
) -> str:
    """The whole page.

    Args:
      where: which run, checkpoint and data.
      headline: the result in words.
      tiles: {what: number}, the numbers to see first.
    """
    cells = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>"
        for name, value in tiles.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{html.escape(title)}</h1><p class="where">{html.escape(where)}</p>'
        f'<p class="headline">{html.escape(headline)}</p><div class="tiles">{cells}</div>'
        f"{''.join(sections)}<footer>{html.escape(footer)}</footer></main></body></html>\n"
    )
