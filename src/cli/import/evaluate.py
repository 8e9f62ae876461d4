# Evaluates a gunicorn.conf.py as gunicorn does, and writes what it holds to standard input, which is a socket: whatever the
# file prints cannot come between. One line of JSON: {"value": {...}} or {"error": "..."}.
import importlib.machinery
import importlib.util
import json
import math
import os
import sys
import traceback
import types

path = sys.argv[1]


def plain(value, depth=0):
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else str(int(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth > 20:
        return {"not data: ": "a circle"}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(value):
        return {"not data: ": "a function"}
    return {"not data: ": "a " + type(value).__name__}


def load():
    # gunicorn reads it where it is started, and finds the app's modules there.
    os.chdir(os.path.dirname(path))
    sys.path[0] = os.getcwd()
    sys.argv = ["gunicorn"]
    loader = importlib.machinery.SourceFileLoader("__config__", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("__config__", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    named = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name: plain(value) for name, value in named.items() if not isinstance(value, types.ModuleType)}


def say(error):
    text = "{}: {}".format(type(error).__name__, error).splitlines()[0]
    if isinstance(error, SyntaxError):
        return "line {}: SyntaxError: {}".format(error.lineno, error.msg)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return "line {}: {}".format(lines[-1], text) if lines else text


try:
    answer = json.dumps({"value": load()})
except BaseException as error:
    answer = json.dumps({"error": say(error)})
data = (answer + "\n").encode()
os.set_blocking(0, True)
while data:
    data = data[os.write(0, data):]
os._exit(0)
