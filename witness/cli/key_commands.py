"""The `witness keys` commands that touch devices. Each refuses what would put a running identity at risk."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from witness.cli.config import beside
from witness.cli.errors import Failure, TheAnswerIsNo, WrongUsage, say_warning
from witness.cli.key_devices import OpenDevice, opened, parse_options, parse_secret, told
from witness.cli.logs import json_option
from witness.cli.running import core_status
from witness.cli.state import existing, pass_layout, read_config
from witness.core.keystore import keyring, softkey
from witness.core.keystore.authorise import is_signed, trial_message
from witness.core.keystore.backend import BACKENDS
from witness.core.keystore.base import Algorithm, KeyInvalid, KeystoreError
from witness.core.keystore.derivation import WITNESS_PURPOSES, Identity
from witness.core.keystore.door import KeyDoor
from witness.core.keystore.keychain import Keychain, secret_of
from witness.core.keystore.keyring import SOFT, DeviceEntry, KeyEntry, Place, Ring
from witness.core.keystore.softkey import algorithm_of
from witness.core.keystore.unlocking import send
from witness.core.layout import StateLayout
from witness.core.process import AlreadyRunning, folder_lock, read_passphrase
from witness.core.settings import CoreSettings
from witness.tlog.note import MalformedSignerKey, VerifierKey, parse_signer_key

UNLOCK_PATIENCE: Final = 60.0
"""Seconds in which a core must say what became of a secret."""
_POLL: Final = 0.05


def own_passphrase(layout: StateLayout) -> str | None:
    """The witness's passphrase, from wherever its configuration says."""
    keys = read_config(layout).keys
    file = str(beside(layout.config, keys.passphrase_file)) if keys.passphrase_file is not None else None
    return read_passphrase(
        CoreSettings(str(layout.root), passphrase_env=keys.passphrase_env, passphrase_file=file)
    )


@contextlib.contextmanager
def _not_running(layout: StateLayout) -> Iterator[None]:
    """Holds the state folder's lock, so that no core uses the keys meanwhile.

    Raises:
        Failure: one does.
    """
    try:
        with folder_lock(layout.core_lock):
            yield
    except AlreadyRunning as error:
        raise Failure(str(error), "stop it first: the keys of a running witness are not changed") from error


def _secret_from(file: Path | None) -> str:
    if file is not None:
        return file.read_text(encoding="utf-8").removesuffix("\n")
    if not sys.stdin.isatty():
        return sys.stdin.readline().removesuffix("\n")
    return str(click.prompt("Secret", hide_input=True, err=True))


# --- unlock -------------------------------------------------------------------------------------------------


@click.command()
@click.argument("device", required=False)
@click.option(
    "--passphrase-file", type=click.Path(path_type=Path), metavar="FILE", help="Read the secret from FILE."
)
@pass_layout
def unlock(layout: StateLayout, *, device: str | None, passphrase_file: Path | None) -> None:
    """Give the running witness the PIN or passphrase of DEVICE, which is locked.

    The secret is read from FILE, else from standard input, and asked for at a terminal. It is kept nowhere.
    """
    ring = keyring.read(existing(layout))
    status = core_status(layout)
    if status is None:
        raise Failure("the witness is not running", "a secret is given to a running witness")
    locked = {key.vkey for key in status.keys if key.state == "locked"}
    names = sorted({place.device for key in ring.keys if str(key.vkey) in locked for place in key.places})
    if device is None:
        if len(names) != 1:
            raise WrongUsage("name the device", f"locked: {', '.join(names) or 'none'}")
        device = names[0]
    if device not in names:
        ring.device(device)
        raise Failure(f"{device} is not locked", f"locked: {', '.join(names) or 'none'}")
    attempt = secrets.token_hex(4)
    if not send(layout, device, _secret_from(passphrase_file), attempt):
        raise Failure(
            "the running witness waits for no secret", "keys.wait_for_unlock lets a sealed key file wait"
        )
    mine = {str(key.vkey) for key in ring.keys for place in key.places if place.device == device}
    until = time.monotonic() + UNLOCK_PATIENCE
    while time.monotonic() < until:
        status = core_status(layout)
        # The answer is told by its attempt. While the device is being opened the old error may still stand.
        keys = [key for key in status.keys if key.vkey in mine] if status else []
        told = [key for key in keys if f"[unlock {attempt}]" in key.detail]
        for key in told:
            if key.state != "ready":
                raise TheAnswerIsNo(key.detail.partition(" [unlock")[0])
        # A device's keys come one after the other; it is of use when all are there.
        if told and all(key.state == "ready" for key in keys):
            click.echo(f"{device} is unlocked")
            return
        time.sleep(_POLL)
    raise Failure(f"the witness did not say within {UNLOCK_PATIENCE:g} s what became of it")


