"""recorder.py NODE_URL FILE: a door to a node that writes down what comes through it, one JSON object a request: method,
path, headers, body, status, and the answer if it is an error. Keys are left out. Prints its own URL. For finding out what a client sends; answers pass as
they come, streams too. That a client has left is seen only once the node says something.
"""
import http.client
import json
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = {"authorization", "x-api-key"}
# They speak of one connection, not of the request.
HOP = {"connection", "keep-alive", "transfer-encoding"}
# Bytes passed on at a time, and seconds for a silent node: guesses.
CHUNK, SILENCE_S = 65536, 600


def read(body):
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode(errors="replace")


class Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def forward(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        node = http.client.HTTPConnection(self.server.node, timeout=SILENCE_S)
        node.request(self.command, self.path, body, headers)
        answer = node.getresponse()
        error = answer.read() if answer.status >= 400 else b""
        self.server.write(self, body, answer.status, error)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        # The end of the connection is the end of the answer: what the node chunks need not be chunked again.
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self.wfile.write(error)
            while piece := answer.read1(CHUNK):
                self.wfile.write(piece)
                self.wfile.flush()
        except OSError:
            # The client has left; so that the node learns of it:
            pass
        finally:
            node.close()

    do_GET = do_HEAD = do_POST = do_DELETE = do_OPTIONS = do_PUT = forward


class Recorder(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, node, file):
        super().__init__(("127.0.0.1", 0), Door)
        self.node = urllib.parse.urlsplit(node).netloc
        self.file = open(file, "a")

    def write(self, request, body, status, error):
        said, answer = read(body), read(error)
        headers = [[name, "…" if name.lower() in SECRET else value] for name, value in request.headers.items()]
        row = {"method": request.command, "path": request.path, "status": status, "headers": headers, "body": said, "answer": answer}
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.file.flush()


if __name__ == "__main__":
    recorder = Recorder(*sys.argv[1:])
    print(f"http://127.0.0.1:{recorder.server_port}", flush=True)
    try:
        recorder.serve_forever()
    except KeyboardInterrupt:
        pass
