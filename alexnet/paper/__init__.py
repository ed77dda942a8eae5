"""What the paper says and what the authors' 2012 code did, as data. Nothing here trains or measures.

claims.py      the claims of claims.toml: `get("s3.3-lrn")` is one, its numbers, their margins and the 2012 run notes' values
arithmetic.py  the numbers of the claims that our net gives by counting, and whether the paper's are true
ledger.py      where paper and code differ or are silent: paper says / 2012 code does / we do / the test (ledger.toml)
run_notes.py   the authors' notes on their runs of 2012 and 2013 (run_notes.csv), and the pairs behind the published gains
"""

from alexnet.paper.claims import CLAIMS, Claim, Value, get

__all__ = ["CLAIMS", "Claim", "Value", "get"]
