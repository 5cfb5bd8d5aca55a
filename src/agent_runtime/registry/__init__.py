"""The tool registry: read, validated and resolved entries, and policies for known servers."""
