"""The regional platform: its gRPC services, its way to other platforms, its composition root."""
