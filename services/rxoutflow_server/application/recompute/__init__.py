"""State computed again from evidence: the real transitions, over what was signed, in its order.

Whatever a region decided it has stated and signed, and the statement is kept byte for byte, in the
order of the region's log. So the rows of state can be computed anew from these statements, by the
functions that made them, and compared. What is not in any statement is not computed: keyed hashes
of pickup codes, counts of wrong codes, what is on its way, and how far a dispensing region has
come with the work of its pharmacies.
"""
