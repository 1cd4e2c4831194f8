#!/usr/bin/env bash
# The demonstration: what a provider, a client and an auditor type, one after the other. KEEP=1 leaves the guest running.
# PLATFORM=tdx has the same release run as a TD of a software TDX, PLATFORM=sev-snp as an SEV-SNP guest of a software processor.
set -euo pipefail
chrysalis=$1
platform=${PLATFORM:-vtpm}
dir=build/guest
case $platform in
vtpm)
	root=(--roots "$dir/tpm-maker.pem")
	newest=()
	;;
tdx)
	dir=build/guest-tdx
	root=(--tdx-root "$dir/tdx-root.pem")
	# What Intel's service says of hardware, the software TDX says of itself.
	newest=(--collateral "$dir/collateral.json" --root "$dir/tdx-root.pem")
	;;
sev-snp)
	dir=build/guest-sev-snp
	root=(--snp-root "$dir/snp-root.pem")
	# What this client holds a processor to, and the one thing that nothing on SEV-SNP measures.
	newest=(--min-tcb Milan=bootloader:4,tee:1,snp:22,microcode:213 --waive acpi)
	;;
*)
	echo "demo: PLATFORM is $platform, want vtpm, tdx or sev-snp" >&2
	exit 2
	;;
esac
question="What is the capital of Norway?"
answer="The capital of Norway is Oslo."

steps=7
. "$(dirname "$0")/steps.sh"

mkdir -p "$dir"
"$chrysalis" down --dir "$dir"
if { [ -d "$dir/tpm" ] || [ -f "$dir/snp-chip.key" ]; } && ! sha256sum --status -c "$dir/release.sha256" 2>/dev/null; then
	echo "The image has changed since the last run. Its hardware keeps the old image's secret from the new one, so this run starts a new guest."
	"$chrysalis" down --dir "$dir" --forget
	mkdir -p "$dir"
fi
sha256sum build/release/manifest.json >"$dir/release.sha256"
trap '[ -n "${KEEP:-}" ] && [ -n "${served:-}" ] || "$chrysalis" down --dir "$dir" || true' EXIT

step "provider: boot the published image with an engine and a model"
[ "$platform" = vtpm ] && up=(up --dir "$dir") || up=(up --platform "$platform" --dir "$dir" --wait 5m)
# Not by way of /dev/stderr: where that is a file, opening it again empties it.
show "${up[@]}" | tee "$dir/up.log"
url=$(tail -n 1 "$dir/up.log")
served=1

step "client: decide what to trust"
if [ "$platform" = vtpm ]; then
	echo "This client trusts three things: the release manifest, the policy it makes from it, and the CA that made this run's TPM."
else
	echo "This client trusts three things: the release manifest, the policy it makes from it, and the root of the software that plays this machine's processor."
	echo "On hardware that root is Intel's or AMD's, and no flag names it. This one is software's, on a machine that can read the guest."
fi
echo "The shape of the machine is the provider's to choose, out of a closed list of devices; what it must show is computed."
show policy --manifest build/release/manifest.json --shape "$dir/shape.json" --engine build/volumes/engine.img --model build/volumes/model.img "${newest[@]}" -o "$dir/policy.json"

step "client: verify before a word is sent"
if ! show verify "$url" --policy "$dir/policy.json" "${root[@]}"; then
	# Tables are computed for this processor too, but no machine with working KVM has proved them yet. A client that wants the
	# demonstration all the same has to say that it does without PCR 1; nothing else is given up.
	[ "$platform" = vtpm ] && grep -q '"accelerator": *"kvm"' "$dir/shape.json" || exit 1
	"$chrysalis" verify "$url" --policy "$dir/policy.json" "${root[@]}" --json 2>/dev/null | grep -q '"check": "pcr-1"' || exit 1
	echo "PCR 1 is not what was computed for this processor under KVM. This client goes on without it, and says so in its policy:"
	show policy --manifest build/release/manifest.json --engine build/volumes/engine.img --model build/volumes/model.img -o "$dir/policy.json"
	show verify "$url" --policy "$dir/policy.json" "${root[@]}"
fi

step "client: ask, over the channel that was verified"
show chat "$url" --policy "$dir/policy.json" "${root[@]}" --save "$dir/answer" "$question"
got=$(cat "$dir/answer/answer.txt")
if [ "$got" != "$answer" ]; then
	echo "demo: the model said: $got" >&2
	echo "demo: want:           $answer" >&2
	exit 1
fi

step "auditor: the signed claim, checked alone"
show claim verify --body "$dir/answer/charge.boc" --pubkey "$(cat "$dir/answer/claim-key.hex")" --contract "$(cat "$dir/answer/contract.txt")"

step "provider: what was earned, as the guest handed it out"
show claim list --dir "$dir"

if [ -n "${KEEP:-}" ]; then
	step "the guest stays up"
	echo "Ask it:   $chrysalis chat $url --policy $dir/policy.json ${root[*]} \"Count from 1 to 6.\""
	echo "Watch it: $chrysalis status --dir $dir"
	echo "Stop it:  $chrysalis down --dir $dir"
else
	step "provider: power off"
	show down --dir "$dir"
fi
finished "from boot to claim"
