#!/usr/bin/env bash
# The demonstration of payments, on a chain of one's own: what a provider and a client type, wallets that send what they are handed, and what
# each has before and after, to the nanoton. The guest proves the chain for itself and signs; nobody here has its key.
set -euo pipefail
chrysalis=$1
localchain=$2
dir=build/guest-pay
chain=build/chain
root=(--roots "$dir/tpm-maker.pem")
source=(--ton-config "$chain/global.config.json" --insecure-trust-init-block --global-id -217)
question="What is the capital of Norway?"

steps=10
. "$(dirname "$0")/steps.sh"

# carried has a wallet send what a command hands over: carried WALLET COMMAND...
carried() {
	local wallet=$1
	shift
	set -- "$@" --wallet "$(address "$wallet")" --ton-connect
	say "$@"
	"$chrysalis" "$@" >"$chain/request.json"
	"$localchain" send -o "$chain" "$wallet" <"$chain/request.json"
}
address() { "$localchain" address "$1"; }
balances() {
	local name
	for name in provider payout client; do
		printf '   %-10s %20s nanotons\n' "$name" "$("$localchain" balance -o "$chain" "$name")"
	done
}
# until_done tries a command until it succeeds, once a second: blocks come every few seconds, and the guest has to see them.
until_done() {
	local left=90
	until "$@" >"$chain/said" 2>&1; do
		left=$((left - 1))
		if [ $left = 0 ]; then
			cat "$chain/said" >&2
			echo "demo: $* did not succeed" >&2
			return 1
		fi
		sleep 1
	done
}

# signed says whether the guest has signed such a message, which would land now.
signed() { "$chrysalis" claim next "${source[@]}" --dir "$dir" --wallet "$(address provider)" | grep -q "$1"; }

mkdir -p "$dir"
"$chrysalis" down --dir "$dir" --forget
rm -rf "$dir" "$chain"
mkdir -p "$dir" "$chain"
trap '"$chrysalis" down --dir "$dir" || true; [ -z "${server:-}" ] || kill "$server"' EXIT

step "a chain of one's own, with wallets whose keys everybody knows"
"$localchain" serve -o "$chain" provider payout client &
server=$!
until [ -e "$chain/ready" ]; do
	kill -0 "$server"
	sleep 0.1
done
template=$(cat "$chain/template.txt")
balances

step "provider: a config with a price, its root contract, and the guard of whom it pays"
show config init --price 5000000 -o "$chain/box.json"
carried provider earn init --like "$template" "${source[@]}" --config "$chain/box.json" --owner "$(address payout)" --output "$chain/paid.json"

step "provider: boot the published image with it"
show up --wait 8m --memory 1024 --dir "$dir" --config "$chain/paid.json" --ton-config "$chain/global.config.json" | tee "$dir/up.log"
url=$(tail -n 1 "$dir/up.log")

step "provider: the proxy contract of the guest's key, and a stake for its clients"
carried provider earn init --like "$template" "${source[@]}" --dir "$dir" --stake 10

step "client: decide what to trust, verify guest and contracts, open a contract of its own and pay in"
show policy --manifest build/release/manifest.json --shape "$dir/shape.json" --config "$chain/paid.json" --engine build/volumes/engine.img --model build/volumes/model.img -o "$dir/policy.json"
carried client client open "$url" --policy "$dir/policy.json" "${root[@]}" "${source[@]}" --deposit 9 --account "$dir/account.json"
carried client client topup "$url" --policy "$dir/policy.json" "${root[@]}" "${source[@]}" --deposit 1 --account "$dir/account.json"
show client status "${source[@]}" --account "$dir/account.json"

step "client: ask, and be charged"
# The guest has to have seen the contract. Who may have a key of its own under it is asked of the same book, and costs nothing.
until_done "$chrysalis" client keys add "$url" friend --cap 1000 --policy "$dir/policy.json" "${root[@]}" --account "$dir/account.json"
show chat "$url" --policy "$dir/policy.json" "${root[@]}" --account "$dir/account.json" --save "$dir/answer" "$question"

step "provider: what is earned, and the charge carried; it moves no coin"
show earn status "${source[@]}" --dir "$dir"
carried provider claim submit "${source[@]}" --dir "$dir"
balances

step "provider: the guest has seen it, and pays out what the charge took"
until_done signed worker-payout
carried provider claim submit "${source[@]}" --dir "$dir"
show earn status "${source[@]}" --dir "$dir"
balances

step "client: close; the guest grants the rest"
carried client client close "${source[@]}" --account "$dir/account.json"
until_done signed client-refund
carried provider claim submit "${source[@]}" --dir "$dir"
show client status "${source[@]}" --account "$dir/account.json"
balances

step "provider: an end; the guest closes its contracts, and the stake comes back through the guard"
show down --dir "$dir"
show up --wait 8m --memory 1024 --dir "$dir" --config "$chain/paid.json" --end-contracts
for message in proxy-close worker-last-payout proxy-close-complete; do
	until_done signed $message
	carried provider claim submit "${source[@]}" --dir "$dir"
done
show earn status "${source[@]}" --dir "$dir"
balances

finished "from a chain to its coins back"
