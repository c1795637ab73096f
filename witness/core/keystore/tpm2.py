"""The tpm2 backend: 32 bytes that only this TPM makes of a diversifier.

The secret is an HMAC by a primary key: the TPM re-creates it from its hierarchy's seed and a template, of
which the diversifier is a part. Nothing is stored in the TPM but counters. The template also carries a
policy: the key can be used only while the counter stands where it stood when the identity was made
(TPM2_PolicyNV), and, if the operator wants it, while chosen PCRs have the values they had then
(TPM2_PolicyPCR). Once the counter moves on, no command to the TPM makes the retired identity's secret again.

An object's own authorisation value is no part of what a primary key is derived from; the policy is. So the
lock is the hierarchy's authorisation and the policy, never a passphrase on the object.

A second counter is against a state folder that is set back (`witness.core.continuity.counter`). It is no part
of any policy, so that it may move while the identity lives.

https://trustedcomputinggroup.org/resource/tpm-library-specification/ parts 1 (26.1) and 3 (23.9, 23.7)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

os.environ.setdefault("TSS2_LOG", "all+none")  # else the library writes its own account to our stderr

from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_EO,
    TPM2_HC,
    TPM2_NT,
    TPM2_SE,
    TPMA_NV,
    TPMA_OBJECT,
)
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_NV_PUBLIC,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMS_NV_PUBLIC,
    TPMT_PUBLIC,
    TPMT_SYM_DEF,
)

from witness.core.keystore.backend import Found, Locator, Settings
from witness.core.keystore.base import (
    Algorithm,
    DeviceLost,
    KeyAbsent,
    KeyInvalid,
    KeyLocked,
    KeyRefused,
    KeystoreError,
    WrongSecret,
)

DEFAULT_TCTI: Final = "device:/dev/tpmrm0"
DEFAULT_COUNTER: Final = 0x01807749
ROLLBACK_OFFSET: Final = 0x100
"""From the identity's counter to the rollback counter, by default: far enough for witnesses side by side."""
HMAC_INPUT: Final = b"tlog-witness device secret v1"
"""What the primary key authenticates; the 32-byte result is the device's secret for its diversifier."""
_HIERARCHIES: Final = {"owner": ESYS_TR.OWNER, "endorsement": ESYS_TR.ENDORSEMENT}
_COUNTER_SIZE: Final = 8
_VENDOR_STRING_1: Final = 0x106  # TPM_PT_VENDOR_STRING_1 (part 2, 6.13), which the library does not name

_RC_LAYER: Final = 0xFF0000
_RC_TPM_LAYERS: Final = frozenset({0x000000})
# Response codes of format 1 carry the handle, session or parameter they are about; this takes it away.
_FORMAT_1: Final = 0x080
_RC_BARE: Final = 0x0BF
_BAD_AUTH, _AUTH_FAIL, _POLICY_FAIL, _VALUE, _HANDLE = 0x0A2, 0x08E, 0x09D, 0x084, 0x08B
_POLICY, _PCR_CHANGED, _LOCKOUT, _NV_UNINITIALIZED = 0x126, 0x128, 0x921, 0x14A
_NV_DEFINED, _OBJECT_MEMORY, _SESSION_MEMORY = 0x14C, 0x902, 0x903
_OTHER_PCRS: Final = "the TPM's PCRs are not as they were when the identity was made"
_NO_SLOT: Final = "the TPM has no free slot; a resource manager frees them"
_FAULTS: Final[Mapping[int, tuple[type[KeystoreError], str]]] = {
    _POLICY: (KeyRefused, "this identity is retired, the TPM's counter has moved on"),
    _POLICY_FAIL: (KeyRefused, _OTHER_PCRS),
    _PCR_CHANGED: (KeyRefused, _OTHER_PCRS),
    _HANDLE: (KeyRefused, "the identity's counter is gone from the TPM"),
    _LOCKOUT: (KeyRefused, "the TPM is in lockout after failed authorisations"),
    _NV_DEFINED: (KeyRefused, "the NV index is in use"),
    _OBJECT_MEMORY: (KeyAbsent, _NO_SLOT),
    _SESSION_MEMORY: (KeyAbsent, _NO_SLOT),
}


