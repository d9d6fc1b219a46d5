"""Plot transfer rates by layout and message size, as Figure 11 of the CUG 2019 paper does.

``python experiments/bench/plot_transfer.py docs/results/transfer.json`` plots the measurements of ``transfer.py`` in
``transfer-rates.svg``, in the same folder. The paper shows three layouts; this plot shows all fourteen. The curves over
the size group the layouts into four families, by the part of a row-major matrix that a worker gets: whole rows, pieces
of rows, tiles, or everything. Each family has a line for its median and a band from its slowest to its fastest layout.
At the largest size every layout has its own bars.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

FAMILIES = {
    "rows dealt": ("MC_STAR", "MR_STAR", "VC_STAR", "VR_STAR", "MD_STAR"),
    "columns dealt": ("STAR_MC", "STAR_MR", "STAR_VC", "STAR_VR", "STAR_MD"),
    "both dealt": ("MC_MR", "MR_MC"),
    "neither dealt": ("STAR_STAR", "CIRC_CIRC"),
}
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple")
TRANSPORTS = {"auto": "shared memory", "tcp": "TCP"}
BLOCKS = {"default": "default block", "1": "block size 1"}
DIRECTIONS = ("send", "fetch")

Curves = dict[str, list[float]]
"""Rates by size, in GB/s, by layout."""


def plot(measured: dict[str, Any], path: Path) -> None:
    """Plot the rates of a sweep (see ``transfer_sweep.py``) in an SVG file."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "alchemist", "svg.fonttype": "none", "xtick.minor.visible": False}
    from matplotlib import pyplot as plt

    columns = [(transport, block) for transport in TRANSPORTS for block in BLOCKS]
    figure, panels = plt.subplots(3, len(columns), figsize=(16, 11), layout="constrained")
    for column, (transport, block) in enumerate(columns):
        where = f"{TRANSPORTS[transport]}, {BLOCKS[block]}"
        for row, direction in enumerate(DIRECTIONS):
            _draw_by_size(panels[row][column], measured, _curves(measured, transport, block, direction))
            panels[row][column].set_title(f"{direction}, {where}", fontsize=10)
        _draw_largest(panels[2][column], measured, transport, block)
        panels[2][column].set_title(f"{_size(measured['bytes'][-1])}, {where}", fontsize=10)
    _share_axes(panels)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=10, frameon=False)
    figure.suptitle(f"Transfer rates by layout and size, float64 ({measured['machine']})", fontsize=12)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _curves(measured: dict[str, Any], transport: str, block: str, direction: str) -> Curves:
    which = {"transport": transport, "block": block, "direction": direction}
    return {
        curve["pair"]: curve["rates"]
        for curve in measured["curves"]
        if all(curve[name] == value for name, value in which.items())
    }


def _draw_by_size(panel: Any, measured: dict[str, Any], curves: Curves) -> None:
    """Plot the rates of the families and of the two baselines over the size."""
    sizes = measured["bytes"]
    panel.plot(sizes, measured["copy"], color="black", linestyle="--", linewidth=1, label="np.copyto, 1 thread")
    panel.plot(sizes, measured["socket"], color="black", linestyle=":", linewidth=1.5, label="raw socket, 1 stream")
    for (name, pairs), colour in zip(FAMILIES.items(), COLOURS, strict=True):
        family = list(zip(*(curves[pair] for pair in pairs), strict=True))
        slowest, fastest = [min(rates) for rates in family], [max(rates) for rates in family]
        panel.plot(sizes, [statistics.median(rates) for rates in family], color=colour, marker=".", label=name)
        panel.fill_between(sizes, slowest, fastest, color=colour, alpha=0.2, linewidth=0)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(sizes, [_size(nbytes) for nbytes in sizes], fontsize=8)
    panel.minorticks_off()
    panel.grid(visible=True, alpha=0.3)


def _draw_largest(panel: Any, measured: dict[str, Any], transport: str, block: str) -> None:
    """Plot the largest size: for each layout a bar for sending and one for fetching, and the two baselines."""
    pairs = [pair for family in FAMILIES.values() for pair in family]
    colours = [colour for family, colour in zip(FAMILIES.values(), COLOURS, strict=True) for _ in family]
    for offset, direction, alpha in ((-0.2, "send", 1.0), (0.2, "fetch", 0.5)):
        curves = _curves(measured, transport, block, direction)
        places = [place + offset for place in range(len(pairs))]
        panel.bar(places, [curves[pair][-1] for pair in pairs], 0.4, color=colours, alpha=alpha)
    panel.axhline(measured["copy"][-1], color="black", linestyle="--", linewidth=1)
    panel.axhline(measured["socket"][-1], color="black", linestyle=":", linewidth=1.5)
    panel.set_xticks(range(len(pairs)), pairs, rotation=90, fontsize=8)
    panel.set_xlabel("left bar: send, right bar: fetch", fontsize=9)
    panel.grid(visible=True, axis="y", alpha=0.3)


def _share_axes(panels: Any) -> None:
    """Give panels of the same kind the same range of rates, and label it once in each row."""
    for rows in (panels[:2], panels[2:]):
        limits = [panel.get_ylim() for panel in rows.flat]
        for panel in rows.flat:
            panel.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for row in panels:
        row[0].set_ylabel("GB/s")


def _size(nbytes: int) -> str:
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if round(nbytes / limit, 1) >= 1:
            return f"{nbytes / limit:.0f} {unit}"
    return f"{nbytes} B"


def main() -> None:
    """Plot the measurements of a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", type=Path, help="the transfer.json that transfer.py wrote")
    arguments = parser.parse_args()
    plot(json.loads(arguments.measured.read_text()), arguments.measured.with_name("transfer-rates.svg"))


if __name__ == "__main__":
    main()
