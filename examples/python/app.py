#!/usr/bin/env python3
"""A Python web server under systemd's socket activation: no framework, no change for dogwatch."""
import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # an idle connection is closed after so many seconds, also when the server is to end
    wbufsize = -1  # the answer goes out in one piece

    def address_string(self):  # a client on a unix socket has no address
        return self.client_address[0] if self.client_address else "unix"

    def do_GET(self):
        body = f"hello from pid {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if stopping.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = False  # a request that is being answered is finished before the process ends

    def __init__(self):
        super().__init__(("", 0), Hello, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=3)  # the first socket that systemd, or dogwatch, passes


# Waited for, not handled: a handler may run in the middle of starting a request's thread, and starting another one
# there would wait for itself for ever. The signals are blocked before the first thread starts; all inherit that.
stop_signals = {signal.SIGTERM, signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
stopping = threading.Event()
server = Server()
threading.Thread(target=server.serve_forever).start()
signal.sigwait(stop_signals)
stopping.set()
server.shutdown()
server.server_close()
