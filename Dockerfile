# Agent Runtime as an image. The last stage is what a build without --target gives.
#
#   docker build -t agent-runtime-service:prod --target production .
#   docker build -t agent-runtime-service:dev --target development .
#
# What each stage holds, and where the bytes go, is told in docs/how-to/containers.md.

# The npm servers of the shipped registry: exactly what the lock file names, and no script of theirs is run.
FROM node:24-bookworm-slim AS servers
WORKDIR /app/servers
# The symbols of node are 18 MB, and only a debugger reads them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/* \
    && strip --strip-unneeded /usr/local/bin/node
COPY container/package.json container/package-lock.json ./
# Source maps, type declarations and the packages' own tests are a third of it, and nothing reads them at run time.
RUN --mount=type=cache,target=/root/.npm \
    npm ci --ignore-scripts --no-audit --no-fund \
    && find node_modules -type f \( -name '*.map' -o -name '*.d.[cm]ts' -o -name '*.d.ts' -o -path '*/test/*' \) -delete

FROM python:3.11-slim-bookworm AS python
# bubblewrap keeps the MCP servers, tini is PID 1 and reaps, and the health checks of many compose files call curl.
# Versions are the Debian release's: it keeps no others.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap curl tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin runtime \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data /data/sample_data
WORKDIR /app

FROM python AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir --root-user-action=ignore uv==0.13.8
# The dependencies are a layer of their own, which a change of the source leaves as it is.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-dev --no-install-project
COPY README.md ./
COPY src src
RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-dev --no-editable

# All that production has, and what development adds to.
FROM python AS runtime
COPY --from=servers /usr/local/bin/node /usr/local/bin/
COPY --from=servers /usr/local/lib/node_modules/npm /usr/local/lib/node_modules/npm
# npx looks for a package in the folders above the one where it is called, before it asks the network. This one is above
# all of them. Global packages are no help: npx asks the network for their manifest first.
COPY --from=servers /app/servers/node_modules /node_modules
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
    && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx \
    && ln -s /node_modules/.bin/mcp-* /usr/local/bin/ \
    && printf 'update-notifier=false\nfund=false\naudit=false\n' > /usr/local/etc/npmrc \
    && node --version && npx --version
COPY --from=build /app/.venv .venv
COPY container/entrypoint.sh container/healthcheck.py container/backup.py container/tool_registry.yaml config.yaml ./
# The files root is on the volume. These are its other names: of this project's own registry, and of the first runtime's.
COPY sample_data samples
RUN ln -s /data/sample_data sample_data \
    && mkdir -p src/agent_runtime \
    && ln -s /data/sample_data src/agent_runtime/sample_data
# The address and the data directory are the container's business, so they beat the config.yaml that may be mounted.
# Who may call is not: without AGENT_RUNTIME_AUTH__MODE=anonymous or keys the service is locked, and says so.
# DATABASE_URL, which many platforms set, is the default of storage.url here.
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    AGENT_RUNTIME_CONFIG=/app/config.yaml \
    AGENT_RUNTIME_DATA_DIR=/data \
    AGENT_RUNTIME_SERVER__HOST=0.0.0.0 \
    AGENT_RUNTIME_TAKES_DATABASE_URL=1
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/python3", "-I", "-S", "/app/healthcheck.py"]
ENTRYPOINT ["/usr/bin/tini", "--", "/app/entrypoint.sh"]
USER 10001

# The same with the tests, the tools that check the code, and a service that starts again when its source changes.
FROM runtime AS development
USER 0
RUN rm -r sample_data src
COPY --chown=10001:10001 . .
# uv is lent for this one step. The packages that are there already stay as they are, in the layers below; the hooks of
# a checkout and its task runner have no use here.
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=build,source=/usr/local/bin/uv,target=/usr/local/bin/uv \
    UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never uv sync --frozen \
        --no-install-package prek --no-install-package rust-just \
    && rm -rf sample_data \
    && ln -s /data/sample_data sample_data \
    && ln -s /data/sample_data src/agent_runtime/sample_data \
    && chown 10001:10001 /app
USER 10001
CMD ["python", "/app/container/serve_and_watch.py"]

FROM runtime AS production
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Agent Runtime" \
      org.opencontainers.image.description="Turns a sentence into an approved plan of MCP tool calls, and runs exactly that plan." \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
CMD ["agent-runtime", "serve"]
