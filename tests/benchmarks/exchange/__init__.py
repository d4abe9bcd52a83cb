"""How fast a platform is, as ratios to a bare mTLS echo of the same run.

The servers are processes of their own, as in production; the load comes from this one. What is
signed is signed before the clock starts. Rounds of echo and of each operation are interleaved, so
that whatever else the machine does falls on both.
"""
