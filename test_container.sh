#!/usr/bin/env bash
# Builds the image, runs it locked down and with no network, takes one task from the sentence to the file, ends it by
# force in the middle of another, and then does the first steps with the compose stack.
#
# Works with whatever Docker engine `docker` reaches, a remote one included: every request is made from inside the
# container. Removes only what it made. Exit code 0: all passed; 1: something failed; 77: there is no engine.
#
# BUILD_ARGS="..."   more arguments for `docker build`
# KEEP_IMAGES=1      leave the images that it built
set -euo pipefail
cd "$(dirname "$0")"

run="agent-runtime-test-$$"
image="$run:prod"
export COMPOSE_PROJECT_NAME="$run" PUBLISH="127.0.0.1:0" OPENAI_API_KEY="" OPENAI_BASE_URL=""
compose=""

say() { printf '\n== %s\n' "$*"; }
ok() { printf '   ok: %s\n' "$*"; }
fail() { echo "$*" >&2; exit 1; }
stack() { IMAGE="$run:dev" $compose --file docker-compose.yml "$@"; }

finish() {
    code=$?
    [ "$code" = 0 ] || docker logs --tail 20 "$run" >&2 2>/dev/null || true
    [ -z "$compose" ] || stack down --volumes --timeout 20 >/dev/null 2>&1 || true
    docker rm --force "$run" >/dev/null 2>&1 || true
    docker volume rm "$run" >/dev/null 2>&1 || true
    [ -n "${KEEP_IMAGES:-}" ] || docker image rm "$image" "$run:dev" >/dev/null 2>&1 || true
    if [ "$code" = 0 ]; then echo "PASS: the container works"; else echo "FAIL: see above (exit code $code)" >&2; fi
}

if ! command -v docker >/dev/null || ! engine="$(docker version --format '{{.Server.Version}}' 2>/dev/null)"; then
    echo "No Docker engine is reachable, so nothing was tested: start one, or set DOCKER_HOST." >&2
    exit 77
fi
trap finish EXIT

# `call CONTAINER METHOD PATH [JSON]`: a request from inside the container, which has Python and no curl.
call() {
    docker exec "$1" python3 -I -c '
import sys, urllib.error, urllib.request
method, path, *body = sys.argv[1:]
data = body[0].encode() if body else None
url, headers = "http://127.0.0.1:8000" + path, {"Content-Type": "application/json"}
request = urllib.request.Request(url, data, headers, method=method)
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20)
except urllib.error.HTTPError as refused:
    sys.exit(f"{method} {path} answers {refused.code}: {refused.read().decode()}")
print(answer.read().decode())' "${@:2}"
}
# `field CONTAINER NAME`: one field of the JSON on standard input.
field() {
    docker exec --interactive "$1" python3 -I -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$2"
}

await_health() {
    for _ in $(seq 120); do
        case "$(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$1")" in
        "running healthy") return ;;
        running*) sleep 0.5 ;;
        *) docker logs "$1" >&2; fail "$1 ended at once." ;;
        esac
    done
    docker inspect --format '{{json .State.Health}}' "$1" >&2
    fail "$1 was not healthy within 60 seconds."
}

await_status() { # CONTAINER TASK STATUS
    for _ in $(seq 120); do
        status="$(call "$1" GET "/v1/tasks/$2" | field "$1" status)"
        [ "$status" = "$3" ] && return
        case "$status" in failed | cancelled | rejected) break ;; esac
        sleep 0.25
    done
    call "$1" GET "/v1/tasks/$2" >&2
    fail "Task $2 is $status, not $3."
}

submit() { call "$1" POST /v1/tasks "{\"prompt\": \"$2\"}" | field "$1" task_id; }

run_task() { # CONTAINER PROMPT: submit, read the plan, approve, wait; leaves its id in $task
    task="$(submit "$1" "$2")"
    await_status "$1" "$task" awaiting_approval
    call "$1" GET "/v1/tasks/$task" | field "$1" plan | sed 's/^/   | /'
    call "$1" POST "/v1/tasks/$task/approve" >/dev/null
    await_status "$1" "$task" completed
}

kept_file() { # CONTAINER
    [ "$(docker exec "$1" cat /data/sample_data/container.txt)" = "CONTAINER VERIFIED" ] || fail "container.txt is wrong."
}

file_task() { # CONTAINER
    run_task "$1" \
        "Write a message saying CONTAINER VERIFIED to a file called container.txt in the sample_data directory"
    kept_file "$1"
    ok "/data/sample_data/container.txt says CONTAINER VERIFIED"
}

say "Docker $engine: build the production image"
# shellcheck disable=SC2086 # BUILD_ARGS is several words
docker build --quiet ${BUILD_ARGS:-} --target production --tag "$image" .
ok "$(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%d MB", $1 / 1000000}')"

