"""`witness keys test`: every key signs once, and the times that it takes."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from witness.cli.errors import TheAnswerIsNo
from witness.cli.generations import known, stage
from witness.cli.key_access import own_passphrase
from witness.cli.key_devices import opened, told
from witness.cli.key_register import must_derive
from witness.cli.logs import json_option
from witness.cli.state import existing, pass_layout
from witness.core.keystore import keyring, softkey
from witness.core.keystore.authorise import is_signed, trial_message
from witness.core.keystore.base import KeyInvalid, KeystoreError
from witness.core.keystore.keychain import secret_of
from witness.core.keystore.keyring import KeyEntry, Place, Ring
from witness.core.layout import StateLayout
from witness.core.store.generations import Stage


@click.command()
@json_option
@pass_layout
def test(layout: StateLayout, *, as_json: bool) -> None:
    """Open every key's device, sign a harmless message, verify it, and tell the times.

    The message is a cosignature over an empty tree of the witness's own, which can contradict nothing. Exit
    code 1: a key does not sign, or not rightly.
    """
    found = known(existing(layout))
    ring = keyring.read(layout).only(lambda key: stage(found, key) is not Stage.RETIRED)
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
            signers = softkey.open_keystore(keyring.key_file(layout, key), passphrase).signers()
            opened_at = time.perf_counter()
            _sign_soft(key, next(each for each in signers if each.vkey == key.vkey).sign)
        else:
            entry = ring.device(place.device)
            with opened(entry, secret_of(entry, passphrase)) as device:
                if entry.unique_id and device.unique_id != entry.unique_id:
                    raise KeyInvalid("another device answers")
                if key.how == "derive":
                    must_derive(device, key, place)
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
