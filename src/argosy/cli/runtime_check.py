"""`argosy runtime-check`: what a runtime and this kernel would say to a bundle."""

from __future__ import annotations

import dataclasses

import click

from argosy.bundle.check import check_bundle
from argosy.cli.failure import printable
from argosy.cli.options import json_option
from argosy.cli.output import document


@click.command()
@click.argument("bundle", type=click.Path(file_okay=False), default=".")
@click.option("--strict", is_flag=True, help="Fail for what is ignored or doubtful, too.")
@json_option
def command(bundle: str, strict: bool, as_json: bool) -> None:
    """Check a bundle against the runtime-spec and this kernel: what would be refused or ignored, and why.

    Nothing is started. Exit code 1 means that a runtime must refuse the bundle here.

    \b
    Examples:
      argosy runtime-check
      argosy runtime-check --strict /run/bundles/web
    """
    findings = check_bundle(bundle)
    if as_json:
        document([dataclasses.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(printable(f"{finding} ({finding.source})"))
    if (strict and findings) or any(finding.verdict == "refused" for finding in findings):
        raise click.exceptions.Exit(1)
