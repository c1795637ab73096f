"""The pkcs11 backend: a token that signs with a key of its own, or derives 32 bytes from a diversifier.

Signing: Ed25519 by CKM_EDDSA; ML-DSA-44 by CKM_ML_DSA where the token has it. Deriving, on a secret key that
cannot be extracted: HMAC-SHA256 over the diversifier, or CKM_AES_CBC_ENCRYPT_DATA of it. Which of the two is
part of the key's locator, since they give different bytes.

PKCS #11 logs a whole process in, not a session, and knows no second log-in: an opened device is one process.
https://docs.oasis-open.org/pkcs11/pkcs11-spec/v3.1/pkcs11-spec-v3.1.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import pkcs11
import pkcs11._pkcs11  # by now, and not by the first use: a worker's user may not reach where it is
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import exceptions as faults

from witness.core.keystore.backend import Found, Locator, Settings
from witness.core.keystore.base import (
    Algorithm,
    KeyAbsent,
    KeyInvalid,
    KeyLocked,
    KeyRefused,
    KeystoreError,
    WrongSecret,
)

_ED25519_PARAMETERS: Final = bytes.fromhex("06032b6570")  # the OID 1.3.101.112 in DER
_ED25519_SIZE: Final = 32
_MLDSA44_SIZE: Final = 1312
_CKP_ML_DSA_44: Final = 1
_SECRET_BITS: Final = 256
_HMAC: Final = "hmac"
_AES_CBC: Final = "aes-cbc"
_GONE: Final = (
    faults.NoSuchToken,
    faults.TokenNotPresent,
    faults.TokenNotRecognised,
    faults.SlotIDInvalid,
    faults.DeviceRemoved,
    faults.SessionClosed,
    faults.SessionHandleInvalid,
    faults.ObjectHandleInvalid,
    faults.KeyHandleInvalid,
)


class Token:
    """An opened token; logged in if there is a PIN."""

    note = ""

    def __init__(self, settings: Settings, secret: str | None) -> None:
        module, label = settings.get("module"), settings.get("token")
        if not module or not label:
            raise KeyInvalid(
                "the backend pkcs11 needs its library and the token's label", "-o module=PATH -o token=LABEL"
            )
        if variable := settings.get("environment"):
            name, _, value = variable.partition("=")
            os.environ[name] = value
        self._label = label
        self._logged_in = secret is not None
        self._session: Any = None
        self._private: dict[tuple[Algorithm, str], Any] = {}
        with self._faults("open the token"):
            self._token = pkcs11.lib(module).get_token(token_label=label)
            serial = self._token.serial
            self.unique_id = (
                serial.decode("ascii", "replace") if isinstance(serial, bytes) else serial
            ).strip()
            self._session = self._token.open(user_pin=secret, rw=True)

    def prepare(self, options: Settings) -> tuple[Locator, int]:
        """Makes the secret key that derives, or takes the one that is there. See `backend.Device.prepare`."""
        label = options.get("label", "tlog-witness")
        with self._faults("prepare the key that derives"):
            return self._prepare(label, options.get("derive"), options.get("key", "fresh")), 0

    def derive(self, diversifier: bytes, locator: Mapping[str, str]) -> bytes:
        """HMAC-SHA256 by the secret key, or AES-CBC of the diversifier under it, from a zero IV."""
        with self._faults("derive"):
            key = self._one(ObjectClass.SECRET_KEY, locator["label"])
            if locator.get("derive") == _AES_CBC:
                child = key.derive_key(
                    KeyType.GENERIC_SECRET,
                    _SECRET_BITS,
                    mechanism=Mechanism.AES_CBC_ENCRYPT_DATA,
                    mechanism_param=(bytes(16), diversifier),
                    template={
                        Attribute.TOKEN: False,
                        Attribute.SENSITIVE: False,
                        Attribute.EXTRACTABLE: True,
                    },
                )
                try:
                    return bytes(child[Attribute.VALUE])
                finally:
                    with suppress(faults.PKCS11Error):
                        child.destroy()
            return bytes(key.sign(diversifier, mechanism=Mechanism.SHA256_HMAC))

    def provide(self, algorithm: Algorithm, name: str, options: Settings) -> Found:
        """Makes a key pair on the token, or takes the one that is there. See `backend.Device.provide`."""
        label = options.get("label", name)
        with self._faults(f"provide a key for {algorithm}"):
            pair = self._pair(label, _KEY_TYPES[algorithm])
            choice = options.get("key", "fresh")
            if pair is None:
                if choice == "existing":
                    raise KeyAbsent(f"the token {self._label} has no {algorithm} key {label!r}")
                self._need_login()
                self._generate(algorithm, label)
                pair = self._pair(label, _KEY_TYPES[algorithm])
            elif choice != "existing":
                raise KeyRefused(
                    f"the token {self._label} has a key {label!r} already",
                    "-o label=… names another; -o key=existing takes that one",
                )
            assert pair is not None
            return Found(algorithm, self._public(algorithm, pair), {"label": label})

    def sign(self, algorithm: Algorithm, message: bytes, locator: Mapping[str, str]) -> bytes:
        """A signature by the private key."""
        label = locator["label"]
        with self._faults("sign"):
            key = self._private.get((algorithm, label))  # both keys have the witness's name for a label
            if key is None:  # looked for once: a search takes longer than many a token's signature
                key = self._one(ObjectClass.PRIVATE_KEY, label, _KEY_TYPES[algorithm])
                self._private[algorithm, label] = key
            return bytes(key.sign(message, mechanism=_MECHANISMS[algorithm]))

    def retire(self, locator: Mapping[str, str]) -> None:
        """Destroys the key that derives, or the key pair that signs: nothing else binds an identity."""
        label = locator["label"]
        with self._faults("retire the identity"):
            if "derive" in locator:
                self._one(ObjectClass.SECRET_KEY, label).destroy()
                return
            self._need_login()  # without a PIN private objects are invisible, and seem destroyed
            for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
                for found in self._find(kind, label):
                    found.destroy()

    def close(self) -> None:
        """Logs out."""
        if self._session is not None:
            with suppress(faults.PKCS11Error):
                self._session.close()

    def _prepare(self, label: str, how: str | None, choice: str) -> Locator:
        if how not in {None, _HMAC, _AES_CBC}:
            raise KeyInvalid(f"unknown way to derive: {how!r}", f"{_HMAC} or {_AES_CBC}")
        self._need_login()
        found = self._find(ObjectClass.SECRET_KEY, label)
        if found and choice != "existing":
            raise KeyRefused(
                f"the token {self._label} has a secret key {label!r} already: an identity may hang on it",
                "-o label=… names another; -o key=existing takes that one",
            )
        if choice == "existing":
            if not found:
                raise KeyAbsent(f"the token {self._label} has no secret key {label!r}")
            own = _AES_CBC if found[0].key_type == KeyType.AES else _HMAC
            if how not in {None, own}:
                raise KeyInvalid(f"the secret key {label!r} derives by {own}")
            return {"label": label, "derive": own}
        how = how or (_HMAC if self._has(Mechanism.SHA256_HMAC) else _AES_CBC)
        kind, capability = (
            (KeyType.AES, MechanismFlag.DERIVE)
            if how == _AES_CBC
            else (KeyType.GENERIC_SECRET, MechanismFlag.SIGN)
        )
        # Never the right to encrypt beside the right to derive by encryption: it would tell the children.
        self._session.generate_key(
            kind,
            _SECRET_BITS,
            label=label,
            store=True,
            capabilities=capability,
            template={Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True},
        )
        return {"label": label, "derive": how}

    def _generate(self, algorithm: Algorithm, label: str) -> None:
        if not self._has(_GENERATORS[algorithm]):
            raise KeyInvalid(
                f"the token {self._label} has no {algorithm}",
                "-o derive=hmac derives the keys instead, or --soft ml-dsa-44 keeps that one in the key file",
            )
        private = {Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True}
        if algorithm is Algorithm.ED25519:
            parameters = self._session.create_domain_parameters(
                KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: _ED25519_PARAMETERS}, local=True
            )
            parameters.generate_keypair(
                mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label=label, private_template=private
            )
        else:
            self._session.generate_keypair(
                KeyType.ML_DSA,
                store=True,
                label=label,
                public_template={Attribute.PARAMETER_SET: _CKP_ML_DSA_44},
                private_template=private,
            )

    @staticmethod
    def _public(algorithm: Algorithm, key: Any) -> bytes:
        if algorithm is Algorithm.ED25519:
            point = bytes(key[Attribute.EC_POINT])  # an OCTET STRING around it, or (some tokens) bare
            if len(point) not in {_ED25519_SIZE, _ED25519_SIZE + 2}:
                raise KeyInvalid(f"the token's key has a point of {len(point)} bytes: it is no Ed25519 key")
            return point[-_ED25519_SIZE:]
        value = bytes(key[Attribute.VALUE])
        if len(value) != _MLDSA44_SIZE:
            raise KeyInvalid(f"the token's public key has {len(value)} bytes: it is no ML-DSA-44 key")
        return value

    def _has(self, mechanism: Any) -> bool:
        return mechanism in self._token.slot.get_mechanisms()

    def _need_login(self) -> None:
        if not self._logged_in:
            raise KeyLocked(f"the token {self._label} wants its PIN, and none is given")

    def _find(self, kind: Any, label: str, key_type: Any = None) -> list[Any]:
        wanted = {Attribute.CLASS: kind, Attribute.LABEL: label}
        if key_type is not None:
            wanted[Attribute.KEY_TYPE] = key_type
        return list(self._session.get_objects(wanted))

    def _pair(self, label: str, key_type: Any) -> Any:
        found = self._find(ObjectClass.PUBLIC_KEY, label, key_type)
        if len(found) > 1:
            raise KeyInvalid(f"the token {self._label} has {len(found)} keys {label!r}")
        return found[0] if found else None

    def _one(self, kind: Any, label: str, key_type: Any = None) -> Any:
        found = self._find(kind, label, key_type)
        if not found:
            self._need_login()  # without a PIN private objects are invisible
            raise KeyAbsent(f"the token {self._label} has no key {label!r}")
        if len(found) > 1:
            raise KeyInvalid(f"the token {self._label} has {len(found)} keys {label!r}")
        return found[0]

    @contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        try:
            yield
        except faults.PKCS11Error as error:
            raise self._fault(doing, error) from error

    def _fault(self, doing: str, error: Exception) -> KeystoreError:
        token = f"the token {self._label}"
        if isinstance(error, faults.PinIncorrect | faults.PinInvalid | faults.PinLenRange):
            return WrongSecret(f"{token} does not take the PIN")
        if isinstance(error, faults.PinLocked | faults.PinExpired):
            return KeyRefused(f"the PIN of {token} is blocked or expired", "the token's own tools unblock it")
        if isinstance(error, faults.UserNotLoggedIn):
            return KeyLocked(f"{token} wants its PIN")
        if isinstance(error, _GONE):
            return KeyAbsent(f"{token} is not there")
        words = str(error) or type(error).__name__
        return KeyAbsent(f"cannot {doing}: {token}: {words}")


_KEY_TYPES: Final = {Algorithm.ED25519: KeyType.EC_EDWARDS, Algorithm.MLDSA44: KeyType.ML_DSA}
_MECHANISMS: Final = {Algorithm.ED25519: Mechanism.EDDSA, Algorithm.MLDSA44: Mechanism.ML_DSA}
_GENERATORS: Final = {
    Algorithm.ED25519: Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
    Algorithm.MLDSA44: Mechanism.ML_DSA_KEY_PAIR_GEN,
}


def open_device(settings: Settings, secret: str | None) -> Token:
    """Opens a token.

    Args:
        settings: `module`, `token` and, for some libraries, `environment`.
        secret: the user's PIN; without it only public keys are seen.

    Raises:
        KeystoreError: it cannot be opened.
    """
    return Token(settings, secret)
