"""A region's registry as operators live with it: writing, signing, comparing, spreading lists.

``document`` reads and checks the readable registry file, ``issuing`` turns it into a signed trust
list, ``lists`` reads lists back, ``changes`` tells two of them apart, ``publishing`` puts them where
a platform takes them from. ``fetching`` runs inside the servers: it brings the lists of all regions
in and raises the alarm before one lapses.
"""
