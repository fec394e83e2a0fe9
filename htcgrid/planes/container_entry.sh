# The first process of a Lambda container: sh -c THIS htcgrid FOLDER PROGRAM...
#
# Runs PROGRAM, which belongs to the image, each time that the agent says so. A runtime that ended is thus started again
# at once; Kubernetes would wait longer before each restart of the container. Agent and container use pipes in FOLDER,
# which both mount:
#
#   starts   hello TOKEN, start NUMBER API STREAM [NAME=VALUE...], quit
#            read while no program runs; API is - for the emulator; the variables are the handler's credentials
#   orders   end NUMBER, memory TOKEN                        read while a program runs; NUMBER may be "any"
#   replies  TOKEN ready, TOKEN BYTES KILLS
#   ended    NUMBER STATUS KILLS      STATUS: the shell's $?; KILLS: how many processes the kernel ended for their memory;
#            NUMBER 0: the container has just started, so what ran in it has ended
#   log      what the program prints, while it prints
#
# It uses only builtins, `sleep` and `rm`: images have little more.
[ $$ -eq 1 ] || {
  echo "htcgrid: this must be the first process of its container; shareProcessNamespace may not be set" >&2
  exit 64
}
folder=$1
shift
term=
trap 'term=1 woken=1' TERM # Kubernetes sends it to all containers at once; the agent may still need this one

until [ -p "$folder/starts" ]; do # the agent makes it last
  [ -n "$term" ] && exit 0
  sleep 0.1
done
exec 3<>"$folder/ended" 4<>"$folder/replies"
echo "0 0 0" >&3 # an agent that has not looked since the container's last end learns of it by this

# A group without a limit may be that of the whole machine: a container of a rootless engine may have none of its own.
is_limited=
for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
  # No limit is written as `max`, or as a number of nineteen digits.
  [ -r "$file" ] && read -r limit <"$file" && [ "$limit" != max ] && [ ${#limit} -lt 19 ] && is_limited=1
done

# The number beside NAME in the first of two files that exists: of cgroups v2, v1.
count() { # count FILE NAME FILE NAME
  counted=0
  [ -n "$is_limited" ] || return
  [ -r "$1" ] || shift 2
  [ -r "$1" ] || return
  while read -r name value; do [ "$name" = "$2" ] && counted=$value; done <"$1"
}
kills() { count /sys/fs/cgroup/memory.events oom_kill /sys/fs/cgroup/memory/memory.oom_control oom_kill; }
memory() { count /sys/fs/cgroup/memory.stat anon /sys/fs/cgroup/memory/memory.stat total_rss; }

listen() { # listen NUMBER, while that program runs
  while read -r order number; do
    case $order in
      end) if [ "$number" = "$1" ] || [ "$number" = any ]; then kill -9 -1; fi ;;
      memory)
        memory; used=$counted
        kills; echo "$number $used $((counted - before))" >&4 ;;
    esac
  done <"$folder/orders"
  kill -9 -1 # the agent has ended, so nobody waits for an answer
}

run() { # run NUMBER API STREAM VARIABLES PROGRAM...
  rm -rf /tmp/..?* /tmp/.[!.]* /tmp/* 2>/dev/null
  kills; before=$counted
  listen "$1" 3>&- &
  (
    [ "$2" = - ] || export AWS_LAMBDA_RUNTIME_API="$2"
    export AWS_LAMBDA_LOG_STREAM_NAME="$3"
    set -f # the shell must not replace a * in a value with names of files
    for pair in $4; do export "$pair"; done
    shift 4
    exec "$@" </dev/null
  ) >>"$folder/log" 2>&1 3>&- 4>&-
  status=$?
  kills
  kill -9 -1 # processes that the program left behind, and `listen`
  echo "$1 $status $((counted - before))" >&3
}

while :; do
  # A signal ends the `read`. The pipe is not opened again then: if the agent has ended, that would wait without end.
  while woken= order=; read -r order number api stream variables || [ -n "$woken" ]; do
    case $order in
      hello) echo "$number ready" >&4 ;;
      start) run "$number" "$api" "$stream" "$variables" "$@" ;;
      quit) exit 0 ;;
    esac
  done <"$folder/starts"
  [ -z "$term" ] || exit 0 # told to end, and the agent no longer holds the other end
done
