"""The region's verifiable log: growing, proving, and watching others'.

Every statement that a platform keeps is a leaf, appended in the transaction that keeps it. Once for
each commit the tree grows over the new leaves and its head is signed. See ``docs/log.md``.
"""
