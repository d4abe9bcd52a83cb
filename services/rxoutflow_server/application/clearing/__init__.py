"""Books, daily reconciliation and periodic clearing, for a region that pays and is paid.

An entry is booked in the transaction in which its settlement is posted, heard of as posted, or
sold. Books that differ are named and left alone; a period is cleared only when both regions' books
give the same list to the last byte.
"""
