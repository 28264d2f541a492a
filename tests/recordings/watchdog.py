"""Runs damaged_child.py over files; a crash or a hang costs the child and is counted."""

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
START = 60.0  # s for a child to import what it needs, on a busy machine


def outcomes(paths, *, limit):
    """Say what became of each file: read, refused, error, wrong, crash or hang."""
    left, results = [str(path) for path in paths], []
    while left:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.recordings.damaged_child", *left],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        lines: queue.Queue = queue.Queue()
        thread = threading.Thread(target=_pump, args=(child.stdout, lines))
        thread.start()
        patience, end = START, None
        while left:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                end = "hang"
                break
            if line is None:
                end = "crash"
                break
            results.append(json.loads(line))
            left.pop(0)
            patience = limit
        child.kill()
        child.wait()
        thread.join()
        child.stdout.close()
        if left:
            assert results or end != "hang", "the child did not even start in time"
            results.append({"path": left.pop(0), "outcome": end, "text": "", "peak": 0})
    return results


def _pump(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put(None)
