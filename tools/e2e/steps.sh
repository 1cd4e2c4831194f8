# What demonstrations print, for those who source it: numbered steps with their time, and each command as it would be typed. They set chrysalis,
# the program, and steps, how many there are.
started=$SECONDS
last=$SECONDS
number=0
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] && bold=$'\033[1m' plain=$'\033[0m' || bold='' plain=''
step() {
	[ "$number" = 0 ] || printf '   (%s s)\n' $((SECONDS - last))
	last=$SECONDS
	number=$((number + 1))
	printf '\n%s== %s of %s: %s%s\n' "$bold" "$number" "$steps" "$*" "$plain"
}
# say prints a command as it would be typed, show runs it too.
say() {
	local word line="$ chrysalis"
	for word in "$@"; do
		case $word in *[!A-Za-z0-9_./:=@-]*) line+=" \"$word\"" ;; *) line+=" $word" ;; esac
	done
	printf '%s\n' "$line"
}
show() {
	say "$@"
	"$chrysalis" "$@"
}
# finished ends the last step, and says how long the whole took.
finished() {
	printf '   (%s s)\n\n%s seconds %s\ndemo: ok\n' $((SECONDS - last)) $((SECONDS - started)) "$*"
}
