"""How far off the round-trip times are that members estimate, in a simulated cluster at three sites.

The distances are known, since the simulation makes them. Nothing here depends on this machine's speed but how long the
run takes.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks.common import percentile
from tests.membership.simulation.sites import BETWEEN_SECONDS, SITES, SpreadCluster

PLOT = Path(__file__).parent.parent / "docs" / "explanation" / "coordinates.svg"
LOOKS = (10, 20, 30, 60, 120, 180, 300, 600, 1200)
"""When it is looked at, in seconds after all know all."""


@frozen
class Found:
    """How far estimates are off at one time, in seconds: of pairs within a site, and of pairs between sites."""

    seconds: int
    within: list[float]
    between: list[float]


def look(spread: SpreadCluster) -> list[Found]:
    """Let time pass, and look at all pairs now and then."""
    found, began = [], spread.cluster.now
    for seconds in LOOKS:
        spread.cluster.run(began + seconds - spread.cluster.now)
        found.append(Found(seconds, spread.errors(within_sites=True), spread.errors(within_sites=False)))
    return found


def nearest_is_at_home(spread: SpreadCluster) -> float:
    """Return the share of nodes to which a node of their own site seems to be the nearest."""

    def nearest_to(name: str) -> str:
        others = (other for other in spread.places if other != name)
        return min(others, key=lambda other: spread.estimated_seconds(name, other))

    nearest = {name: nearest_to(name) for name in spread.places}
    return sum(spread.places[name].site == spread.places[other].site for name, other in nearest.items()) / len(nearest)


def report(spread: SpreadCluster, found: list[Found]) -> None:
    """Print the figures as a table."""
    print(f"\n{len(spread.places)} nodes at {len(SITES)} sites; estimates are off by (ms)")
    print("| After | Within a site: median | 90 % | Between sites: median | 90 % | largest |")
    print("|---:|---:|---:|---:|---:|---:|")
    for each in found:
        figures = (
            median(each.within), percentile(each.within, 0.9), median(each.between), percentile(each.between, 0.9),
            max(each.between),
        )  # fmt: skip
        print(f"| {each.seconds} s | " + " | ".join(f"{1000 * figure:.1f}" for figure in figures) + " |")
    print(f"\nthe nearest is one of the own site for {nearest_is_at_home(spread):.0%} of the nodes")
    for one, other in combinations(SITES, 2):
        true = BETWEEN_SECONDS[frozenset({one, other})]
        estimates = [
            spread.estimated_seconds(first, second)
            for first, second in combinations(spread.places, 2)
            if {spread.places[first].site, spread.places[second].site} == {one, other}
        ]
        print(
            f"{one} to {other}: {1000 * true:.0f} ms without what links add; estimated {1000 * median(estimates):.1f}"
        )


def plot(path: Path, spread: SpreadCluster, found: list[Found]) -> None:
    """Draw where the nodes say that they are, and how far estimates are off over time."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "coordinates"
    from matplotlib import pyplot

    vectors = np.array([node.core.vivaldi.coordinate.vec for node in spread.nodes]) * 1000
    centred = vectors - vectors.mean(axis=0)
    # The two directions in which they differ most (principal components).
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    flat = centred @ directions.T
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for site, marker in zip(SITES, "os^", strict=True):
        at = [number for number, node in enumerate(spread.nodes) if spread.places[node.name].site == site]
        left.scatter(flat[at, 0], flat[at, 1], marker=marker, label=site, alpha=0.7)
    left.set(xlabel="ms", ylabel="ms", title="Where the nodes say that they are")
    left.set_aspect("equal", adjustable="datalim")
    left.legend()
    seconds = [each.seconds for each in found]
    for label, errors in (
        ("within a site", [each.within for each in found]),
        ("between sites", [each.between for each in found]),
    ):
        (line,) = right.plot(seconds, [1000 * median(each) for each in errors], marker="o", label=f"{label}, median")
        right.plot(
            seconds, [1000 * percentile(each, 0.9) for each in errors],
            linestyle="--", color=line.get_color(), label=f"{label}, 90 %",
        )  # fmt: skip
    right.set(xscale="log", yscale="log", xlabel="s", ylabel="ms", title="By how much estimates are off")
    right.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Simulate, print the figures, and draw them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-each-site", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--plot", type=Path, nargs="?", const=PLOT, help=f"draw into a file (default: {PLOT.name} in docs)"
    )
    arguments = parser.parse_args()
    spread = SpreadCluster.form(arguments.seed, arguments.at_each_site, encoded=False)
    found = look(spread)
    report(spread, found)
    if arguments.plot is not None:
        plot(arguments.plot, spread, found)


if __name__ == "__main__":
    main()
