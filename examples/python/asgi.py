"""ASGI. 'app' could be FastAPI's or Starlette's, or that of Django's asgi.py."""
import os


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = f"pid {os.getpid()}\n".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
