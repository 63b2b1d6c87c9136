# For the scripts beside it, which source it: long commands in a line each.

# stage LOG WHAT COMMAND...: runs the command with all that it says in LOG. On the screen: what it is and how long it
# took, on a terminal its newest line meanwhile, and the end of LOG where it fails.
stage() {
  local log=$1 what=$2 begin=$SECONDS code=0
  shift 2
  mkdir -p "$(dirname "$log")"
  "$@" 2>&1 | tee "$log" | newest_line "$what" || code=$?
  if [ "$code" -ne 0 ]; then
    echo "$what failed after $((SECONDS - begin)) s" >&2
    end_of "$log"
    return "$code"
  fi
  printf '%-48s %5d s\n' "$what" $((SECONDS - begin))
}

end_of() { # LOG
  { echo "the end of $1:"; tail -n 40 "$1"; } >&2
}

# Reads all that comes; on a terminal each line takes the place of the one before it.
newest_line() { # WHAT
  [ -t 1 ] || { cat > /dev/null; return; }
  local line columns
  columns=$(tput cols 2> /dev/null || echo 80)
  while IFS= read -r line; do
    line="$1: $line"
    printf '\r\033[K%s' "${line:0:columns-1}"
  done
  printf '\r\033[K'
}
