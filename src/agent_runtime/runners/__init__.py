"""Who makes tasks progress: adapters of the `Runner` port."""
