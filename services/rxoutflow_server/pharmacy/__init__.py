"""The edge service of a pharmacy: for its own systems on one side, to the platform on the other."""