# --- register -----------------------------------------------------------------------------------------------


@click.command()
@click.argument("backend", type=click.Choice(tuple(BACKENDS)))
@click.option("--as", "name", metavar="DEVICE", help="The device's name here; else the backend's.")
@click.option(
    "-o", "--option", "options", multiple=True, metavar="NAME=VALUE", help="As with `witness init`."
)
@click.option("--secret", metavar="env:NAME|file:PATH|credential:NAME", help="As with `witness init`.")
@pass_layout
def register(
    layout: StateLayout, *, backend: str, name: str | None, options: tuple[str, ...], secret: str | None
) -> None:
    """Make known a device that holds a key of this witness: another one beside, or one that has moved.

    The device must sign with the registered key, or derive it; one that does not is refused. Takes effect at
    the next start.
    """
    name = name or backend
    settings, wanted = parse_options(backend, options)
    source = parse_secret(secret)
    with _not_running(existing(layout)):
        ring = keyring.read(layout)
        entry = DeviceEntry(name, backend, settings, secret=source)
        with opened(entry, secret_of(entry, own_passphrase(layout))) as device:
            found = _same_keys(device, ring, name, wanted)
            entry = dataclasses.replace(entry, unique_id=device.unique_id)
            if device.note:
                say_warning(f"device {name}: {device.note}")
        missing = [str(key.vkey) for key, _ in ring.keys_on(name) if key.vkey not in found]
        if missing:
            raise Failure(
                f"the device has not all keys that {name} is registered with", "give it another name"
            )
        keyring.write(layout, ring.with_device(entry, found))
    for vkey in found:
        click.echo(f"{name} holds {vkey.name}+{vkey.key_id.hex()}")


def _same_keys(
    device: OpenDevice, ring: Ring, name: str, options: dict[str, str]
) -> dict[VerifierKey, dict[str, str]]:
    found: dict[VerifierKey, dict[str, str]] = {}
    why: list[str] = []
    for key in ring.keys:
        here = [place for place in key.places if place.device == name]
        if key.how == "derive" and here:
            _must_derive(device, key, here[0])
            found[key.vkey] = dict(here[0].locator)
        elif key.how == "sign":
            try:
                found[key.vkey] = _locate(device, key, {**options, "key": options.get("key", "existing")})
            except KeystoreError as error:
                why.append(told(error))
    if not found:
        raise Failure("the device holds no key of this witness", "; ".join(why))
    return found


def _locate(device: OpenDevice, key: KeyEntry, options: dict[str, str]) -> dict[str, str]:
    """How a device finds a key that it must already have."""
    if device.entry.backend == "ssh-agent" and options.get("key") == "existing":
        locator = {"public_key": key.vkey.public_key.hex()}
    else:
        algorithm = algorithm_of(key.vkey)
        answer = device.call("provide", algorithm=algorithm, name=key.vkey.name, options=options)
        locator = dict(answer["locator"])
    device.sign_trial(key.vkey, locator)
    return locator


def _must_derive(device: OpenDevice, key: KeyEntry, place: Place) -> None:
    if key.purpose != keyring.WITNESS:
        return
    algorithm = Algorithm(algorithm_of(key.vkey))
    identity = Identity(device.unique_id, key.generation, key.dev, place.locator)
    signer = device.derived(WITNESS_PURPOSES[algorithm], algorithm, key.vkey.name, key.scheme, identity)
    if signer.vkey != key.vkey:
        raise KeyInvalid(f"the device derives another key than {key.vkey.name}+{key.vkey.key_id.hex()}")


