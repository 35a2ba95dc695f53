"""`argosy size`: how large an image is, and how much of it is wasted."""

from __future__ import annotations

import importlib

import click

from argosy.cli import files, making
from argosy.cli.failure import printable
from argosy.cli.options import FILE, json_option, place_argument, platform_option
from argosy.cli.output import document, size, table
from argosy.errors import InvalidConfigError, UsageError
from argosy.image.efficiency import Report, Rules, report
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@click.option("--ci", is_flag=True, help="Exit with 1 where a rule is broken; dive's defaults.")
@click.option(
    "--ci-config",
    metavar="FILE",
    type=FILE,
    help="Rules in a file like .dive-ci.",
)
@click.option("--lowestEfficiency", "lowest", metavar="0..1", help="A rule: the least efficiency.")
@click.option(
    "--highestWastedBytes",
    "wasted",
    metavar="SIZE",
    help="A rule: the most wasted bytes, such as 20MB.",
)
@click.option(
    "--highestUserWastedPercent",
    "user",
    metavar="0..1",
    help="A rule: the same, as a part of what stands above the lowest layer.",
)
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="How many of the worst paths to show.",
)
@json_option
@platform_option
def command(
    place: Location,
    ci: bool,
    ci_config: str | None,
    lowest: str | None,
    wasted: str | None,
    user: str | None,
    top: int,
    as_json: bool,
    platform: Platform | None,
) -> int:
    """Show an image's size layer by layer, and the bytes that upper layers hide.

    A byte is wasted when the file it belongs to is not in the image in the end. With rules, exits with 1 where one is
    broken. They have dive's names and defaults, and hold for these numbers. dive's may differ: of a file written again
    it counts every copy as wasted, and its efficiency takes what was in a removed directory for used.

    \b
    Examples:
      argosy size alpine:3.20
      argosy size oci:images:app --highestWastedBytes 20MB --lowestEfficiency 0.95
    """
    given = {
        "lowestEfficiency": lowest,
        "highestWastedBytes": wasted,
        "highestUserWastedPercent": user,
    }
    rules = _rules(ci, ci_config, {n: value for n, value in given.items() if value is not None})
    with making.one_image(place, platform) as image:
        found = report(image)
    broken = list(rules.broken(found))
    if as_json:
        document(_plain(found, broken, top))
    else:
        _print(found, broken, top)
    return 1 if broken else 0


_DIVE = {"lowestEfficiency": 0.9, "highestWastedBytes": "disabled", "highestUserWastedPercent": 0.1}


def _rules(ci: bool, path: str | None, given: dict[str, str]) -> Rules:
    rules: dict[str, object] = dict(_DIVE) if ci else {}
    try:
        Rules.parse(given)
    except InvalidConfigError as exc:  # which, typed, is no broken rule
        raise UsageError(f"--{exc}") from None
    if path is not None:
        rules |= _read(path)
    return Rules.parse(rules | given)


def _read(path: str) -> dict[str, object]:
    yaml = importlib.import_module("yaml")
    try:
        with files.opened(path) as file:
            document_ = yaml.safe_load(file.read(1 << 20))
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise InvalidConfigError(f"{path}: not YAML: {' '.join(str(exc).split())}") from None
    rules = document_.get("rules") if isinstance(document_, dict) else None
    if not isinstance(rules, dict):
        raise InvalidConfigError(f"{path}: expected an object with 'rules'")
    return {str(name): value for name, value in rules.items()}


def _print(found: Report, broken: list[str], top: int) -> None:
    table(
        [
            (
                layer.digest.encoded[:12],
                size(layer.stored),
                size(layer.uncompressed),
                size(layer.content),
                layer.entries,
            )
            for layer in found.layers
        ],
        ("LAYER", "STORED", "UNCOMPRESSED", "CONTENT", "ENTRIES"),
    )
    print()
    print(f"stored      {size(found.stored)}")
    print(f"content     {size(found.content)}")
    print(
        f"wasted      {size(found.wasted_bytes)} ({found.user_wasted_percent:.2%} of what is above the base)"
    )
    print(f"efficiency  {found.efficiency:.2%}")
    for wasted in found.wasted[:top]:
        print(
            f"  {size(wasted.size):>9}  {wasted.count} x  /{printable(wasted.path.decode(errors='replace'))}"
        )
    for rule in broken:
        print(f"broken: {rule}")


def _plain(found: Report, broken: list[str], top: int) -> dict[str, object]:
    return {
        "stored": found.stored,
        "content": found.content,
        "wastedBytes": found.wasted_bytes,
        "efficiency": found.efficiency,
        "userWastedPercent": found.user_wasted_percent,
        "layers": [
            {
                "digest": layer.digest,
                "stored": layer.stored,
                "uncompressed": layer.uncompressed,
                "content": layer.content,
                "entries": layer.entries,
            }
            for layer in found.layers
        ],
        "wasted": [
            {
                "path": "/" + wasted.path.decode(errors="replace"),
                "size": wasted.size,
                "count": wasted.count,
            }
            for wasted in found.wasted[:top]
        ],
        "broken": broken,
    }
