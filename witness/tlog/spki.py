"""The form of public keys as SubjectPublicKeyInfo in DER (RFC 5280, RFC 5480, RFC 3279).

Only the form: whether a point lies on its curve is seen when `witness.tlog.signature` loads the key.
"""

# An uncompressed point has one DER form per curve: these octets, then X and Y. Go's x509 package, which
# the logs of these types use, reads no compressed points either.
_EC_HEADS = {
    bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"): 64,  # P-256
    bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"): 96,  # P-384
    bytes.fromhex("30819b301006072a8648ce3d020106052b810400230381860004"): 132,  # P-521
}
# rsaEncryption with NULL parameters, behind the two-byte length that any key of 2048 bits or more has.
_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")
_RSA_ALGORITHM_AT = slice(4, 19)
_RSA_SIZES = range(290, 1100)  # of DER, 2048 to 8192 bits: a larger key would only cost time


def is_ec_spki(spki: bytes) -> bool:
    """Whether this is an uncompressed point of NIST P-256, P-384 or P-521, by form."""
    return any(spki.startswith(head) and len(spki) == len(head) + size for head, size in _EC_HEADS.items())


def is_rsa_spki(spki: bytes) -> bool:
    """Whether this is an RSA key of 2048 to 8192 bits, by form."""
    return spki[_RSA_ALGORITHM_AT] == _RSA_ALGORITHM and len(spki) in _RSA_SIZES
