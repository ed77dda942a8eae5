"""What the paper says and what the authors' 2012 code did, as data. Nothing here trains or measures.

claims.py      the claims: `get("s3.3-lrn")` is one, with its numbers, their margins and the 2012 run notes' values
method.py      the entries on what was built, and what follows from it by arithmetic
results.py     the entries on what was measured: tables, figures and gains
arithmetic.py  the numbers of the entries that our net gives by counting, and whether the paper's are true
ledger.py      where paper and code differ or are silent: paper says / 2012 code does / we do / the test that pins it
run_notes.py   the authors' notes on their runs of 2012 and 2013 (run_notes.csv), and the pairs behind the published gains
"""

from alexnet.paper.claims import CLAIMS, Claim, Value, get

__all__ = ["CLAIMS", "Claim", "Value", "get"]
