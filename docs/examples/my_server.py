"""A verbalizer behind HTTP: the /describe route that `nlabench run --verbalizer http://…/describe` asks.

    python my_server.py PORT

It runs wherever your verbalizer runs. The standard library is enough, and nlabench need not be installed there.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def describe(vector: list[float], temperature: float, max_new_tokens: int) -> str:
    """The text for one vector. Call your model here; it is called from several threads at once."""
    largest = sorted(range(len(vector)), key=lambda i: -abs(vector[i]))[:3]
    return f"a vector that is largest at coordinates {', '.join(map(str, largest))}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = [describe(v, asked["temperature"], asked["max_new_tokens"]) for v in asked["activations"]]
        body = json.dumps({"results": [{"description": text} for text in texts]}).encode()
        self.send_response(200)  # 429 and 5xx are asked again, a few times; anything else counts as a failure
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of each of some hundred requests."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
