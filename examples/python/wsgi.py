"""WSGI. 'app' could be Flask's, or that of Django's wsgi.py."""
import os


def app(environ, start_response):
    body = f"pid {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