class Tpm:
    """An opened TPM."""

    def __init__(self, settings: Settings, secret: str | None) -> None:
        tcti = settings.get("tcti", DEFAULT_TCTI)
        name = settings.get("hierarchy", "owner")
        if name not in _HIERARCHIES:
            raise KeyInvalid(f"a TPM has no hierarchy {name!r}", "owner or endorsement")
        self._hierarchy = _HIERARCHIES[name]
        self._has_secret = secret is not None
        try:
            self._esys: Any = ESAPI(tcti)
        except TSS2_Exception as error:
            raise KeyAbsent(f"no TPM answers at {tcti}") from error
        try:
            with self._faults("open the TPM"):
                if secret is not None:
                    self._esys.tr_set_auth(self._hierarchy, secret)
                if tcti.startswith(("swtpm:", "mssim:")):
                    # A simulated TPM has no resource manager: objects that a killed client left behind stay.
                    self._flush_left_behind()
                self.unique_id = self._endorsement_name()
                self.note = self._simulated()
        except BaseException:
            self.close()
            raise

    def prepare(self, options: Settings) -> tuple[Locator, int]:
        """Defines the identity's counter and fixes its policy. See `backend.Device.prepare`."""
        index = _index(options.get("counter_index"))
        choice = options.get("counter", "fresh")
        with self._faults("prepare the identity's counter"):
            value = self._read_counter(index)
            if value is None:
                if choice == "keep":
                    raise KeyInvalid(f"the TPM has no counter at {index:#010x} to keep")
                self._define(index)
                value = self._increment(index)
            elif choice == "fresh":
                self._refuse_in_use(index)
            elif choice == "next":
                value = self._increment(index)
            elif choice != "keep":
                raise KeyInvalid(f"unknown choice counter={choice}", "fresh, next or keep")
            locator = {"index": f"{index:#010x}", "counter": str(value)}
            if pcrs := options.get("pcrs"):
                locator["pcrs"] = ",".join(str(number) for number in _pcrs(pcrs))
            locator["policy"] = self._policy(locator, TPM2_SE.TRIAL).hex()
        return locator, value

    def derive(self, diversifier: bytes, locator: Mapping[str, str]) -> bytes:
        """HMAC by the primary key of the diversifier's template, under the locator's policy."""
        policy = bytes.fromhex(locator.get("policy", ""))
        with self._faults("derive"), self._primary(diversifier, policy) as handle:
            if not policy:
                return self._hmac(handle, ESYS_TR.PASSWORD)
            session = self._session(TPM2_SE.POLICY)
            try:
                self._satisfy(session, locator)
                return self._hmac(handle, session)
            finally:
                with suppress(TSS2_Exception):
                    self._esys.flush_context(session)

    def provide(self, algorithm: Algorithm, name: str, options: Settings) -> Found:  # noqa: ARG002
        """A TPM has neither Ed25519 nor ML-DSA."""
        raise KeyInvalid("a TPM derives keys and signs with none of a witness's algorithms")

    def sign(self, algorithm: Algorithm, message: bytes, locator: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """A TPM has neither Ed25519 nor ML-DSA."""
        raise KeyInvalid("a TPM derives keys and signs with none of a witness's algorithms")

    def retire(self, locator: Mapping[str, str]) -> None:
        """Moves the counter on, after which the identity's policy can never be met again."""
        index = _index(locator.get("index"))
        with self._faults("retire the identity"):
            if self._read_counter(index) == int(locator["counter"]):
                self._increment(index)

    # --- the counter against being set back -----------------------------------------------------------------

    def make_counter(self, options: Settings) -> tuple[Locator, int]:
        """Defines it beside the identity's counter. See `backend.CountingDevice.make_counter`.

        Called before `prepare`, so that nothing is defined where that is going to refuse; or later, with
        `counter=beside`. Where the operator goes on with a device that has an identity (`counter=next` or
        `keep`), its counter is taken over: no state that named an earlier value is believed any more.
        """
        identity = _index(options.get("counter_index"))
        index = _index(options.get("rollback_index"), "rollback_index", identity + ROLLBACK_OFFSET)
        choice = options.get("counter", "fresh")
        if index == identity:
            raise KeyInvalid("rollback_index is the identity's own counter", "it needs one of its own")
        with self._faults("make the rollback counter"):
            if choice == "fresh":
                self._refuse_in_use(identity)
            value = self._read_counter(index)
            if value is None:
                self._define(index)
            elif choice not in {"next", "keep"}:
                raise KeyRefused(
                    f"the TPM has a counter at {index:#010x} already: another witness may count with it",
                    "-o rollback_index=0x… makes another; -o rollback=off does without",
                )
            value = self._increment(index)
        return {"index": f"{index:#010x}"}, value

    def read_counter(self, locator: Mapping[str, str]) -> int:
        """Its value. See `backend.CountingDevice.read_counter`."""
        index = _index(locator.get("index"))
        with self._faults("read the rollback counter"):
            value = self._read_counter(index)
        if value is None:
            raise DeviceLost(f"the TPM has no counter at {index:#010x} any more: it was wiped, or cleared")
        return value

    def increment_counter(self, locator: Mapping[str, str]) -> int:
        """Moves it. See `backend.CountingDevice.increment_counter`."""
        self.read_counter(locator)  # that it is there, and a counter
        with self._faults("move the rollback counter"):
            return self._increment(_index(locator.get("index")))

    def close(self) -> None:
        """Ends the connection."""
        with suppress(TSS2_Exception):
            self._esys.close()

    # --- what is derived from -------------------------------------------------------------------------------

    @contextmanager
    def _primary(self, unique: bytes, policy: bytes) -> Iterator[Any]:
        handle, *_ = self._esys.create_primary(
            TPM2B_SENSITIVE_CREATE(), _template(unique, policy), self._hierarchy
        )
        try:
            yield handle
        finally:
            with suppress(TSS2_Exception):
                self._esys.flush_context(handle)

    def _hmac(self, handle: Any, session: Any) -> bytes:
        return bytes(self._esys.hmac(handle, HMAC_INPUT, TPM2_ALG.SHA256, session1=session))

    # --- policy ---------------------------------------------------------------------------------------------

    def _session(self, kind: Any) -> Any:
        return self._esys.start_auth_session(
            ESYS_TR.NONE, ESYS_TR.NONE, kind, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
        )

    def _policy(self, locator: Mapping[str, str], kind: Any) -> bytes:
        session = self._session(kind)
        try:
            self._satisfy(session, locator)
            return bytes(self._esys.policy_get_digest(session))
        finally:
            with suppress(TSS2_Exception):
                self._esys.flush_context(session)

    def _satisfy(self, session: Any, locator: Mapping[str, str]) -> None:
        index = _index(locator.get("index"))
        counter = int(locator["counter"]).to_bytes(_COUNTER_SIZE, "big")
        handle = self._esys.tr_from_tpmpublic(index)
        try:
            self._esys.policy_nv(handle, handle, session, counter, TPM2_EO.EQ, 0)
        finally:
            with suppress(TSS2_Exception):
                self._esys.tr_close(handle)
        if "pcrs" in locator:
            selection = TPML_PCR_SELECTION.parse("sha256:" + locator["pcrs"])
            self._esys.policy_pcr(session, TPM2B_DIGEST(), selection)

    # --- the counter ----------------------------------------------------------------------------------------

    def _read_counter(self, index: int) -> int | None:
        """The counter's value; None where the index is not defined."""
        if not self._is_defined(index):
            return None
        handle = self._esys.tr_from_tpmpublic(index)
        try:
            public, _ = self._esys.nv_read_public(handle)
            kind = (int(public.nvPublic.attributes) >> 4) & 0xF
            if kind != TPM2_NT.COUNTER:
                raise KeyInvalid(f"the NV index {index:#010x} is in use, and no counter")
            try:
                return int.from_bytes(bytes(self._esys.nv_read(handle, _COUNTER_SIZE, 0)), "big")
            except TSS2_Exception as error:
                if error.rc == _NV_UNINITIALIZED:
                    return 0
                raise
        finally:
            with suppress(TSS2_Exception):
                self._esys.tr_close(handle)

    def _refuse_in_use(self, index: int) -> None:
        if self._is_defined(index):
            raise KeyRefused(
                f"the TPM has a counter at {index:#010x} already: an identity hangs on it",
                "-o counter_index=0x… makes another; -o counter=next retires the one that is there",
            )

    def _is_defined(self, index: int) -> bool:
        # The answer is kept in a variable: its parts point into it.
        answer = self._esys.get_capability(TPM2_CAP.HANDLES, index, 1)
        handles = [int(handle) for handle in answer[1].data.handles]
        return index in handles

    def _define(self, index: int) -> None:
        # The owner increments; anybody may read, which is all that the policy needs.
        attributes = (TPM2_NT.COUNTER << 4) | TPMA_NV.OWNERWRITE | TPMA_NV.OWNERREAD | TPMA_NV.AUTHREAD
        public = TPMS_NV_PUBLIC(
            nvIndex=index,
            nameAlg=TPM2_ALG.SHA256,
            attributes=TPMA_NV(attributes | TPMA_NV.NO_DA),
            dataSize=_COUNTER_SIZE,
        )
        handle = self._esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=public))
        self._esys.tr_close(handle)

    def _increment(self, index: int) -> int:
        handle = self._esys.tr_from_tpmpublic(index)
        try:
            self._esys.nv_increment(handle, ESYS_TR.OWNER)
            return int.from_bytes(bytes(self._esys.nv_read(handle, _COUNTER_SIZE, 0)), "big")
        finally:
            with suppress(TSS2_Exception):
                self._esys.tr_close(handle)

    # --- who it is ------------------------------------------------------------------------------------------

    def _endorsement_name(self) -> str:
        """The Name of the endorsement key by the default ECC template: a digest that no other TPM has."""
        handle, public, *_ = self._esys.create_primary(
            TPM2B_SENSITIVE_CREATE(), _endorsement_template(), ESYS_TR.ENDORSEMENT
        )
        try:
            return bytes(public.get_name()).hex()
        finally:
            self._esys.flush_context(handle)

    def _simulated(self) -> str:
        answer = self._esys.get_capability(TPM2_CAP.TPM_PROPERTIES, _VENDOR_STRING_1, 1)
        properties = answer[1].data.tpmProperties
        vendor = int(properties[0].value).to_bytes(4, "big").strip(b"\0 ") if len(properties) else b""
        return "a TPM in software: whoever copies its state has its keys" if vendor == b"SW" else ""

    def _flush_left_behind(self) -> None:
        for first in (TPM2_HC.TRANSIENT_FIRST, TPM2_HC.LOADED_SESSION_FIRST):
            answer = self._esys.get_capability(TPM2_CAP.HANDLES, first, 64)
            for number in [int(handle) for handle in answer[1].data.handles]:
                if number >> 24 == int(first) >> 24:
                    self._esys.flush_context(self._esys.tr_from_tpmpublic(number))

    # --- faults ---------------------------------------------------------------------------------------------

    @contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        try:
            yield
        except TSS2_Exception as error:
            raise self._fault(doing, int(error.rc)) from error

    def _fault(self, doing: str, code: int) -> KeystoreError:
        if code & _RC_LAYER not in _RC_TPM_LAYERS:
            return KeyAbsent(f"cannot {doing}: the TPM does not answer ({code:#x})")
        bare = code & _RC_BARE if code & _FORMAT_1 else code
        if bare in {_BAD_AUTH, _AUTH_FAIL}:
            if self._has_secret:
                return WrongSecret(f"cannot {doing}: the TPM does not take the authorisation value")
            return KeyLocked(f"cannot {doing}: the TPM's hierarchy wants an authorisation value")
        kind, words = _FAULTS.get(bare, (KeyAbsent, f"the TPM says {code:#x}"))
        return kind(f"cannot {doing}: {words}")


