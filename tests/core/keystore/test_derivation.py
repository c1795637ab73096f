"""Derivation: known answers, independence of purposes, unbiased names, the devices' own mathematics."""

from __future__ import annotations

import hashlib
import hmac
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from tests.core.keystore.rigs import NAME, SOFTHSM, Token, Tpm, need
from witness.cli.key_devices import OpenDevice, opened
from witness.core.keystore.base import Algorithm, KeyInvalid, KeystoreError
from witness.core.keystore.derivation import (
    SCHEMES,
    ArmoredWitness,
    Identity,
    Purpose,
    WitnessV1,
    caam_derive,
    scheme,
)
from witness.core.keystore.keyring import DeviceEntry
from witness.core.keystore.softkey import soft_signer
from witness.core.keystore.talk import from_b64, to_b64
from witness.core.keystore.words import ADJECTIVES, NOUNS

SECRET = bytes(range(32))
DEVICE = Identity("TEST-DEVICE-0001", 7, dev=False, parameters={})
DEV_DEVICE = Identity("TEST-DEVICE-0001", 7, dev=True, parameters={})
PROD_APPLET = "transparency.dev-aw-applet-prod+d45f2a0d+AZSnFa8GxH+jHV6ahELk6peqVObbPKrYAdYyMjrzNF35"

# purpose, dev: diversifier, seed out of SECRET. Made once by this code, and held ever since: a device's keys
# hang on them. The diversifiers and seeds are also computed below, from the standards alone.
KNOWN = {
    (Purpose.WITNESS_ED25519, False): (
        "033a99645b17fa47cdb342f1cf0882a09ae1f4ddf8419d7a74cada7abbe2a8a3",
        "9353a6b4316a340ee1a4c135c9ee9386a113bf096e8f88504b4fe3355cd1e8f6",
    ),
    (Purpose.WITNESS_MLDSA44, False): (
        "fa1277b9ff71a5812fd863cfb71511d159e411c8d158ecb700139f2f55224e5a",
        "6d254d7e2d13580998af41d7ecaa8f7012f7c4d952c58ef50e7defd017ad3541",
    ),
    (Purpose.ATTESTATION, False): (
        "1f9348ca1af3169ba31f9f782b18c95bd817c09a8494ac116d27efc36f0a46f0",
        "9124316193daff69904f5432b65a8572988afde3218088016412af1d4dab2593",
    ),
    (Purpose.WITNESS_ED25519, True): (
        "bc5b68a392ec03745a62f0e0a42aed7f35a09140d4c003987787135f8f09023a",
        "7dabf363700d79111bbaf50e719e6b2220332fd6c2f2a399757454efab08c0a2",
    ),
}


