"""The servers of Netron and Model Explorer, for the benchmark `peers`; runs in the Python that has them.

`python -m tests.benchmarks.peer_servers FOLDER` exports ResNet-50 into the folder, starts the servers, prints
their addresses as one line of JSON, and then answers each line on its standard input with one line of JSON:
`export` and `convert` with the seconds that each took, in its second run or later.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Serve until the standard input ends."""
    import model_explorer
    import netron
    import torch

    from tests.benchmarks.models import resnet50

    answers, sys.stdout = sys.stdout, sys.stderr  # both print of their own accord
    model, x = resnet50(), torch.randn(1, 3, 224, 224)
    path = folder / "resnet50.pt2"

    def export() -> Any:
        program = torch.export.export(model, (x,))
        torch.export.save(program, path)
        return program

    def convert() -> Any:
        return model_explorer.config().add_model_from_pytorch("resnet50", torch.export.export(model, (x,)))

    export()
    config = convert()
    port = free_port()
    arguments = {"host": "localhost", "port": port, "config": config, "no_open_in_browser": True}
    threading.Thread(target=model_explorer.visualize_from_config, kwargs=arguments, daemon=True).start()
    started = {
        "netron": url(netron.start(str(path), address=("localhost", free_port()), browse=False)),
        "model explorer": f"http://localhost:{port}/?data={config.to_url_param_value()}",
        "file": str(path),
    }
    wait_for(port)
    print(json.dumps(started), file=answers, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        {"export": export, "convert": convert}[line.strip()]()
        print(json.dumps(time.perf_counter() - start), file=answers, flush=True)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def url(address: tuple[str, int]) -> str:
    return f"http://{address[0]}:{address[1]}/"


def wait_for(port: int) -> None:
    """Wait until somebody listens there."""
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("Model Explorer did not start within a minute")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