def open_device(settings: Settings, secret: str | None) -> Tpm:
    """Opens the TPM at `tcti`.

    Args:
        settings: `tcti` and `hierarchy`.
        secret: the hierarchy's authorisation value.

    Raises:
        KeystoreError: it cannot be opened.
    """
    return Tpm(settings, secret)


def _template(unique: bytes, policy: bytes) -> TPM2B_PUBLIC:
    attributes = (
        TPMA_OBJECT.FIXEDTPM
        | TPMA_OBJECT.FIXEDPARENT
        | TPMA_OBJECT.SENSITIVEDATAORIGIN
        | TPMA_OBJECT.SIGN_ENCRYPT
        | TPMA_OBJECT.NODA
        | (TPMA_OBJECT.ADMINWITHPOLICY if policy else TPMA_OBJECT.USERWITHAUTH)
    )
    public = TPMT_PUBLIC(
        type=TPM2_ALG.KEYEDHASH, nameAlg=TPM2_ALG.SHA256, objectAttributes=attributes, authPolicy=policy
    )
    scheme = public.parameters.keyedHashDetail.scheme
    scheme.scheme = TPM2_ALG.HMAC
    scheme.details.hmac.hashAlg = TPM2_ALG.SHA256
    public.unique.keyedHash = unique
    return TPM2B_PUBLIC(publicArea=public)


