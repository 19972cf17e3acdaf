"""A server that answers wandb's SDK as far as runs, artifacts and sweeps need it.

It keeps what was sent, so that a test can compare it with a run's rows.
"""

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

KEY = "0123456789abcdef0123456789abcdef01234567"  # of the form that wandb accepts


class Run:
    """One run at the server."""

    def __init__(self, name):
        self.name = name
        self.fields = {}  # those of UpsertBucket that were given
        self.files = {}  # name -> lines, of files that grow
        self.num_inserts = 1
        self.exit_code = None

    def lines(self, name):
        return [json.loads(line) for line in self.files.get(name, [])]

    @property
    def history(self):
        return self.lines("wandb-history.jsonl")

    @property
    def summary(self):
        return self.lines("wandb-summary.json")[-1]

    @property
    def config(self):
        config = json.loads(self.fields["config"])
        return {key: value["value"] for key, value in config.items()}


class WandbServer:
    """A server on a free port of this machine, in a thread, as a context manager.

    Args:
        sweep_config: the configuration of the sweep that `wandb agent` asks for.
        trials: the parameters of its runs; then the agent gets the command to end.
    """

    def __init__(self, sweep_config="", trials=()):
        self.runs = {}
        self.artifacts = []  # the input of each CreateArtifact
        self.uploads = {}  # path -> bytes
        self.unknown = []
        self.is_down = False
        self.sweep_config, self.trials = sweep_config, list(trials)
        self.ids = count(1)
        self.lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def log_message(handler, *_):
                pass

            def answer(handler):
                data = handler.rfile.read(int(handler.headers.get("content-length") or 0))
                if handler.headers.get("content-encoding") == "gzip":
                    data = gzip.decompress(data)
                with self.lock:
                    code, reply = self.reply(handler.path, data)
                text = json.dumps(reply).encode()
                handler.send_response(code)
                handler.send_header("content-type", "application/json")
                handler.send_header("content-length", str(len(text)))
                handler.end_headers()
                handler.wfile.write(text)

            do_GET = do_POST = do_PUT = answer

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    @property
    def environment(self):
        """The variables with which wandb uses this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def reply(self, path, data):
        if self.is_down:
            return 400, {"error": "the server is down"}  # a code that is not tried again
        if path == "/graphql":
            query = json.loads(data)
            name = query.get("operationName") or re.search(r"\w+ (\w+)", query["query"])[1]
            answer = getattr(self, f"on_{name}", None)
            if answer is None:
                self.unknown.append(name)
                return 200, {"data": {}}
            return 200, {"data": answer(query.get("variables") or {})}
        if match := re.fullmatch(r"/files/(?:.*/)?([^/]+)/file_stream", path):
            return 200, self.on_file_stream(self.runs[match[1]], json.loads(data))
        if path.startswith("/upload/"):
            self.uploads[path] = data
        return 200, {}

    def on_file_stream(self, run, sent):
        for name, chunk in (sent.get("files") or {}).items():
            lines = run.files.setdefault(name, [])
            start, content = chunk.get("offset", 0), chunk["content"]
            lines[start : start + len(content)] = content  # as wandb: lines are kept by number
        if sent.get("complete"):
            run.exit_code = sent["exitcode"]
        return {"limits": {}}

    def on_Viewer(self, _):
        return {
            "viewer": {
                "id": "u",
                "entity": "team",
                "username": "u",
                "email": "u@example.com",
                "flags": "{}",
                "teams": {"edges": []},
            }
        }

    def bucket(self, run):
        return {
            "id": run.name,
            "name": run.name,
            "displayName": run.fields.get("displayName"),
            "config": run.fields.get("config"),
            "sweepName": run.fields.get("sweep"),
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps(run.files.get("wandb-history.jsonl", [])[-1:]),
            "eventsTail": "[]",
            "tags": [],
            "notes": None,
            "wandbConfig": '{"t": 1}',
            "summaryMetrics": json.dumps(run.summary if run.history else {}),
            "project": {
                "id": "p",
                "name": run.fields.get("project"),
                "entity": {"id": "e", "name": "team"},
            },
        }

    def on_RunResumeStatus(self, variables):
        run = self.runs.get(variables["name"])
        entity = {"id": "e", "name": "team"}
        found = None if run is None else self.bucket(run)
        return {"model": {"id": "p", "name": "p", "entity": entity, "bucket": found}}

    def on_UpsertBucket(self, variables):
        is_new = variables["name"] not in self.runs
        run = self.runs.setdefault(variables["name"], Run(variables["name"]))
        run.fields |= {key: value for key, value in variables.items() if value is not None}
        return {"upsertBucket": {"bucket": self.bucket(run), "inserted": is_new}}

    def on_OrganizationCoreWeaveOrganizationID(self, _):
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def on_CreateRunFiles(self, variables):
        run = variables["run"]
        files = [
            {"name": f, "uploadUrl": f"{self.url}/upload/{run}/{f}"} for f in variables["files"]
        ]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def on_ArtifactType(self, variables):
        name = variables["name"].partition(":")[0]
        kinds = [
            a["artifactTypeName"] for a in self.artifacts if a["artifactCollectionName"] == name
        ]
        found = {"artifactType": {"name": kinds[0]}} if kinds else None
        return {"project": {"artifact": found}}

    def on_CreateArtifact(self, variables):
        self.artifacts.append(variables["input"])
        number = str(next(self.ids))
        artifact = {
            "id": number,
            "state": "PENDING",
            "artifactSequence": {"id": number, "latestArtifact": None},
        }
        return {"createArtifact": {"artifact": artifact}}

    def on_CreateArtifactManifest(self, _):
        number = str(next(self.ids))
        file = {"uploadUrl": f"{self.url}/upload/manifest/{number}", "uploadHeaders": []}
        manifest = {"id": number, "file": {"id": number, "name": "m", "displayName": "m", **file}}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def on_CreateArtifactFiles(self, variables):
        nodes = []
        for spec in variables["input"]["artifactFiles"]:
            number = str(next(self.ids))
            url = f"{self.url}/upload/artifact/{number}/{spec['name']}"
            nodes.append(
                {
                    "node": {
                        "id": number,
                        "name": spec["name"],
                        "displayName": spec["name"],
                        "uploadUrl": url,
                        "uploadHeaders": [],
                        "storagePath": number,
                        "uploadMultipartUrls": None,
                        "artifact": {"id": number},
                    }
                }
            )
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def on_CommitArtifact(self, variables):
        artifact = {"id": variables["artifactID"], "digest": "d"}
        return {"commitArtifact": {"artifact": artifact}}

    def on_SweepWithRuns(self, variables):
        sweep = {
            "id": "s",
            "name": variables["sweep"],
            "method": "grid",
            "state": "RUNNING",
            "config": self.sweep_config,
            "runs": {"edges": []},
        }
        return {"project": {"sweep": sweep}}

    def on_CreateAgent(self, _):
        return {"createAgent": {"agent": {"id": "agent"}}}

    def on_Heartbeat(self, variables):
        commands = []
        if not json.loads(variables["runState"]):  # the agent runs nothing now
            commands.append({"type": "exit"})
            if self.trials:
                number = next(self.ids)
                args = {key: {"value": value} for key, value in self.trials.pop(0).items()}
                commands = [
                    {
                        "type": "run",
                        "run_id": f"trial{number}",
                        "args": args,
                        "program": "treeshare",
                    }
                ]
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}
