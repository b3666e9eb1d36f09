"""Pages of HTML that need nothing else: no network, no other file. Standard library only."""

import base64
import hashlib
import html

from keras_resnet.printing import printable

# What explain's page and a run's report have in common.
STYLE = """
:root { color-scheme: light dark; --line: #8886; --quiet: #595959; --focus: #0a58ca; }
@media (prefers-color-scheme: dark) { :root { --quiet: #b5b5b5; --focus: #8ab4f8; } }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem;
  overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; }
h3 { margin-bottom: .3rem; }
nav a { display: inline-block; padding: .25rem .6rem .25rem 0; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 1px; }
.shots { display: flex; flex-wrap: wrap; gap: 1rem; }
.shot { border: 1px solid var(--line); border-radius: 6px; padding: .6rem;
  max-width: min(100%, 29.5rem);
  box-sizing: border-box; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; }
figure { margin: 0; max-width: 144px; overflow-wrap: anywhere; font-size: .85rem; }
figure img { display: block; width: 144px; height: 144px; }
.like figure, .like img { width: 96px; max-width: 96px; }
.like img { height: 96px; }
.path, .quiet { color: var(--quiet); font-size: .8rem; overflow-wrap: anywhere; }
@media print { .shot, h2, h3 { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


def text(value: object) -> str:
    """Text between tags, and in quotes, of any name: nothing in it is markup or turns writing."""
    return html.escape(printable(value))


def quoted(value: object) -> str:
    """The same as the value of an attribute."""
    return f'"{text(value)}"'


def image(content: bytes, alt: object, *, lazy: bool = False) -> str:
    """A JPEG file as a picture in the page.

    Args:
        content: of the file.
        alt: what it shows, for those who do not see it.
        lazy: whether it is decoded only where it is looked at.
    """
    data = base64.b64encode(content).decode()
    how = " loading=lazy decoding=async" if lazy else ""
    return f"<img alt={quoted(alt)}{how} src='data:image/jpeg;base64,{data}'>"


def figure(content: bytes, caption: object, alt: object) -> str:
    """A JPEG file with a line below it."""
    return f"<figure>{image(content, alt)}<figcaption>{text(caption)}</figcaption></figure>"


def document(title: object, body: str, style: str = "", script: str = "") -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML of what is in `main`.
        style: CSS beside STYLE.
        script: JavaScript at its end. It is the only one that browsers run here, whatever else the
            page should come to hold: its hash stands in the page's policy.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"; script-src 'sha256-{digest}'" if script else ""
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'{scripts}"
    end = f"<script>{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n{end}</body>\n</html>\n"
    )
