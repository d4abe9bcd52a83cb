"""A machine that loses power at any moment: what its disk may hold then, and what must still hold.

SQLite itself is watched from below, at the interface through which it reaches files (``vfs``). What
it does there is written down while real commands run on the real store (``recording``). From one
recording the files are built as a power cut may have left them at any operation (``disk``): all
that was synced, and of the rest any part. Each of these images is opened with the ordinary store
and held to what was answered before the cut (``verdict``).
"""
