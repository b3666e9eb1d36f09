"""The documentation as a site: it builds, no link is dead, and every page opens on a phone.

Skipped without MkDocs, except under KERAS_RESNET_BROWSER=required, as `.ci/run` has it.
"""

import functools
import html.parser
import http.server
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import pytest
from browser_helpers import DESKTOP, PHONE, find, load, missing, shot

import keras_resnet
from keras_resnet.config import KEYS

pytestmark = pytest.mark.ci
PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built as strictly as `.ci/run` does."""
    try:
        import mkdocs  # noqa: F401
    except ImportError:
        missing("mkdocs")
    folder = tmp_path_factory.mktemp("site") / "built"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder}"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served: its search needs more than a folder."""
    handler = functools.partial(_Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Page(html.parser.HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors = set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links |= {found[name] for name in ("href", "src") if found.get(name)}
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}


def test_no_link_is_dead(site):
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 20
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            place = urllib.parse.unquote(parts.path)
            target = (path.parent / place).resolve() if place else path
            target = target / "index.html" if target.is_dir() else target
            known = target not in pages or not parts.fragment
            if not target.exists() or not (known or parts.fragment in pages[target].anchors):
                dead.append(f"{path.name}: {link}")
    assert not [one for one in dead if "__skip" not in one]


def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.rglob("*.html"):
        fetched = re.findall(r"""<(?:script|img|link|iframe)\b[^>]*(?:src|href)="(https?:)""",
                             path.read_text())  # fmt: skip
        assert not fetched, path


def test_every_key_and_every_public_name_has_its_place(site):
    keys = (site / "reference/config.html").read_text()
    assert [key for key in KEYS if f"<code>{key}</code>" not in keys] == []
    for package in ("", "blocks", "layers", "training", "export", "explain", "input_pipeline"):
        module = getattr(keras_resnet, package) if package else keras_resnet
        text = (site / "reference" / f"{package or 'keras_resnet'}.html").read_text()
        networks = keras_resnet.architectures.variants.__all__
        absent = [
            name
            for name in module.__all__
            if callable(getattr(module, name)) and name not in networks and f"{name}" not in text
        ]
        assert absent == []


def test_pages_open_on_a_desk_and_on_a_phone(browser, site, address):
    pages = [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]
    for path in pages:
        for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
            load(browser, f"{address}/{path.relative_to(site)}", size)
            assert find(browser, "h1")
            wide = browser.execute_script(
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 0, (path.name, name)
            if path.name in ("index.html", "export.html", "config.html", "models.html"):
                shot(browser, f"site-{path.stem}-{name}")


def test_the_start_page_has_three_doors(browser, address):
    load(browser, f"{address}/index.html", DESKTOP)
    doors = [one.text for one in find(browser, ".grid.cards h2")]
    assert [door.rstrip("¶") for door in doors] == [
        "Train my photos",
        "Use the models in Keras",
        "Train on Cloud TPU",
    ]
