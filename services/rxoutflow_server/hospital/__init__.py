"""The edge service of a hospital: for its own systems on one side, to the platform on the other."""