def hkdf(secret: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869, by the letter."""
    key = hmac.digest(salt, secret, "sha256")
    out, block = b"", b""
    for number in range(1, -(-size // 32) + 1):
        block = hmac.digest(key, block + info + bytes((number,)), "sha256")
        out += block
    return out[:size]


@pytest.mark.parametrize(("purpose", "dev"), KNOWN)
def test_our_scheme_gives_the_known_answers(purpose: Purpose, *, dev: bool) -> None:
    identity = DEV_DEVICE if dev else DEVICE
    way = scheme("witness-v1")
    diversifier, seed = KNOWN[purpose, dev]
    assert way.diversifier(purpose, identity).hex() == diversifier
    assert way.seed(purpose, identity, SECRET).hex() == seed


@pytest.mark.parametrize(("purpose", "dev"), KNOWN)
def test_the_known_answers_follow_from_the_standards(purpose: Purpose, *, dev: bool) -> None:
    text = f"{'DEV:' if dev else ''}tlog-witness/v1/{purpose}" + (
        "" if purpose is Purpose.ATTESTATION else "/7"
    )
    diversifier, seed = KNOWN[purpose, dev]
    assert hashlib.sha256(text.encode()).hexdigest() == diversifier
    assert hkdf(SECRET, b"TEST-DEVICE-0001", text.encode(), 32).hex() == seed


def test_the_vkeys_of_a_known_secret() -> None:
    way = WitnessV1()
    ed25519 = soft_signer(Algorithm.ED25519, NAME, way.seed(Purpose.WITNESS_ED25519, DEVICE, SECRET))
    assert (
        str(ed25519.vkey) == "witness.example/custody+eb43f0bb+BG+JD8QARgTJzoTxBkQcX6cOJAFbLKUV9Z1LIHSfLftB"
    )
    mldsa44 = soft_signer(Algorithm.MLDSA44, NAME, way.seed(Purpose.WITNESS_MLDSA44, DEVICE, SECRET))
    assert (
        hashlib.sha256(str(mldsa44.vkey).encode()).hexdigest()
        == "a19de30560a53914f2ad2e8d21577e35eb512680cf01d0c77826ca76e9aa0740"
    )


def test_the_derived_name_of_a_known_secret() -> None:
    assert WitnessV1().name(DEVICE, SECRET) == "witness-chief-mountain-finch"
    assert WitnessV1().name(DEV_DEVICE, SECRET) == "DEV:witness-gentle-burrow-ivy"


def test_no_two_purposes_generations_or_devices_share_anything() -> None:
    way = WitnessV1()
    identities = [
        Identity(device, generation, dev, {})
        for device in ("A", "B") for generation in (0, 1) for dev in (False, True)
    ]  # fmt: skip
    seeds = Counter(way.seed(purpose, identity, SECRET) for purpose in Purpose for identity in identities)
    # Only the attestation key outlives a generation.
    assert sorted(seeds.values()) == [1] * 24 + [2] * 4
    diversifiers = {
        way.diversifier(purpose, i) for purpose in Purpose for i in identities if i.unique_id == "A"
    }
    assert len(diversifiers) == 3 * 4 + 2


def test_the_word_lists_let_a_byte_choose_without_a_bias() -> None:
    for words in (ADJECTIVES, NOUNS):
        assert len(words) == len(set(words)) == 256
        assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
        assert list(words) == sorted(words)
    assert not set(ADJECTIVES) & set(NOUNS)


@given(st.binary(min_size=32, max_size=32))
def test_a_name_is_three_words_of_the_lists(secret: bytes) -> None:
    prefix, adjective, *nouns = WitnessV1().name(DEVICE, secret).split("-")
    assert prefix == "witness"
    assert adjective in ADJECTIVES
    assert len(nouns) == 2
    assert set(nouns) <= set(NOUNS)


# --- armored-witness ----------------------------------------------------------------------------------------


def test_caam_derivation_gives_nxps_answer() -> None:
    """AN10922, AES-256 example: its master key, its input, its diversified key."""
    master = bytes.fromhex("00112233445566778899AABBCCDDEEFF0102030405060708090A0B0C0D0E0F00")
    data = bytes.fromhex("04782E21801D803042F54E585020416275")
    answer = "4FC6EEC820B4C54314990B8611662DB695E7880982C0001E6067488346100AED"
    assert caam_derive(master, data).hex().upper() == answer


def test_the_armored_witness_is_reproduced_from_a_known_device_secret() -> None:
    """The steps of its sources with the master 00..1f, the production applet's key and a real serial."""
    identity = Identity("720A9DEAD4390C1D", 0, dev=False, parameters={"applet": PROD_APPLET})
    way = ArmoredWitness()
    secret = caam_derive(bytes(range(32)), way.diversifier(Purpose.WITNESS_ED25519, identity))
    assert way.name_seed(identity, secret).hex() == "bff899d8c3505790"
    seed = way.seed(Purpose.WITNESS_ED25519, identity, secret)
    assert seed.hex() == "6b60a3bcbde626921ddd8e39489507d97cf8595ec7305df7cc262120c294c4b1"
    # The same by hand, from trusted_applet/key.go and trusted_os/rpc.go.
    short = hashlib.sha256(b"WitnessKey-id:0").digest()[:16]
    diversifier = hashlib.sha256(hashlib.sha256(PROD_APPLET.encode()).digest() + short).digest()
    assert way.diversifier(Purpose.WITNESS_ED25519, identity) == diversifier
    assert hkdf(secret, b"720A9DEAD4390C1D", b"", 40)[8:] == seed
    assert way.seed(Purpose.ATTESTATION, identity, secret) == hkdf(secret, b"720A9DEAD4390C1D", b"", 32)


def test_an_unfused_armored_witness_is_marked() -> None:
    way = ArmoredWitness()
    fused = Identity("AB", 3, dev=False, parameters={"applet": PROD_APPLET})
    unfused = Identity("AB", 3, dev=True, parameters={"applet": PROD_APPLET})
    assert way.text(Purpose.WITNESS_ED25519, fused) == b"WitnessKey-id:3"
    assert way.text(Purpose.WITNESS_ED25519, unfused) == b"DEV:WitnessKey-id:3"
    assert way.text(Purpose.ATTESTATION, unfused) == b"DEV:ID-Attestation"


def test_what_the_armored_witness_has_not_is_refused() -> None:
    with pytest.raises(KeyInvalid, match="no key for the purpose witness-ml-dsa-44"):
        ArmoredWitness().diversifier(
            Purpose.WITNESS_MLDSA44, Identity("AB", 0, dev=False, parameters={"applet": PROD_APPLET})
        )
    with pytest.raises(KeyInvalid, match="applet"):
        ArmoredWitness().diversifier(Purpose.WITNESS_ED25519, DEVICE)
    with pytest.raises(KeyInvalid, match="unknown derivation scheme"):
        scheme("something else")
    assert set(SCHEMES) == {"witness-v1", "armored-witness"}


# --- devices' own mathematics -------------------------------------------------------------------------------


def derive(device: OpenDevice, diversifier: bytes, locator: dict[str, str]) -> bytes:
    return from_b64(device.call("derive", diversifier=to_b64(diversifier), locator=locator)["secret"])


def tools_derive(rig: Tpm, folder: Path, diversifier: bytes, policy: bytes | None) -> bytes:
    """The device's secret as tpm2-tools make it, without a line of ours."""
    unique, message, result = folder / "unique", folder / "message", folder / "result"
    unique.write_bytes(struct.pack("<H", len(diversifier)) + diversifier)
    message.write_bytes(b"tlog-witness device secret v1")
    attributes = "fixedtpm|fixedparent|sensitivedataorigin|sign|noda"
    more: list[str | Path] = []
    if policy is None:
        attributes += "|userwithauth"
    else:
        attributes += "|adminwithpolicy"
        (folder / "policy").write_bytes(policy)
        more = ["-L", folder / "policy"]
    context = folder / "primary"
    rig.run_tool(
        "tpm2_createprimary", "-C", "o", "-g", "sha256", "-G", "hmac:sha256", "-u", unique, "-a", attributes,
        "-c", context, *more,
    )  # fmt: skip
    if policy is None:
        rig.run_tool("tpm2_hmac", "-c", context, "-o", result, message)
    else:
        session, operand = folder / "session", folder / "operand"
        operand.write_bytes((1).to_bytes(8, "big"))
        rig.run_tool("tpm2_startauthsession", "--policy-session", "-S", session)
        rig.run_tool("tpm2_policynv", "-S", session, "-i", operand, "0x01807749", "eq")
        rig.run_tool("tpm2_hmac", "-c", context, "-p", f"session:{session}", "-o", result, message)
        rig.run_tool("tpm2_flushcontext", session)
    rig.run_tool("tpm2_flushcontext", "-t")
    return result.read_bytes()


def test_a_tpm_gives_what_the_tpm2_tools_give(tpm: Tpm, folder: Path) -> None:
    need("tpm2_createprimary", "tpm2_hmac", "tpm2_policynv")
    diversifier = WitnessV1().diversifier(Purpose.WITNESS_ED25519, DEVICE)
    with opened(DeviceEntry("tpm", "tpm2", tpm.settings()), None) as device:
        locator = device.call("prepare", options={})["locator"]
        bound = derive(device, diversifier, locator)
        free = derive(device, diversifier, {})
    assert bound != free
    assert tools_derive(tpm, folder, diversifier, None) == free
    assert tools_derive(tpm, folder, diversifier, bytes.fromhex(locator["policy"])) == bound


def test_a_retired_identity_is_never_derived_again(tpm: Tpm, folder: Path) -> None:
    diversifier = WitnessV1().diversifier(Purpose.WITNESS_ED25519, DEVICE)
    entry = DeviceEntry("tpm", "tpm2", tpm.settings())
    with opened(entry, None) as device:
        locator = device.call("prepare", options={})["locator"]
        secret = derive(device, diversifier, locator)
        device.call("retire", locator=locator)
        with pytest.raises(KeystoreError, match="retired") as refused:
            derive(device, diversifier, locator)
        assert refused.value.code == "refused"
        device.call("retire", locator=locator)  # a second time moves nothing
        following = device.call("prepare", options={"counter": "keep"})
        assert following["generation"] == int(locator["counter"]) + 1
        assert derive(device, diversifier, following["locator"]) != secret
    tpm.take_away()
    tpm.bring_back()
    with opened(entry, None) as device, pytest.raises(KeystoreError, match="retired"):
        derive(device, diversifier, locator)
    with pytest.raises(subprocess.CalledProcessError):  # nor by the tools
        tools_derive(tpm, folder, diversifier, bytes.fromhex(locator["policy"]))


def test_a_counter_that_is_put_back_by_its_owner_is_another_counter(tpm: Tpm) -> None:
    """Undefining and defining it again goes on above the old value, so that the old policy stays unmet."""
    diversifier = WitnessV1().diversifier(Purpose.WITNESS_ED25519, DEVICE)
    with opened(DeviceEntry("tpm", "tpm2", tpm.settings()), None) as device:
        locator = device.call("prepare", options={})["locator"]
        derive(device, diversifier, locator)
        device.call("retire", locator=locator)
    tpm.run_tool("tpm2_nvundefine", "0x01807749")
    with opened(DeviceEntry("tpm", "tpm2", tpm.settings()), None) as device:
        again = device.call("prepare", options={})
        assert again["generation"] > int(locator["counter"])
        with pytest.raises(KeystoreError, match="retired"):
            derive(device, diversifier, locator)


def test_a_pcr_that_changed_refuses(tpm: Tpm) -> None:
    diversifier = WitnessV1().diversifier(Purpose.WITNESS_ED25519, DEVICE)
    with opened(DeviceEntry("tpm", "tpm2", tpm.settings()), None) as device:
        locator = device.call("prepare", options={"pcrs": "0,7"})["locator"]
        secret = derive(device, diversifier, locator)
        assert derive(device, diversifier, locator) == secret
    tpm.run_tool("tpm2_pcrextend", f"7:sha256={'11' * 32}")
    with (
        opened(DeviceEntry("tpm", "tpm2", tpm.settings()), None) as device,
        pytest.raises(KeystoreError, match="PCRs are not as they were") as refused,
    ):
        derive(device, diversifier, locator)
    assert refused.value.code == "refused"


def test_a_tpm_without_room_says_so(tpm: Tpm) -> None:
    """A client that was killed leaves its objects behind in a TPM without a resource manager."""
    with opened(DeviceEntry("tpm", "tpm2", tpm.settings()), None) as device:
        locator = device.call("prepare", options={})["locator"]
    for _ in range(3):
        tpm.run_tool("tpm2_createprimary", "-C", "n", "-c", tpm.root / "leak")
    with opened(DeviceEntry("tpm", "tpm2", tpm.settings()), None) as device:  # they are flushed at the start
        assert derive(device, bytes(32), locator)


def test_a_token_derives_by_cbc_what_the_cipher_gives(token: Token) -> None:
    """A known AES key, put into the token for this test, and the same computation outside."""
    need(library="pkcs11")
    key = hashlib.sha256(b"a key that this test knows").digest()
    script = (
        "import os,sys,pkcs11;from pkcs11 import *\n"
        f"os.environ['SOFTHSM2_CONF']={str(token.conf)!r}\n"
        f"t=pkcs11.lib({str(SOFTHSM)!r}).get_token(token_label='witness')\n"
        "s=t.open(user_pin='1234',rw=True)\n"
        "s.create_object({Attribute.CLASS:ObjectClass.SECRET_KEY,Attribute.KEY_TYPE:KeyType.AES,"
        "Attribute.LABEL:'known',Attribute.TOKEN:True,Attribute.DERIVE:True,"
        f"Attribute.VALUE:bytes.fromhex({key.hex()!r})}})\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    diversifier = WitnessV1().diversifier(Purpose.WITNESS_ED25519, DEVICE)
    with opened(DeviceEntry("t", "pkcs11", token.settings()), token.secret()) as device:
        prepared = device.call("prepare", options={"label": "known", "key": "existing"})
        assert prepared["locator"] == {"label": "known", "derive": "aes-cbc"}
        secret = derive(device, diversifier, prepared["locator"])
    cipher = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
    assert secret == cipher.update(diversifier) + cipher.finalize()


def test_a_secret_key_leaves_no_token(token: Token) -> None:
    script = (
        "import os,pkcs11;from pkcs11 import *\n"
        f"os.environ['SOFTHSM2_CONF']={str(token.conf)!r}\n"
        f"t=pkcs11.lib({str(SOFTHSM)!r}).get_token(token_label='witness')\n"
        "s=t.open(user_pin='1234')\n"
        "for k in s.get_objects({Attribute.CLASS:ObjectClass.SECRET_KEY}):\n"
        "    try: k[Attribute.VALUE]; print('leaked')\n"
        "    except pkcs11.exceptions.AttributeSensitive: print('kept')\n"
    )
    with opened(DeviceEntry("t", "pkcs11", token.settings()), token.secret()) as device:
        for how in ("hmac", "aes-cbc"):
            device.call("prepare", options={"label": how, "derive": how})
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["kept", "kept"]
