import click

from htcgrid import plugins


@click.command()
def command() -> None:
    """List the compute planes, task sources, result sinks and observers that are installed."""
    rows = [(p.kind, p.name, f"{p.distribution} {p.version}", p.value) for p in plugins.installed()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]))
