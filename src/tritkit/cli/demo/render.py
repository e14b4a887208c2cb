"""The demonstration's facts as tables."""

from __future__ import annotations

from rich.console import Console

from tritkit.cli.output import Facts, kilobytes, percent, say, table


def render(facts: Facts, console: Console) -> None:
    """Print all tables, the file's place and the next command."""
    console.print(_networks(facts))
    console.print()
    console.print(_equality(facts))
    console.print()
    console.print(_speed(facts))
    memory = facts["peak_memory_bytes"]
    used = f", {memory / 1e9:.2f} GB of memory at most" if memory else ""
    say(console, f"\nAll of it measured now: {facts['seconds']:.0f} s{used}.")
    say(console, f"The network without training lies in {facts['files']['post_training']}")
    say(console, f"The trained one ships with tritkit:   {facts['files']['trained']}")
    say(console, f"\nNext: {facts['next']}")


def _networks(facts: Facts) -> object:
    whole = any(row["error_test"] is not None for row in facts["networks"])
    columns = ["network", "error, sample", "error, test set", "size", "not zero"]
    float_bytes = facts["networks"][0]["bytes"]
    rows = []
    for row in facts["networks"]:
        size = f"{kilobytes(row['bytes'])} ({float_bytes / row['bytes']:.0f}×)"
        rows.append(
            [row["network"], percent(row["error_sample"]), percent(row["error_test"], 2), size, percent(row["density"])]
        )
    if not whole:  # CIFAR-10 is not on this machine
        columns.pop(2)
        rows = [[*row[:2], *row[3:]] for row in rows]
    return table(columns, rows, title=f"ResNet-20 on CIFAR-10 (sample: {facts['sample_images']:,} test images)")


def _equality(facts: Facts) -> object:
    """One line an engine, one column a network."""
    found = {(row["engine"], row["network"]): row for row in facts["equality"]}
    networks = list(dict.fromkeys(row["network"] for row in facts["equality"]))
    rows = []
    for engine in dict.fromkeys(row["engine"] for row in facts["equality"]):
        line = [found.get((engine, network)) for network in networks]
        images = max(row["images"] for row in line if row)
        rows.append([engine, images, *(row["same_bits"] if row else None for row in line)])
    return table(["engine", "images", *networks], rows, title="The same bits?")


def _speed(facts: Facts) -> object:
    batches = list(facts["speed"][0]["ms_per_image"])
    rows = []
    for row in facts["speed"]:
        times = [f"{row['ms_per_image'][batch]:.3f}" for batch in batches]
        rows.append([row["engine"], row["threads"], *times])
    columns = ["engine", "threads", *(f"batch {batch}" for batch in batches)]
    return table(columns, rows, title="Milliseconds a picture")
