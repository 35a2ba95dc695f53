"""The option of the commands that unpack layers."""

from __future__ import annotations

import click

from argosy.layer.entry import Limits

max_ratio_option = click.option(
    "--max-ratio",
    metavar="N",
    type=click.IntRange(1),
    default=Limits().ratio,
    show_default=True,
    help="Refuse a layer, beyond its first GiB, that becomes more than N times as large.",
)
