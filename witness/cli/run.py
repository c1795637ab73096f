"""`witness run`: the daemon, in the foreground."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import click

from witness.cli.agreement import check_state, open_to_others
from witness.cli.child import Program, Restarts, StartFailed, python
from witness.cli.config import Config, beside
from witness.cli.continuity import continuity_settings
from witness.cli.errors import Failure, WrongUsage, say_error, say_warning
from witness.cli.front_settings import (
    DistributorSettings,
    FeederSettings,
    FeedingProcessSettings,
    FrontProcessSettings,
    LookSettings,
)
from witness.cli.list_schedule import pull_on_schedule
from witness.cli.lockdown import Lockdowns, hide_supervisor, lockdowns
from witness.cli.running import ask_status, core_answers, front_answers
from witness.cli.service_manager import VARIABLES, ServiceManager
from witness.cli.state import existing, pass_layout, read_config
from witness.cli.supervisor import GaveUp, Patience, supervise
from witness.core.keystore import keyring
from witness.core.layout import StateLayout
from witness.core.lockdown.steps import LockdownSettings
from witness.core.refusals import CoreError
from witness.core.settings import CoreSettings
from witness.front.settings import About, FrontSettings, InvalidSettings, parse_address


@click.command()
@click.option(
    "--listen", metavar="HOST:PORT", help="Where the HTTP endpoints listen, instead of witness.yaml's."
)
@pass_layout
def run(layout: StateLayout, listen: str | None) -> None:
    """Run the witness until SIGTERM or Ctrl-C, which finish what is in flight."""
    config = read_config(existing(layout))
    if listen is not None:
        try:
            parse_address(listen, "--listen")
        except InvalidSettings as error:
            raise WrongUsage(str(error)) from error
    check_state(layout, config)
    for warning in open_to_others(layout, config):
        say_warning(warning)
    hide_supervisor(config.lockdown)
    locked = lockdowns(layout, config.lockdown)
    manager = ServiceManager(os.environ)
    environ = _front_environ(layout, config, os.environ)
    core = _core_program(layout, core_settings(layout, config, locked))
    fronts = _front_programs(layout, config, listen, locked.front, environ)

    async def started(ready: dict[str, Any]) -> None:
        # Whoever reads our output may go (`witness run | head`); that is no reason to stop witnessing.
        with suppress(OSError):
            await _introduce(layout, config, ready)
        manager.say("READY=1")

    async def pull_lists() -> None:
        await pull_on_schedule(layout.root, config.lists, environ, _say, locked=locked)

    # In processes of their own: the front changes no log's trust, and the core has no network.
    chores = pull_lists if config.lists else None
    work = supervise(
        core,
        fronts,
        started=started,
        say=_say,
        patience=Patience(silence=config.watchdog),
        chores=chores,
        stopping=lambda: manager.say("STOPPING=1"),
    )
    try:
        clean = asyncio.run(_supervised(manager, work))
    except StartFailed as error:
        raise Failure(error.reason, error.hint) from error
    except GaveUp as error:
        raise Failure(str(error), "its last lines above say why") from error
    # Fronts with a user of their own could not; and only once ours ran, for they may be another witness's.
    layout.front_socket.unlink(missing_ok=True)
    layout.feeders_socket.unlink(missing_ok=True)
    if not clean:
        raise Failure("the witness did not end in time and was killed; its state is whole")


def _core_program(layout: StateLayout, settings: CoreSettings) -> Program:
    def again(restarts: Restarts) -> str:
        return replace(settings, restarts=restarts.ended, hung=restarts.hung).to_json()

    return Program(
        "core",
        python("witness.core"),
        settings.to_json(),
        without(os.environ, VARIABLES),
        ask=lambda: core_answers(layout),
        again=again,
    )


def _front_programs(
    layout: StateLayout, config: Config, listen: str | None, locked: LockdownSettings, environ: dict[str, str]
) -> list[Program]:
    front = Program(
        "front",
        python("witness.cli.front_process"),
        front_settings(layout, config, listen, locked).to_json(),
        environ,
        ask=lambda: front_answers(layout.front_socket),
    )
    if not config.feeders.enabled:
        return [front]
    feeder = Program(
        "feeder",
        python("witness.cli.feeding_process"),
        feeding_settings(layout, config, locked).to_json(),
        environ,
        ask=lambda: front_answers(layout.feeders_socket),
    )
    return [front, feeder]


async def _supervised(manager: ServiceManager, work: Coroutine[Any, Any, bool]) -> bool:
    """Does the work, and tells the service manager all the while that this loop runs."""
    telling = asyncio.create_task(manager.keep_telling(), name="signs of life")
    try:
        return await work
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


def core_settings(layout: StateLayout, config: Config, locked: Lockdowns | None = None) -> CoreSettings:
    """What the core is told."""
    locked = locked or Lockdowns()
    keys, core = config.keys, config.core
    file = keys.passphrase_file
    return CoreSettings(
        state_dir=str(layout.root),
        max_batch=core.max_batch,
        max_pending=core.max_pending,
        judge_threads=core.judge_threads,
        passphrase_env=keys.passphrase_env,
        passphrase_file=str(beside(layout.config, file)) if file is not None else None,
        wait_for_unlock=keys.wait_for_unlock,
        key_deadline=keys.deadline,
        key_open_deadline=keys.open_deadline,
        front_uids=(locked.front.account.uid,) if locked.front.account is not None else (),
        front_account=locked.front.account,
        lockdown=locked.core,
        continuity=continuity_settings(layout, config),
        log_level=config.log.level,
    )


def front_settings(
    layout: StateLayout, config: Config, listen: str | None, locked: LockdownSettings | None = None
) -> FrontProcessSettings:
    """What the front is told; `listen` overrides the configuration's."""
    about = config.about
    front = FrontSettings(
        name=config.name,
        core_socket=str(layout.core_socket),
        operator_socket=str(layout.front_socket),
        listen=(listen or config.listen,),
        operator_listen=(config.operator_listen,) if config.operator_listen else (),
        prefix=config.path_prefix,
        about=About(
            operator=about.operator or "",
            contact=about.contact or "",
            submission_url=(about.submission_url or "").rstrip("/"),
            monitoring_url=(about.monitoring_url or "").rstrip("/"),
            lists=about.lists,
            cadence=about.cadence or "",
            more=tuple((fact.title, fact.text) for fact in about.more),
        ),
    )
    static = config.static.dir
    return FrontProcessSettings(
        front=front,
        feeders_socket=str(layout.feeders_socket) if config.feeders.enabled else None,
        distributors=tuple(DistributorSettings(each.url, each.name) for each in config.distributors),
        look=LookSettings(config.continuity.look, config.continuity.look_interval),
        static_dir=str(beside(layout.config, static)) if static is not None else None,
        lockdown=locked or LockdownSettings(),
        log_level=config.log.level,
    )


