"""A region's registry as operators live with it: writing, signing, comparing, spreading lists.

``document`` reads and checks the readable registry file, ``issuing`` turns it into a signed trust
list, ``lists`` reads lists back, ``changes`` tells two of them apart, ``publishing`` puts them
where a platform takes them from, ``denying`` adds a denial to the file.

``fetching`` runs inside the servers: it brings in the lists of all regions, and ``alarms`` tells in
time that one lapses.
"""
