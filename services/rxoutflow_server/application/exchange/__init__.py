"""What all roles share: evidence, idempotency, and the exchange of facts between regions."""
