#!/bin/sh
# What the container runs first: puts the samples into an empty files folder, then becomes the command it was given.
set -eu

files=/data/sample_data
if mkdir -p "$files" 2>/dev/null && [ -z "$(ls -A "$files")" ]; then
    # Where the volume refuses, the service itself says what to do about it.
    cp -R /app/samples/. "$files/" || echo "The samples could not be copied to $files." >&2
fi
exec "$@"
