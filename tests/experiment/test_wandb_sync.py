"""`make wandb-sync`, with the real `wandb sync` and a minimal W&B server.

The server receives what the project would show: the history by W&B's own steps.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from diffhash.experiment.run import run
from diffhash.results.wandb_files import unsent_parts

SCRIPT = "scripts/wandb_sync.py"


class Server(ThreadingHTTPServer):
    """A server that keeps the history and the summary of each run that is sent to it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.summary: dict[str, dict[str, Any]] = {}

    def handle_error(self, *_: Any) -> None:  # W&B hangs up when it has what it wants
        pass

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        name = variables.get("name", "")
        rows = self.history.get(name)
        project = {"id": "p", "name": "diffhash", "entity": {"id": "e", "name": "me"}}
        if "RunResumeStatus" in query:
            bucket = {
                "id": name,
                "name": name,
                "summaryMetrics": json.dumps(self.summary.get(name, {})),
                "historyLineCount": len(rows or []),
                "historyTail": json.dumps([json.dumps(row) for row in (rows or [])[-1:]]),
                **{"logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "config": "{}"},
                **{"displayName": name, "tags": [], "wandbConfig": '{"t":1}'},
            }
            return {"model": None if rows is None else project | {"bucket": bucket}}
        if "UpsertBucket" in query:
            bucket = {"id": name, "name": name, "displayName": name, "project": project}
            self.history.setdefault(name, [])
            return {"upsertBucket": {"bucket": bucket, "inserted": rows is None}}
        if "CreateRunFiles" in query:
            files = [{"name": f, "uploadUrl": f"{self.url}/{f}"} for f in variables["files"]]
            return {"createRunFiles": {"runID": name, "uploadHeaders": [], "files": files}}
        return None

    def stream(self, name: str, files: dict[str, Any]) -> None:
        if sent := files.get("wandb-history.jsonl"):
            rows = self.history[name]
            lines = [json.loads(line) for line in sent["content"]]
            rows[sent["offset"] : sent["offset"] + len(lines)] = lines
        if sent := files.get("wandb-summary.json"):
            self.summary[name] = json.loads(sent["content"][-1])


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            body = json.loads(content)
            data = self.server.answer(body["query"], body.get("variables", {}))
            answer = {"data": data} if data else {"errors": [{"message": "not here"}]}
        elif self.path.endswith("/file_stream"):
            name = self.path.split("/")[-2]
            self.server.stream(name, json.loads(content).get("files") or {})
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_PUT = do_POST  # noqa: N815


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def sync(
    command_line: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """``sync(runs, **variables)``: run the script with a home directory without an account."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("WANDB_MODE", "offline")  # the Makefile's

    def call(runs: Path, **variables: str) -> Any:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return command_line(SCRIPT, "--runs", str(runs))

    return call


def wait_for_the_next_second() -> None:
    """Wait, because W&B names the parts of a run by seconds."""
    time.sleep(1.05 - time.time() % 1)


def test_parts_of_a_resumed_run_become_one(
    tiny_config: Callable[..., Any],
    sync: Callable[..., Any],
    server: Server,
    tmp_path: Path,
) -> None:
    def logged(name: str, *overrides: str) -> Path:
        cfg = tiny_config(
            "task=data", "logger=wandb", f"run_dir={tmp_path}/runs/{name}", *overrides
        )
        return run(cfg)[0][0]

    same = logged("same")
    wait_for_the_next_second()
    logged("same", f"ckpt_path={same}/checkpoint.ckpt", "trainer.epochs=10")  # replaces its record
    logged("other", f"ckpt_path={same}/checkpoint.ckpt", "trainer.epochs=12")
    logged("alone", "seed=1")
    (tmp_path / "runs" / "alone").rename(tmp_path / "runs" / "alone.partial")  # it is going on
    assert len(unsent_parts(tmp_path / "runs")) == 3

    done = sync(tmp_path / "runs", WANDB_BASE_URL=server.url, WANDB_API_KEY="0" * 40)
    assert done.code == 0, done.err
    assert done.out == "3 sent\n"
    [(name, rows)] = server.history.items()
    evaluations = [row for row in rows if "history/loss" in row]
    assert [row["epoch"] for row in evaluations] == [2, 4, 6, 8, 10, 12]
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    assert server.summary[name]["status"] == "completed"
    assert server.summary[name]["epochs"] == 12

    again = sync(tmp_path / "runs", WANDB_BASE_URL=server.url, WANDB_API_KEY="0" * 40)
    assert again.code == 0
    assert again.out.startswith("nothing to send in ")


def test_without_an_account(
    tiny_config: Callable[..., Any],
    sync: Callable[..., Any],
    tmp_path: Path,
) -> None:
    assert sync(tmp_path / "missing").out.startswith("nothing to send in ")
    run(tiny_config("task=data", "logger=wandb", f"run_dir={tmp_path}/runs/one"))
    done = sync(tmp_path / "runs")
    assert done.code == 1
    assert "error: 1 of 1 not sent; `wandb login`?" in done.err
    assert len(unsent_parts(tmp_path / "runs")) == 1
