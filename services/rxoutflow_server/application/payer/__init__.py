"""The payer role: the region where a person is insured decides deductible, ratio, cap and holds.

Nobody else writes these facts. Money is set aside on a request, paid when the signed record of the
handover arrives, and set free when the home region shows that the attempt came to nothing; never by
a timer here.
"""
