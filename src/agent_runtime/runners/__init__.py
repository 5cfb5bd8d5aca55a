"""Runners: adapters of the `Runner` port."""
