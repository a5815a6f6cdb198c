"""In: a folder, a log and a list of mishaps. Out: a real HTTP server that knows Range and has those mishaps.

Run as a process: ``python file_server.py <folder> <log> <mishap,...>``; it prints its port. Mishap k befalls request k:
``ok``, ``break`` (the connection ends half-way), ``busy`` (503), ``whole`` (Range is ignored), ``wrong`` (other bytes).
"""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import unquote


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        mishap = self.server.mishaps.pop(0) if self.server.mishaps else "ok"
        path, wanted = self.server.folder / unquote(self.path.lstrip("/")), self.headers.get("Range")
        with self.server.log.open("a") as log:
            log.write(f"{self.path} {wanted or '-'} {mishap}\n")
        if mishap == "busy" or not path.is_file():
            self.send_error(503 if mishap == "busy" else 404)
            return
        content = path.read_bytes()
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and mishap != "whole" else 0
        if start > len(content):
            self.send_error(416)
            return
        body = content[start:]
        if mishap == "wrong":
            body = bytes(len(body))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if mishap == "break" else body)

    def log_message(self, format, *args):
        pass


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.log, server.mishaps = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(",")
    print(server.server_port, flush=True)
    server.serve_forever()
