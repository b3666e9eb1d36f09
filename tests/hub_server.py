"""A stand-in for the Hugging Face hub on loopback: the routes that a download of files takes.

GET, HEAD /OWNER/NAME/resolve/REVISION/FILE    small files at once, large ones by a redirect
GET, HEAD /lfs/SHA256                          where that leads; takes ranges
GET /api/models/OWNER/NAME/tree/REVISION       the names of the files
"""

import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator

_LARGE = (".safetensors", ".bin", ".h5", ".keras")


class Hub:
    """What the stand-in has, and what it was asked.

    Attributes:
        endpoint: its address.
        requests: (method, path, Range or None) of each request, in order.
        broken: whether every request ends in an error of the server.
        cut: how many downloads of large files are to break off after half of what is left.
        gated: repositories whose terms nobody has accepted.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.requests: list[tuple[str, str, str | None]] = []
        self.broken = False
        self.cut = 0
        self.gated: set[str] = set()
        self._commits: dict[str, dict[str, bytes]] = {}
        self._revisions: dict[str, dict[str, str]] = {}
        self.blobs: dict[str, bytes] = {}

    def push(self, repository: str, files: dict[str, bytes], *revisions: str) -> str:
        """Adds a commit that `revisions` ("main" by default) then name; returns its hash."""
        content = b"".join(name.encode() + data for name, data in sorted(files.items()))
        commit = hashlib.sha1(repository.encode() + content).hexdigest()
        self._commits[commit] = files
        names = self._revisions.setdefault(repository, {})
        names.update(dict.fromkeys((commit, *(revisions or ("main",))), commit))
        for data in files.values():
            self.blobs[hashlib.sha256(data).hexdigest()] = data
        return commit

    def find(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | str:
        """The commit and its files, or the code of the error that the hub answers with."""
        if repository not in self._revisions:
            return "RepoNotFound"
        if repository in self.gated:
            return "GatedRepo"
        commit = self._revisions[repository].get(revision)
        return "RevisionNotFound" if commit is None else (commit, self._commits[commit])

    def asked(self, method: str, part: str) -> int:
        """How many requests of a method there were for paths with `part`."""
        return sum(one == method and part in path for one, path, _ in self.requests)


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Runs the stand-in on a free port."""
    hub = Hub()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})
    )
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if self.hub.broken:
            self._send(500, {})
        elif match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            self._send_blob(self.hub.blobs[match[1]])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*match.groups())
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._tree(*match.groups())
        else:
            self._send(404, {"X-Error-Code": "NoSuchRoute"})

    def _resolve(self, repository: str, revision: str, file: str) -> None:
        found = self.hub.find(repository, revision)
        if isinstance(found, str):
            # The hub does not tell strangers a private repository from none.
            codes = {"RepoNotFound": 401, "GatedRepo": 403}
            self._send(codes.get(found, 404), {"X-Error-Code": found})
            return
        commit, files = found
        headers = {"X-Repo-Commit": commit}
        if file not in files:
            self._send(404, {**headers, "X-Error-Code": "EntryNotFound"})
            return
        content = files[file]
        if not file.endswith(_LARGE):
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            self._send(200, {**headers, "ETag": f'"{blob}"'}, content)
            return
        digest = hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        # By another name: what lies on the same host the client follows at once.
        place = f"{self.hub.endpoint.replace('127.0.0.1', 'localhost')}/lfs/{digest}"
        self._send(302, {**headers, **linked, "ETag": '"of the redirect"', "Location": place})

    def _tree(self, repository: str, revision: str) -> None:
        found = self.hub.find(repository, revision)
        if isinstance(found, str):
            self._send(404, {"X-Error-Code": found})
            return
        rows = [
            {"type": "file", "oid": "0" * 40, "size": len(content), "path": name}
            for name, content in found[1].items()
        ]
        self._send(200, {"Content-Type": "application/json"}, json.dumps(rows).encode())

    def _send_blob(self, content: bytes) -> None:
        headers, status = {"Accept-Ranges": "bytes"}, 200
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start, status = int(match[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        if self.command == "GET" and self.hub.cut > 0:
            self.hub.cut -= 1
            self._send(status, headers, content, cut=len(content) // 2)
            self.close_connection = True
            return
        self._send(status, headers, content)

    def _send(
        self, status: int, headers: dict[str, str], content: bytes = b"", cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:cut])
