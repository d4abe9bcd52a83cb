"""Evidence bundles: everything about one prescription in one file, verified offline.

    bundle = read_bundle(Path("350200....rxevidence").read_bytes())
    verified = verify_bundle(bundle, trust, now)

:func:`verify_bundle` returns what the statements say, or raises :class:`BundleRefused` with a
reason that a program can branch on. What a bundle shows, and what it cannot, says
``evidence.proto``.
"""

from rxoutflow.bundle.model import BundleReason, BundleRefused, LoggedContent, VerifiedBundle
from rxoutflow.bundle.reading import read_bundle, verify_bundle

__all__ = [
    "BundleReason",
    "BundleRefused",
    "LoggedContent",
    "VerifiedBundle",
    "read_bundle",
    "verify_bundle",
]
