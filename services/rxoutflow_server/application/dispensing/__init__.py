"""The dispensing role: the region of the pharmacy routes, prices and coordinates.

It decides nothing for home or payer. It stores each answer before it asks for the next thing, so
that after a crash it goes on where it was; it states the prices that apply, because the catalogue
of the place of dispensing does (就医地目录); and it brings the record of the handover to both.
"""