user="$(docker image inspect --format '{{.Config.User}}' "$image")"
say "Run it: no network, read-only root, no capabilities, user $user"
docker volume create "$run" >/dev/null
docker run --detach --name "$run" --network none --read-only --tmpfs /tmp:mode=1777,size=64m --cap-drop ALL \
    --security-opt no-new-privileges --memory 512m --pids-limit 256 --volume "$run:/data" \
    --env AGENT_RUNTIME_AUTH__MODE=anonymous "$image" >/dev/null
await_health "$run"
ok "healthy"
docker exec "$run" sh -c 'touch /app/probe' 2>/dev/null && fail "The root file system can be written."
ok "nothing can be written but /data and /tmp"

say "The file task: submit, read the plan, approve, look at the file"
file_task "$run"
say "The calculator task"
run_task "$run" "Add 15 and 27, then multiply the result by 2"
result="$(call "$run" GET "/v1/tasks/$task" | field "$run" result)"
case "$result" in *84*) ok "the result: $result" ;; *) fail "The result is $result, not 84." ;; esac
say "The fetch server answers from the image, with nothing to download"
tools="$(docker exec "$run" agent-runtime tools --refresh --json)"
case "$tools" in *imageFetch*) ok "it offers imageFetch" ;; *) fail "fetch offers no imageFetch: $tools" ;; esac

say "End it by force in the middle, and start it again"
step='{"id": "s\1", "kind": "tool", "server": "filesystem", "tool": "write_file",
       "arguments": {"path": "kill/\1.txt", "content": "\1"}}'
steps="$(seq -s, 90 | sed -E "s|([0-9]+)|${step//$'\n'/}|g")"
plan="{\"goal\": \"Write 90 files\", \"steps\": [$steps]}"
body="{\"prompt\": \"Write 90 files\", \"max_steps\": 100, \"plan\": $plan}"
long="$(call "$run" POST /v1/tasks "$body" | field "$run" task_id)"
await_status "$run" "$long" awaiting_approval
call "$run" POST "/v1/tasks/$long/approve" >/dev/null
docker kill --signal KILL "$run" >/dev/null
docker start "$run" >/dev/null
await_health "$run"
for _ in $(seq 120); do
    status="$(call "$run" GET "/v1/tasks/$long" | field "$run" status)"
    case "$status" in completed | needs_attention) break ;; failed | cancelled) fail "The task is $status." ;; esac
    sleep 0.25
done
case "$status" in
completed)
    [ "$(docker exec "$run" sh -c 'cat /data/sample_data/kill/*.txt | wc -c')" = 171 ] || fail "Files are missing."
    ok "the task completed, and all of its 90 files are there"
    ;;
needs_attention) ok "the task asks what became of the call that was open" ;;
*) fail "The task is still $status." ;;
esac
claims="$(call "$run" GET "/v1/tasks/$long/events?limit=1000" | grep -o '"task.claimed"' | wc -l | tr -d ' ')"
case "$claims" in
1) ok "though the kill came after its end: this engine was slow" ;;
*) ok "it was taken up again, by the service of after the kill" ;;
esac
await_status "$run" "$task" completed
kept_file "$run"
ok "the tasks and files of before are there"

say "SIGTERM ends it within 15 seconds"
before=$SECONDS
docker stop --time 15 "$run" >/dev/null
code="$(docker inspect --format '{{.State.ExitCode}}' "$run")"
case "$code" in 0 | 143) ok "exit code $code after $((SECONDS - before)) s" ;; *) fail "Exit code $code." ;; esac

say "The compose stack"
if docker compose version >/dev/null 2>&1; then compose="docker compose"; else
    command -v docker-compose >/dev/null || fail "Neither 'docker compose' nor docker-compose is installed."
    compose="docker-compose"
fi
stack config --quiet
$compose --file docker-compose.prod.yml config --quiet
ok "both compose files are valid"
# shellcheck disable=SC2086 # BUILD_ARGS is several words
docker build --quiet ${BUILD_ARGS:-} --target development --tag "$run:dev" .
stack up --detach --no-build --quiet-pull
inside="$(stack ps --quiet agent-runtime)"
await_health "$inside"
ok "healthy"
case "$(docker logs "$inside" 2>&1)" in
*anonymous_access*) ok "it warns that whoever reaches it may do everything" ;;
*) fail "It does not warn that whoever reaches it may do everything." ;;
esac
published="$(stack port agent-runtime 8000)"
case "$published" in 127.0.0.1:*) ok "published on $published only" ;; *) fail "It is published on $published." ;; esac
if curl --silent --fail --max-time 5 -X POST "http://$published/v1/tasks" -H "Content-Type: application/json" \
    -d '{"prompt": "Read a file and summarize its contents"}' >/dev/null 2>&1; then
    ok "the first request of the README is answered there"
else
    case "${DOCKER_HOST:-unix}" in unix*) fail "http://$published does not answer." ;; esac
    ok "the engine is another machine, so its published address was not tried"
fi
file_task "$inside"
stack stop --timeout 20
code="$(docker inspect --format '{{.State.ExitCode}}' "$inside")"
case "$code" in 0 | 143) ok "stopped with exit code $code" ;; *) fail "It stopped with exit code $code." ;; esac
