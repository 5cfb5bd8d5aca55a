#!/usr/bin/env bash
# Goes through the README's own first steps in a clean copy of this checkout, then runs one task end to end over HTTP.
# Ends only what it started, and removes only what it made.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
work="$(mktemp -d)"
service=""

finish() {
    code=$?
    if [ -n "$service" ] && kill -0 "$service" 2>/dev/null; then
        kill -TERM "$service"
        wait "$service" || true
    fi
    rm -rf "$work"
    if [ "$code" = 0 ]; then echo "PASS: the set-up works"; else echo "FAIL: see above (exit code $code)" >&2; fi
}
trap finish EXIT

say() { printf '\n== %s\n' "$*"; }
fail() { echo "$*" >&2; exit 1; }
# Reads one field of the JSON on standard input, e.g. `field status`.
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
readme() { sed -n "/^<!-- $1 -->\$/,/^\`\`\`\$/{/^[^\`<]/p}" README.md; }

say "A clean copy of the checkout"
(cd "$here" && git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create) |
    tar --extract --directory "$work"
cd "$work"
unset VIRTUAL_ENV OPENAI_API_KEY OPENAI_BASE_URL AGENT_RUNTIME_CONFIG AGENT_RUNTIME_DATA_DIR

say "The README's first command"
command="$(readme 'the main job')"
echo "$command"
bash -c "$command"
grep -q "UV SETUP VERIFIED" sample_data/uv_verification.txt || fail "The first command wrote no uv_verification.txt."
export PATH="$PATH:$work/.uv/bin"

say "The service answers"
uv run --no-dev agent-runtime serve --port 0 --data-dir "$work/served" 2>"$work/service.log" &
service=$!
url=""
for _ in $(seq 100); do
    kill -0 "$service" 2>/dev/null || { cat "$work/service.log" >&2; fail "The service ended at once."; }
    url="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1])).get("url") or "")' \
        "$work/served/agent-runtime.lock" 2>/dev/null || true)"
    if [ -n "$url" ] && curl --silent --fail "$url/healthz" >/dev/null; then break; fi
    sleep 0.2
done
[ -n "$url" ] || { cat "$work/service.log" >&2; fail "The service did not start within 20 seconds."; }
echo "$url"

say "One task over HTTP: submit, read the plan, approve, result"
task="$(curl --silent --fail-with-body -X POST "$url/v1/tasks" -H 'Content-Type: application/json' \
    -d '{"prompt": "Read notes.txt, count its words and save the count to count.txt"}' | field task_id)"
await() {
    for _ in $(seq 100); do
        status="$(curl --silent --fail "$url/v1/tasks/$task" | field status)"
        [ "$status" = "$1" ] && return
        case "$status" in failed | cancelled | rejected) break ;; esac
        sleep 0.1
    done
    curl --silent "$url/v1/tasks/$task" >&2
    fail "Task $task is $status, not $1."
}
await awaiting_approval
curl --silent --fail "$url/v1/tasks/$task" | field plan
curl --silent --fail-with-body -X POST "$url/v1/tasks/$task/approve" >/dev/null
await completed
expected="$(wc -w <sample_data/notes.txt | tr -d ' ')"
[ "$(cat sample_data/count.txt)" = "$expected" ] || fail "count.txt says $(cat sample_data/count.txt), not $expected."
curl --silent --fail --no-buffer "$url/v1/tasks/$task/stream?view=log" | tail -n 4

say "The service stops"
kill -TERM "$service"
wait "$service" || fail "The service did not end cleanly."
service=""
