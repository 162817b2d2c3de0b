"""A Hugging Face Hub small enough for tests: one commit per repository, large files redirected."""

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_tests"
"""Who may write."""

LARGE_BYTES = 10_000
"""Files from this size on are stored elsewhere, as the Hub does with large ones."""


@dataclass
class Repo:
    """Files by name, and how the server misbehaves."""

    files: dict[str, bytes]
    is_private: bool = False
    flips: int = 0
    """Downloads of large files that arrive with one byte flipped."""
    stalls: frozenset[str] = frozenset()
    """Large files that stop half-way and never end."""
    drops: int = 0
    """Downloads of large files that break off half-way of what was asked for."""
    status: int | None = None
    """Answer to everything, such as 500."""

    @property
    def commit(self):
        return hashlib.sha1(b"".join(self.files.values())).hexdigest()


@dataclass
class Hub:
    """The state of the server; `requests` lists what was asked for."""

    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)
    """Bytes of each large file that were sent."""
    port: int = 0

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.hub.requests.append(f"{self.command} {self.path}")
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "blob":
            return self._blob("/".join(parts[1:3]), parts[3])
        is_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        repo = self.hub.repos.get(name)
        if repo is not None and repo.status is not None:
            return self._send(repo.status, b"{}", {})
        if repo is None or repo.is_private:
            return self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        rest = parts[4:] if is_api else parts[2:]
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", repo.commit):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if is_api:
            return self._api(name, repo, rest[0] if rest else "revision")
        return self._resolve(name, repo, "/".join(rest[2:]))

    def do_POST(self):
        """What an upload asks for: a repository, how to send each file, and a commit of them."""
        self.hub.requests.append(f"POST {self.path}")
        lines = self.rfile.read(int(self.headers.get("Content-Length", 0))).splitlines()
        sent = [json.loads(line) for line in lines]
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "who are you"}, 401)
        if parts == ["api", "repos", "create"]:
            name = f"{sent[0]['organization']}/{sent[0]['name']}"
            self.hub.repos.setdefault(name, Repo({}))
            return self._answer({"url": f"{self.hub.endpoint}/{name}"})
        if parts == ["api", "validate-yaml"]:
            return self._answer({"errors": [], "warnings": []})
        name = "/".join(parts[2:4])
        if parts[4] == "preupload":
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for file in sent[0]["files"]]  # fmt: skip
            return self._answer({"files": modes})
        files = [line["value"] for line in sent if line["key"] == "file"]
        repo = self.hub.repos[name]
        repo.files |= {file["path"]: base64.b64decode(file["content"]) for file in files}
        url = f"{self.hub.endpoint}/{name}/commit/{repo.commit}"
        return self._answer({"commitUrl": url, "commitOid": repo.commit, "hookOutput": ""})

    def _answer(self, answer, status=200):
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _api(self, name, repo, kind):
        if kind == "tree":
            answer = [self._entry(path, data) for path, data in repo.files.items()]
        else:
            siblings = [{"rfilename": path} for path in repo.files]
            answer = {"id": name, "sha": repo.commit, "siblings": siblings, "private": False}
        return self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _entry(self, path, data):
        entry = {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
        if len(data) >= LARGE_BYTES:
            digest = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
        return entry

    def _resolve(self, name, repo, path):
        data = repo.files.get(path)
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        if len(data) < LARGE_BYTES:
            return self._send(200, data, headers)
        headers["X-Linked-ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        headers["X-Linked-Size"] = str(len(data))
        # another host name, as with the real store: the client reads the headers above first
        headers["Location"] = f"http://localhost:{self.hub.port}/blob/{name}/{path}"
        return self._send(302, b"", headers)

    def _blob(self, name, path):
        """A large file, or what is left of it from the first byte that `Range` asks for."""
        repo = self.hub.repos[name]
        data = repo.files[path]
        size, headers, status = len(data), {"Accept-Ranges": "bytes"}, 200
        if self.command == "GET" and repo.flips:
            repo.flips -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first, status = int(asked[1]), 206
            data = data[first:]
            headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
            self.hub.requests.append(f"RANGE {path} {first}")
        if self.command == "GET" and (repo.drops or path in repo.stalls):
            self._send(status, data[: len(data) // 2], headers, length=len(data))
            self.wfile.flush()
            self.hub.served[path] += len(data) // 2
            if path in repo.stalls:
                time.sleep(30)
            else:
                repo.drops -= 1
            self.close_connection = True
            return None
        if self.command == "GET":
            self.hub.served[path] += len(data)
        return self._send(status, data, headers)

    def _send(self, status, body, headers, *, length=None):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def running_hub():
    """A `Hub` that answers on this machine until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
