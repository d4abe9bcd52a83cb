"""The home role: the region where a prescription was issued decides what may still be dispensed.

Nobody else writes these facts. Every answer is a signed statement that was stored before it was
given; whatever another region has to know goes out as an event written with the fact.
"""
