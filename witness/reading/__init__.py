"""Reading a log as its users do: proofs of its entries are made, and the log is followed.

Nothing here is part of a witness: it uses witnesses. The bounded GET and POST are handed in; every answer is
judged by `witness.bundles` and `witness.tlog` before it counts.
"""
