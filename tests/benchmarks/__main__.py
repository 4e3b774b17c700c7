"""`python -m tests.benchmarks [name ...]`: run all benchmarks, or those named, and write their figures.

Figures go to `tests/benchmarks/results/<name>.json`. `--rounds N` asks for more or fewer rounds than each
benchmark thinks right. Nothing here passes or fails on a time.
"""

from __future__ import annotations

import argparse
import importlib

NAMES = {
    "trace": "recording one forward pass against a bare one",
    "saliency": "the saliency of a clicked unit against bare autograd and against Captum",
    "click": "a click until its maps are painted, in JupyterLab, against a raw message and matplotlib",
    "busy": "clicks while a cell computes, and how fast a cancel takes effect",
    "first_picture": "from explore() to a painted graph",
    "graph": "the graph in the page: layout, opening, dragging, 10,000 operations",
    "peers": "from a model to its painted graph, beside torchview, torchvista, Netron and Model Explorer",
    "paint": "a frame while painting against the model's own forward, and the rate in the page",
    "hands_on": "an intervention to its bars, knock-outs and patches against plain loops of hooked forwards",
    "attribution": "paths, occlusion, surrogates and Jacobians against Captum at its defaults and its best",
    "judging": "five maps in one pass, torchcam, Quantus, first partial results and how soon a stream ends",
    "replay": "occlusion, interventions, knock-outs and strokes, recomputing only what changed",
    "gpu": "trace, tiles, saliency, explanations and replay on a CUDA device against bare passes",
}


def main() -> None:
    """Run what the command line asks for."""
    listing = "\n".join(f"  {name:<14} {text}" for name, text in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=f"Measure the product beside its floor or its peer.\n\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="which benchmarks; all when none is named")
    parser.add_argument("--rounds", type=int, help="rounds of each case")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in arguments.names or NAMES:
        print(f"{name}: {NAMES[name]}", flush=True)
        report = importlib.import_module(f"tests.benchmarks.{name}").run(rounds=arguments.rounds)
        if report is not None:
            print(f"  -> {report.write()}\n", flush=True)


if __name__ == "__main__":
    main()