def feeding_settings(
    layout: StateLayout, config: Config, locked: LockdownSettings | None = None
) -> FeedingProcessSettings:
    """What the feeders' process is told."""
    feeders, tiles = config.feeders, config.tile_cache
    return FeedingProcessSettings(
        core_socket=str(layout.core_socket),
        socket=str(layout.feeders_socket),
        name=config.name,
        contact=config.about.contact or "",
        feeders=FeederSettings(
            interval=feeders.interval,
            refresh=feeders.refresh,
            concurrency=feeders.concurrency,
            per_host=feeders.per_host,
            rate=feeders.rate,
            cache_dir=str(beside(layout.config, tiles.dir)) if tiles.dir is not None else None,
            cache_disk=tiles.disk,
        ),
        lockdown=locked or LockdownSettings(),
        log_level=config.log.level,
    )


def _front_environ(layout: StateLayout, config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """The fronts' environment: ours without the passphrase and the devices' secrets, none of its business."""
    secret = {config.keys.passphrase_env, "CREDENTIALS_DIRECTORY", *VARIABLES}
    secret |= {device.secret["env"] for device in keyring.read(layout).devices if "env" in device.secret}
    return without(environ, secret)


def without(environ: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """An environment that lacks some variables."""
    return {name: value for name, value in environ.items() if name not in names}


async def _introduce(layout: StateLayout, config: Config, ready: dict[str, Any]) -> None:
    """One line on stdout for each thing an operator needs at a start; warnings go to stderr."""
    try:
        status = await ask_status(layout)
    except CoreError as error:  # it died at this moment, and is being started anew
        say_warning(f"the core does not answer yet: {error}")
        return
    click.echo(f"witness {status.name} runs on {layout.root}")
    for key in status.keys:
        click.echo(f"  vkey  {key.vkey}")
    for url in ready.get("listening", ()):
        click.echo(f"  page  {url}{config.path_prefix}/")
    click.echo(f"  logs  {status.logs} configured, {status.heads} cosigned so far")
    for reason in status.reasons:
        say_error(f"not ready: {reason}")
    for warning in status.warnings:
        say_warning(warning)
    if status.logs == 0:
        say_warning("no logs are configured: witness logs add VKEY, or witness logs import FILE")
    sys.stdout.flush()


def _say(line: str) -> None:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError):
        click.echo(f"{stamp} WARNING witness.supervisor {line}", err=True)