# --- test ---------------------------------------------------------------------------------------------------


@click.command()
@json_option
@pass_layout
def test(layout: StateLayout, *, as_json: bool) -> None:
    """Open every key's device, sign a harmless message, verify it, and tell the times.

    The message is a cosignature over an empty tree of the witness's own, which can contradict nothing. Exit
    code 1: a key does not sign, or not rightly.
    """
    ring = keyring.read(existing(layout))
    passphrase = own_passphrase(layout)
    results = [
        _test(layout, ring, key, place, passphrase) for key in ring.witness_keys for place in key.places
    ]
    if as_json:
        click.echo(json.dumps(results, ensure_ascii=False, indent=1))
    for result in results:
        if not as_json:
            times = (
                f"opened in {result['open_ms']} ms, signed in {result['sign_ms']} ms" if result["ok"] else ""
            )
            click.echo(
                f"{'ok  ' if result['ok'] else 'FAIL'} {result['key']} on {result['device']}: "
                f"{times or result['error']}"
            )
    failed = [result for result in results if not result["ok"]]
    if failed:
        raise TheAnswerIsNo(f"{len(failed)} of {len(results)} keys do not sign")


def _test(
    layout: StateLayout, ring: Ring, key: KeyEntry, place: Place, passphrase: str | None
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "key": f"{key.vkey.name}+{key.vkey.key_id.hex()}", "device": place.device, "ok": False,
    }  # fmt: skip
    began = time.perf_counter()
    try:
        if key.how == "soft":
            signers = softkey.open_keystore(layout.softkey, passphrase).signers()
            opened_at = time.perf_counter()
            _sign_soft(key, next(each for each in signers if each.vkey == key.vkey).sign)
        else:
            entry = ring.device(place.device)
            with opened(entry, secret_of(entry, passphrase)) as device:
                if entry.unique_id and device.unique_id != entry.unique_id:
                    raise KeyInvalid("another device answers")
                if key.how == "derive":
                    _must_derive(device, key, place)
                    opened_at = time.perf_counter()
                else:
                    opened_at = time.perf_counter()
                    device.sign_trial(key.vkey, place.locator)
    except KeystoreError as error:
        return {**result, "error": told(error)}
    ended = time.perf_counter()
    return {
        **result, "ok": True, "error": "",
        "open_ms": round(1000 * (opened_at - began), 1), "sign_ms": round(1000 * (ended - opened_at), 2),
    }  # fmt: skip


def _sign_soft(key: KeyEntry, sign: Any) -> None:
    message = trial_message(key.vkey, int(time.time()))
    if not is_signed(key.vkey, message, sign(message)):
        raise KeyInvalid("its signature does not verify")


# --- import -------------------------------------------------------------------------------------------------


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@pass_layout
def import_(layout: StateLayout, *, file: Path) -> None:
    """Take an Ed25519 key from FILE (a Go note signer key or an OpenSSH one) into a witness that has none.

    A witness that has an Ed25519 key keeps it: another key is another identity. (`witness init --import-key`
    makes a witness with a key that exists.)
    """
    ring = keyring.read(existing(layout))
    name, seed = read_ed25519(file)
    if name is not None and name != ring.name:
        raise Failure(f"the key in {file} has the name {name!r}, and this witness is {ring.name!r}")
    vkey = softkey.soft_signer(Algorithm.ED25519, ring.name, seed).vkey
    if vkey in ring.vkeys:
        click.echo(f"{vkey.name}+{vkey.key_id.hex()} is there already", err=True)
        return
    held = [key for key in ring.vkeys if algorithm_of(key) == Algorithm.ED25519]
    if held:
        raise Failure(
            f"this witness has the Ed25519 key {held[0].name}+{held[0].key_id.hex()}, which its users know",
            "witness --state ANOTHER init --import-key FILE makes a witness of the key",
        )
    with _not_running(layout):
        passphrase = own_passphrase(layout)
        softkey.add_seed(
            layout.softkey, passphrase, Algorithm.ED25519, seed, identity=ring.identity, name=ring.name
        )
        if keyring.exists(layout):
            devices = (
                ring.devices
                if any(d.name == SOFT for d in ring.devices)
                else (*ring.devices, DeviceEntry(SOFT, SOFT))
            )
            entry = KeyEntry(vkey, keyring.WITNESS, "soft", (Place(SOFT),))
            keyring.write(layout, dataclasses.replace(ring, devices=devices, keys=(entry, *ring.keys)))
    click.echo(str(vkey))


