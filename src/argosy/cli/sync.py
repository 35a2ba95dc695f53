"""`argosy sync`: many images, the same in two places."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from typing import Any

import click

from argosy.cli import connections, failure, files, places, progress
from argosy.cli.options import (
    FILE,
    PLACE,
    jobs_option,
    keep_going_option,
    platforms_option,
    quiet_option,
    typed_place,
)
from argosy.cli.syncfile import MAX_FILE, read_jobs
from argosy.cli.syncing import Job, Step, as_names, own_tags, plan
from argosy.content.copy import Copying, Done
from argosy.content.events import OnEvent
from argosy.content.memory import MemoryStore
from argosy.content.protocols import Deleter, Source, Target
from argosy.content.workers import Workers
from argosy.errors import UnsupportedError, UsageError
from argosy.spec.digest import Digest


@connections.two_ended
@click.command()
@click.argument("named", nargs=-1, metavar="[SOURCE TARGET]", shell_complete=PLACE.shell_complete)
@click.option(
    "-f",
    "--file",
    metavar="FILE",
    type=FILE,
    help="Jobs, in YAML (skopeo's file is understood).",
)
@click.option(
    "--target",
    "base",
    metavar="PLACE",
    help="With --file: below it go jobs that do not say where, as NAME; of skopeo's file as NAME's last part.",
)
@click.option("--scoped", is_flag=True, help="With --target: as REGISTRY/NAME.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Only this tag; repeatable.")
@click.option(
    "--include", multiple=True, metavar="REGEX", help="Tags that match, whole; repeatable."
)
@click.option(
    "--exclude", multiple=True, metavar="REGEX", help="Not tags that match, whole; repeatable."
)
@click.option(
    "--semver", metavar="RANGE", help="Tags that are versions in a range, such as '>=1.2 <2'."
)
@click.option(
    "--newest", metavar="N", type=click.IntRange(1), help="Only so many versions, the newest."
)
@platforms_option
@click.option("-r", "--referrers", is_flag=True, help="Also what refers to them.")
@click.option(
    "--digest-tags",
    is_flag=True,
    help="Also tags like sha256-<hex>.sig; only then are these pruned.",
)
@click.option(
    "--prune",
    is_flag=True,
    help="Of the tags that the filters take, remove those of the target that the source does not have.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@keep_going_option
@jobs_option
@quiet_option
@progress.progress_option
def command(
    file: str | None, base: str | None, scoped: bool, named: tuple[str, ...], **given: Any
) -> int:
    """Keep tags of a repository the same in another place; or many, by a file.

    Only what differs is copied; the target's images are never pulled. Prints a line for what was done. Where tags are
    named one by one, also by SOURCE's own, --prune touches no other. Lists of referrers are no tags here: --referrers
    keeps them, and --prune leaves them alone.

    FILE is a list of jobs, such as `- {source: alpine, target: mirror.example/alpine, semver: ^3.18, prune: true}`. A
    job has `source`, `target`, `tags`, `include`, `exclude`, `semver`, `newest`, `platforms`, `referrers`,
    `digest-tags` and `prune`, each as the option here. In skopeo's file `credentials`, `tls-verify` and `cert-dir` are
    for reading from the registry.

    \b
    Examples:
      argosy sync --semver '^3.18' --prune alpine mirror.example/alpine
      argosy sync -f mirror.yaml --keep-going --dry-run
    """
    if (file is None) == (not named) or (named and len(named) != 2):
        raise UsageError("expected SOURCE and TARGET, or --file")
    if file is None and base:
        raise UsageError("--target is for --file: name the target after the source")
    if scoped and not base:
        raise UsageError("--scoped is for --target")
    if file is not None:
        _check_file(given)
        target = typed_place(base) if base else None
        with files.opened(file) as given_file:
            jobs = read_jobs(given_file.read(MAX_FILE + 1), file, target, scoped=scoped)
    else:
        jobs = [_job(named, given)]
    losses = failure.Losses(keep_going=given["keep_going"], what="steps")
    with progress.shown(given["progress"], quiet=given["quiet"] or given["dry_run"]) as on_event:
        for job in jobs:
            _Run(job, given, on_event, losses).all()
    return losses.end()


def _check_file(given: dict[str, Any]) -> None:
    """Refuse, with a file, what its jobs say themselves."""
    own = {field.name for field in dataclasses.fields(Job)}
    for param in click.get_current_context().command.params:
        if param.name in own and given.get(param.name):
            raise UsageError(f"{param.opts[-1]}: with --file the jobs say it themselves")


def _job(named: tuple[str, ...], given: dict[str, Any]) -> Job:
    source, target = map(typed_place, named)
    return Job(
        source=source,
        target=target,
        tags=as_names(given["tags"]) or own_tags(source),
        include=given["include"],
        exclude=given["exclude"],
        semver=given["semver"],
        newest=given["newest"],
        platforms=given["platforms"],
        referrers=given["referrers"],
        digest_tags=given["digest_tags"],
        prune=given["prune"],
    ).check()


class _Run:
    """One job, done."""

    def __init__(
        self, job: Job, given: dict[str, Any], on_event: OnEvent, losses: failure.Losses
    ) -> None:
        self._job, self._given, self._on_event = job, given, on_event
        self._losses = losses

    def all(self) -> None:
        """Do it."""
        with (
            self._losses.among(),
            connections.over(self._job.access),
            places.source(self._job.source) as source,
        ):
            if self._given["dry_run"]:
                self._dry(source)
            else:
                with places.target(self._job.target) as target:
                    self._copy(source, target)

    def _copy(self, source: Source, target: Target) -> None:
        job = self._job
        with Copying(
            source,
            target,
            platforms=job.platforms or None,
            referrers=job.referrers,
            digest_tags=job.digest_tags,
            jobs=self._given["jobs"],
            on_event=self._on_event,
        ) as run:
            for step, copied in run.each(plan(job, source, target, run.map), _wanted):
                self._one(step, functools.partial(self._done, target, step, copied))

    def _dry(self, source: Source) -> None:
        local = self._job.target
        with Workers(self._given["jobs"], "argosy-plan") as workers:
            if local.reference is None and not os.path.lexists(local.path):
                steps = list(plan(self._job, source, MemoryStore(), workers.map))
            else:
                with places.source(local, "dest") as target:
                    steps = list(plan(self._job, source, target, workers.map))
        for step in steps:
            self._one(step, functools.partial(_only_told, step))

    def _one(self, step: Step, done: Callable[[], Step]) -> None:
        with self._losses.among():
            with places.of_many(step.name or step.tag):
                if step.error is not None:
                    raise step.error
                step = done()
            self._tell(step)

    def _done(self, target: Target, step: Step, copied: Callable[[], Done | None]) -> Step:
        found = copied()
        if found is not None:
            moved = found.moved or not step.there
            return dataclasses.replace(
                step, digest=found.descriptor.digest, action="copy" if moved else "same"
            )
        if step.action == "prune":
            if not isinstance(target, Deleter):
                raise UnsupportedError(f"{self._job.target.transport}: nothing can be removed")
            target.untag(step.tag)
        return step

    def _tell(self, step: Step) -> None:
        if step.action == "same" and not self._given["dry_run"]:
            return
        beside = places.beside(self._job.target)
        if self._given["progress"] == "json":
            told = {
                "action": step.action,
                "target": str(self._job.target),
                "tag": step.tag,
                "digest": step.digest,
            }
            print(json.dumps(told), file=beside)
            return
        where = (
            self._job.target.reference.repository
            if self._job.target.reference
            else self._job.target
        )
        print(f"{step.action} {where} {step.tag} {step.digest}", file=beside)


def _wanted(step: Step) -> tuple[str, tuple[str, ...]] | None:
    """What a step copies, and its tags at the target."""
    if step.action != "copy":
        return None
    return step.name, () if isinstance(step.tag, Digest) else (step.tag,)


def _only_told(step: Step) -> Step:
    return step
