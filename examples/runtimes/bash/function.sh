# Does what its event says; see ../README.md. What is meant for the log goes to standard error.

count=0

handler() {
  local event
  event=$(cat)
  count=$((count + 1))
  case $(jq -r '.do' <<<"$event") in
    echo) printf '%s' "$event" ;;
    raise)
      printf 'Error\n%s\n' "$(jq -r '.message' <<<"$event")" >&3
      return 1
      ;;
    exit) exit "$(jq -r '.status' <<<"$event")" ;;
    sleep)
      sleep "$(jq -r '.seconds' <<<"$event")"
      printf '"slept"'
      ;;
    print)
      jq -r '.text' <<<"$event" >&2
      printf 'null'
      ;;
    count) printf '%s' "$count" ;;
    context) jq -n --arg id "$request_id" --argjson context "$client_context" '{requestId: $id, custom: $context.custom}' ;;
    *)
      printf 'UnknownEvent\nnothing is known of %s\n' "$event" >&3
      return 1
      ;;
  esac
}
