"""A small Hub on the loopback address: enough of its protocol for `create_repo` and commits by the real client.

The client must run with `HF_ENDPOINT` at this server and `HF_HUB_DISABLE_XET=1`.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_test"
LFS_SUFFIXES = (".safetensors", ".parquet")
REPO = r"/api/(?P<kind>model|dataset|space)s/(?P<repo>[^/]+/[^/]+)"


class HubServer(ThreadingHTTPServer):
    """
    Keeps repositories in memory.

    Attributes:
        repos (`dict[tuple[str, str], dict[str, dict[str, bytes]]]`):
            (`"model"`, `"dataset"` or `"space"`; repo id) to branch to path to content.
        requests (`list[tuple[str, str]]`):
            Method and path of every request, in order.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos = {}
        self.requests = []
        self.large_files = {}
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Address for `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self._body()
        path = self._path()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._reply(401, {"error": "Invalid credentials in Authorization header"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body))
        if match := re.fullmatch(rf"{REPO}/(?P<action>preupload|commit|branch)/(?P<revision>.+)", path):
            repo = self.server.repos.get((match["kind"], match["repo"]))
            if repo is None:
                return self._reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return getattr(self, f"_{match['action']}")(match, repo, body)
        if re.fullmatch(r"(/datasets|/spaces)?/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            return self._lfs_batch(json.loads(body))
        return self._reply(404, {"error": f"No such address: {path}"})

    def do_PUT(self):
        content = self._body()
        self._path()
        with self.server.lock:
            self.server.large_files[hashlib.sha256(content).hexdigest()] = content
        self._reply(200, {})

    def do_GET(self):
        match = re.match(REPO, self._path())
        if match is None or (match["kind"], match["repo"]) not in self.server.repos:
            return self._reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        self._reply(200, {"id": match["repo"], "sha": "0" * 40, "siblings": []})

    def log_message(self, *arguments):
        """Keeps the tests' output clean."""

    def _create(self, request):
        kind, repo_id = request.get("type", "model"), f"{request['organization']}/{request['name']}"
        url = {"url": f"{self.server.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"}
        with self.server.lock:
            if (kind, repo_id) in self.server.repos:
                return self._reply(409, {"error": "You already created this repo", **url})
            self.server.repos[kind, repo_id] = {"main": {}}
        self._reply(200, url)

    def _validate(self, request):
        block = re.match(r"---\n(.*?)\n---\n", request["content"], re.DOTALL)
        if block is None or not isinstance(yaml.safe_load(block.group(1)), dict):
            return self._reply(400, {"errors": [{"message": "no metadata block"}], "warnings": []})
        self._reply(200, {"errors": [], "warnings": []})

    def _branch(self, match, repo, body):
        if match["revision"] in repo:
            return self._reply(409, {"error": "Reference already exists"})
        repo[match["revision"]] = dict(repo["main"])
        self._reply(200, {})

    def _preupload(self, match, repo, body):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        self._reply(200, {"files": files})

    def _lfs_batch(self, request):
        objects = [
            {
                "oid": file["oid"],
                "size": file["size"],
                "actions": {"upload": {"href": f"{self.server.endpoint}/lfs/{file['oid']}"}},
            }
            for file in request["objects"]
        ]
        self._reply(200, {"transfer": "basic", "objects": objects})

    def _commit(self, match, repo, body):
        operations = [json.loads(line) for line in body.splitlines()]
        branch = f"pr/{len(repo)}" if "create_pr=1" in self.path else match["revision"]
        files = dict(repo[match["revision"]])
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.server.large_files[value["oid"]]
        with self.server.lock:
            repo[branch] = files
        url = f"{self.server.endpoint}/{match['repo']}"
        self._reply(
            200,
            {
                "commitUrl": f"{url}/commit/{'0' * 40}",
                "commitOid": "0" * 40,
                "pullRequestUrl": f"{url}/discussions/1",
            },
        )

    def _path(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        return path

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _reply(self, status, answer, headers=None):
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