def _endorsement_template() -> TPM2B_PUBLIC:
    """The default EK template L-2 (TCG EK Credential Profile, B.3.4): ECC P-256."""
    policy = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
    public = TPMT_PUBLIC.parse(
        "ecc256:aes128cfb",
        objectAttributes=(
            TPMA_OBJECT.FIXEDTPM
            | TPMA_OBJECT.FIXEDPARENT
            | TPMA_OBJECT.SENSITIVEDATAORIGIN
            | TPMA_OBJECT.ADMINWITHPOLICY
            | TPMA_OBJECT.RESTRICTED
            | TPMA_OBJECT.DECRYPT
        ),
        authPolicy=policy,
    )
    public.unique.ecc.x = bytes(32)
    public.unique.ecc.y = bytes(32)
    return TPM2B_PUBLIC(publicArea=public)


def _index(text: str | None, name: str = "counter_index", default: int = DEFAULT_COUNTER) -> int:
    try:
        index = default if text is None else int(text, 0)
    except ValueError as error:
        raise KeyInvalid(f"{name} {text!r} is no number") from error
    if not 0x01800000 <= index <= 0x01BFFFFF:  # noqa: PLR2004 - the owner's range (TCG registry of handles)
        raise KeyInvalid(f"{name} {index:#010x} is not in the owner's range", "0x01800000 to 0x01bfffff")
    return index


def _pcrs(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise KeyInvalid(f"pcrs {text!r} is no list of numbers", "as 0,7") from error
    if any(not 0 <= number <= 23 for number in numbers):  # noqa: PLR2004 - a PC client's PCRs
        raise KeyInvalid(f"pcrs {text!r} goes beyond 0 to 23")
    return numbers
