"""What the edge services of hospitals and pharmacies share: the way up, and how they are run."""
