"""Publishing cosigned checkpoints."""