def read_ed25519(file: Path) -> tuple[str | None, bytes]:
    """The name, if it has one, and the seed of an Ed25519 key in a file.

    Raises:
        Failure: there is none in it, or it is sealed.
    """
    data = file.read_bytes()
    if data.lstrip().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----"):
        try:
            key = load_ssh_private_key(data, None)
        except (ValueError, TypeError) as error:
            raise Failure(
                f"cannot read the OpenSSH key in {file}: {error}",
                "ssh-keygen -p takes a passphrase off a copy",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise Failure(f"the OpenSSH key in {file} is no Ed25519 key")
        return None, key.private_bytes_raw()
    try:
        signer = parse_signer_key(data.decode("utf-8").strip())
    except (MalformedSignerKey, UnicodeDecodeError) as error:
        raise Failure(f"{file} holds neither a Go note signer key nor an OpenSSH key: {error}") from error
    return signer.name, signer.seed


# --- retire -------------------------------------------------------------------------------------------------


@click.command()
@click.option(
    "--name", "confirmed", required=True, help="The witness's name once more: there is no way back."
)
@pass_layout
def retire(layout: StateLayout, *, confirmed: str) -> None:
    """Make this witness's derived identity impossible for ever, on the device itself."""
    ring = keyring.read(existing(layout))
    if confirmed != ring.name:
        raise Failure(f"this witness is {ring.name!r}, not {confirmed!r}", "nothing was changed")
    derived = [(key, place) for key in ring.witness_keys if key.how == "derive" for place in key.places]
    if not derived:
        raise Failure("this witness's keys are not derived by a device", "there is nothing to retire here")
    with _not_running(layout):
        passphrase = own_passphrase(layout)
        for name in dict.fromkeys(place.device for _, place in derived):
            entry = ring.device(name)
            with opened(entry, secret_of(entry, passphrase)) as device:
                place = next(place for _, place in derived if place.device == name)
                device.call("retire", locator=dict(place.locator))
    click.echo(f"the identity of {ring.name} is retired: no device derives its keys again")


# --- serve --------------------------------------------------------------------------------------------------


@click.command()
@click.option("--socket", "path", type=click.Path(path_type=Path), required=True, help="Where to listen.")
@click.option("--allow-uid", "uids", type=int, multiple=True, help="A user that may connect besides our own.")
@pass_layout
def serve(layout: StateLayout, *, path: Path, uids: tuple[int, ...]) -> None:
    """Cosign for a witness elsewhere (backend `remote`), with the keys of this state, until SIGTERM.

    Only well-formed cosignature messages under this witness's name are signed. Whether a checkpoint may be
    cosigned is judged by whoever connects: let nobody else.
    """
    config = read_config(existing(layout))
    with _not_running(layout):
        keychain = Keychain.prepare(layout, passphrase=own_passphrase(layout))
        try:
            logging.basicConfig(
                level=config.log.level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
            )
            asyncio.run(_serve(keychain, path, uids))
        finally:
            keychain.close()


async def _serve(keychain: Keychain, path: Path, uids: tuple[int, ...]) -> None:
    stop, lost = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    keychain.open(asyncio.get_running_loop(), lost)
    door = KeyDoor(keychain.signers(), uids=uids)
    await door.start(path)
    ending = [asyncio.create_task(stop.wait()), asyncio.create_task(lost.wait())]
    try:
        for vkey in keychain.ring.vkeys:
            click.echo(f"vkey    {vkey}")
        click.echo(f"socket  {path}")
        sys.stdout.flush()
        await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ending:
            task.cancel()
        await door.stop()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # noqa: ASYNC240 - a socket file, at the very end
    if lost.is_set():
        raise Failure("the process that keeps the devices has ended")
