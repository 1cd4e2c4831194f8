package status

// failedSuffix makes the code of a step's failure out of its name.
const failedSuffix = "-failed"

// word is a step or a code by its name on the wire. A step's hint is that of its failure.
type word struct{ name, hint string }

// The one table of the vocabulary, by the numbers of the constants. Hints speak to whoever runs the host.
var (
	stages = []string{Initrd: "initrd", PID1: "pid1"}

	steps = []word{
		Mounts: {"mounts", "the kernel lacks a file system that init needs: take kernel and initrd from one release"},
		Status: {"status", "the status port is there and does not open: start the guest with chrysalis up, or with " +
			"its shape's devices"},
		Cmdline: {"cmdline", "the kernel's command line is not the release's: pass the bytes of the release's " +
			"cmdline file, and nothing else"},
		Modules: {"modules", "a kernel module did not load: take kernel and initrd from one release"},
		Root:    {"root", "the root disk is missing, or is not the one that this initrd names: take both from one release"},
		Hardening: {"hardening", "a switch of the kernel is not as the release wants it: boot the release's kernel, " +
			"initrd and cmdline as they are"},
		Entropy:         {"entropy", "the kernel's random generator was not seeded: the processor must offer RDRAND or RDSEED"},
		CorruptionWatch: {"corruption-watch", "the kernel gave init no socket for its own messages: boot the release's kernel"},
		Platform:        {"platform", "the machine is no TD, no SEV-SNP guest and has no TPM that answers; or its hardware refuses what it was asked first: boot the release as chrysalis up does"},
		Config:          {"config", "the config disk is missing or holds no config: chrysalis up writes it, from what --config names"},
		EngineVolume: {"engine-volume", "the engine's disk is missing, or is not the volume that the config names; check " +
			"it with: chrysalis volume check"},
		ModelVolume: {"model-volume", "the model's disk is missing, or is not the volume that the config names; check " +
			"it with: chrysalis volume check"},
		GPU:        {"gpu", "the GPUs could not be brought up, or what was found of them could not be logged: start the guest again"},
		ModuleLock: {"module-lock", "the kernel did not let its modules be locked: boot the release's kernel"},
		Handover:   {"handover", "the host document is none; or the way of sealing did not answer while the secret was handed over: start the guest again, and it has the secret or has handed it over"},
		Borrower:   {"borrower", "no custodian answers at the address that the host document names, or what judges it did not come up: start the custodian first, and name its address"},
		Custodian:  {"custodian", "the custodian did not come up: see that the machine has the journal disk, and that it can be written"},
		Settle:     {"settle", "what asks the custodian that had the secret did not come up, or its disk fails: start the guest again, with the same address"},
		Lender:     {"lender", "the lender did not come up: give the guest more memory; on a vtpm the identity's custody must name the maker of the TPMs"},
		Secret:     {"secret", "what the config seals the secret with gave none for another reason than its policy: it does not answer, or its state is older than the guest's last boot; put the newest state back"},
		Network: {"network", "the guest got no address, or its port was taken: give its network card a DHCP server, or " +
			"another host document"},
		Containerd: {"containerd", "containerd did not come up: give the guest more memory"},
		Fetch:      {"fetch", "what asks liteservers did not come up: the host document must name two liteservers or more, and the root's params"},
		Keeper:     {"keeper", "the keeper did not come up: see that the machine has the journal disk, and that it can be written"},
		Engine:     {"engine", "the engine did not come up in its time: look at the config's arguments, memory limit and model"},
		Gateway:    {"gateway", "the gateway did not come up: give the guest more memory"},
	}

	events = []string{KernelUp: "kernel-up", EngineUp: "engine-up", EngineDown: "engine-down", SecretMoved: "secret-moved",
		QuoteLate: "quote-late", QuoteBusy: "quote-busy", QuoteRefused: "quote-refused", QuoteForeign: "quote-foreign", QuoteFailed: "quote-failed"}

	codes = []word{
		ConfigForeign: {"config-foreign", "the config on the disk is not the one that the machine was launched with: launch it with the hash of this one (MRCONFIGID of a TD, HOST_DATA of an SEV-SNP guest), as chrysalis up does"},
		IdentityUnfit: {"identity-unfit", "identity.cocoon of the config is a TD's, and this machine is none: leave it out, or start the guest on TDX"},
		EngineUnfit:   {"engine-unfit", "service.engine of the config has an argument or a variable that its dialect does not take, or lacks one that it must have: chrysalis config check names it"},
		SealingUnfit:  {"sealing-unfit", "identity.sealing of the config is not to be had on this machine: tpm-pcr needs a TPM, snp-derived an SEV-SNP guest; a TD has ephemeral, or custodian with another TD that keeps its secret"},
		VolumeCorrupt: {"volume-corrupt", "a block of the engine or model volume is not what its root hash says; check it " +
			"with: chrysalis volume check"},
		GPUUnasked:       {"gpu-unasked", "the machine has a GPU that the config does not ask for: start it without, or name it in service.gpu of the config"},
		GPUNone:          {"gpu-none", "the config asks for GPUs and the machine has none: pass them to the guest, or set service.gpu of the config to none"},
		GPUCount:         {"gpu-count", "the machine has another number of GPUs than service.gpu of the config asks for"},
		GPUReset:         {"gpu-reset", "a GPU could not be reset by itself, or something had it before: power the machine off and on, and pass the whole device to the guest"},
		GPUDriver:        {"gpu-driver", "the driver did not take every GPU: boot an image that has it, and power the machine off and on before the next try"},
		GPUState:         {"gpu-state", "the driver has other devices than the machine, or confidential mode is off, or development mode on: set the mode of the GPUs on the host, and start the guest again"},
		GPUUnverified:    {"gpu-unverified", "the evidence of the GPUs was refused: see that the host document has the reference values of this driver and firmware, and the clock is right; chrysalis appraise nvidia judges it outside of a guest"},
		GPUReady:         {"gpu-ready", "the GPUs were verified and do not take work: power the machine off and on, and start the guest again"},
		GPULost:          {"gpu-lost", "a GPU fell out, or what speaks to its driver did: look at the host's log for errors on its bus, and start the guest again"},
		UnsealRefused:    {"unseal-refused", "the secret was sealed for another image, identity or chip, or at a higher patch level of the firmware; run those, use another --dir, or start anew with: chrysalis down --forget (the old key is then gone; the claims that it handed out stay)"},
		HandedOver:       {"handed-over", "nothing is wrong: the secret is sealed to the image that was named, and to this one no more; start that one, as chrysalis upgrade does"},
		HandoverRefused:  {"handover-refused", "the secret was not handed over: enough of the keys in this image must have signed a list that names the other one with a higher security version, the identity's handover must allow it, and the way of sealing be tpm-pcr; this image still has the secret"},
		PlatformLost:     {"platform-lost", "the kernel closed the guest's channel to the processor's firmware, after an answer that the host changed, repeated or left out: look at the host's kernel and QEMU, and start the guest again"},
		ContainerdExited: {"containerd-exited", "containerd ended: give the guest more memory"},
		KeeperExited:     {"keeper-exited", "the keeper ended: what it had recorded is on the journal disk; start the guest again"},
		EngineHostExited: {"engine-host-exited", "the engine did not come up any more: look at the config's arguments, " +
			"memory limit and model"},
		EngineHostFailed: {"engine-host-failed", "the engine's host gave up: look at the config's arguments, memory limit and model"},
		GatewayExited:    {"gateway-exited", "the gateway ended: give the guest more memory, and start it again"},
		BorrowerExited:   {"borrower-exited", "what renews the loan ended: start the guest again, and it borrows its secret anew"},
		CustodianExited:  {"custodian-exited", "the custodian ended: on a TD the secret that it kept is gone with it; elsewhere start it again"},
		LenderExited:     {"lender-exited", "the lender ended: give the guest more memory; on a TD the secret that it kept is gone with it; elsewhere start it again"},
		LoanRefused:      {"loan-refused", "custodian and guest do not accept each other: both must be of one platform, identity, image and shape of machine, or the guest's of a signed successor (--list), with collateral that holds; and the custodian must have answered, and still have the secret"},
		LoanHeld:         {"loan-held", "another guest has the secret and renews its loan: stop that one first"},
		LoanLost:         {"loan-lost", "the loan was not renewed in time: the custodian is gone, or can't be reached; start the guest again once it answers"},
		SecretUnsettled:  {"secret-unsettled", "the custodian that gave the secret has not said that it has it no more, so this one lends nothing: start it again with --take-from and that one's address; where that one has given the secret to somebody else, or lends it again, forget this guest (chrysalis down --forget) and take the secret over anew"},
		FetchExited:      {"fetch-exited", "what asks liteservers ended: give the guest more memory, and start it again"},
		ParamsRefused:    {"params-refused", "the root's params in the host document are not those that the config's service.chain names, or have another price or weights than the config: hand the guest the params of which the config has the hash"},
		ProxyOpen:        {"proxy-open", "the journal has an open book of other contracts than the config leads to: start the guest with the config before, close those contracts, and change it then"},
		JournalTorn: {"journal-torn", "records are missing in the middle of the journal disk; put a good copy of the " +
			"newest state back"},
		JournalForeign: {"journal-foreign", "the journal disk belongs to another guest, or its header was changed"},
		JournalOld: {"journal-old", "the journal was made by a release with another layout; run that one, or begin with an empty disk and a new secret " +
			"(chrysalis down --forget)"},
		JournalRolledBack: {"journal-rolled-back", "the journal disk is older than this guest's last boot; put the newest back"},
		JournalIO:         {"journal-io", "the journal disk can't be read or written; look at the host's disk"},
		JournalFull:       {"journal-full", "the journal disk is too small for its payment contracts; give it a larger one with the same beginning"},
		JournalCorrupt:    {"journal-corrupt", "a record of the journal was changed; put a good copy of the newest state back"},
		JournalShort:      {"journal-short", "the journal disk is shorter than it was"},
		JournalRefused:    {"journal-refused", "the keeper could not go on with its journal; start the guest again"},
		Broken:            {"init-broken", "init met what it holds impossible: report it, with the release's name and the lines before"},
	}
)
