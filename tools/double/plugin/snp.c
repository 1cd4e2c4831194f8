/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An AMD Secure Processor inside QEMU's emulation, as a TCG plugin: firmware and kernel of a guest find themselves in an SEV-SNP guest.
 * What needs a key goes to the program double (main.go) behind a unix socket.
 *
 *	qemu … -accel tcg -cpu EPYC-v4,xlevel=0x8000001f -smp 1 -bios OVMF.amdsev.fd -plugin snp.so,socket=PATH
 *
 * It plays:
 *	CPUID 0x8000001F, at the first of which the pages of the launch are laid where the firmware looks for them: secrets, CPUID and the
 *	hashes of kernel, initrd and command line;
 *	the MSRs SEV_STATUS and GHCB;
 *	PVALIDATE and RMPADJUST, each of which it writes over, once it is reached, with an instruction of the same length that says success;
 *	VMGEXIT: the protocol of the MSR (SEV information, features, registration of the GHCB, page state, termination) and of the page (page
 *	state, features, jump table of other processors, guest requests with and without certificates, which double answers).
 *
 * It leaves out whatever makes a guest confidential or costs it an exception: no memory is private, encrypted or validated, and
 * nothing raises #VC: the guest's CPUID, ports and memory of devices are the emulation's. The C-bit is said to be bit 52 of an address, which
 * the emulated MMU ignores. There is one processor.
 *
 * Sources: SEV-ES Guest-Hypervisor Communication Block Standardization (AMD 56421), AMD64 Architecture Programmer's Manual, volume 2,
 * section 15.36.
 */
#include "qemu.h"

/* In the order in which instructions number them. */
enum { RAX, RCX, RDX, RBX, CS = 16 };
const char *const names[] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cs", NULL
};

#define C_BIT 52
#define PLAIN(at) ((at) & ~(1ull << C_BIT))

enum { LAUNCH = 4, MESSAGE, CERTIFICATES };
enum { MSR_GHCB = 0xc0010130, MSR_SEV_STATUS = 0xc0010131 };
enum { PAGE = 4096 };

static bool launched;
static uint64_t ghcb;

/* What a guest finds when it starts, and an emulated machine does not: pages as u64 address, u32 length, bytes, one after the other. */
static void launch(void)
{
	static uint8_t pages[64 << 10];
	ssize_t n = ask(LAUNCH, NULL, 0, pages, sizeof(pages));
	launched = true;
	if (n <= 0) {
		fprintf(stderr, "snp: double gives no pages of the launch\n");
		exit(1);
	}
	for (ssize_t at = 0; at < n;) {
		uint64_t address;
		uint32_t length;
		memcpy(&address, pages + at, 8);
		memcpy(&length, pages + at + 8, 4);
		if (!store(address, pages + at + 12, length)) {
			fprintf(stderr, "snp: no memory for the page at %#llx\n", llu(address));
			exit(1);
		}
		at += 12 + length;
	}
}

static void cpuid(unsigned cpu, void *next)
{
	(void)cpu;
	find_registers();
	if ((uint32_t)get(RAX) != 0x8000001f)
		return;
	if (!launched)
		launch();
	set(RAX, 1 << 1 | 1 << 3 | 1 << 4), set(RBX, C_BIT), set(RCX, 0), set(RDX, 0); /* SEV, SEV-ES, SEV-SNP */
	qemu_plugin_set_pc((uintptr_t)next);
}

/* A program's instruction: the processor makes an invalid one of it. */
static bool user(void)
{
	find_registers();
	return (get(CS) & 3) == 3;
}

static void rdmsr(unsigned cpu, void *next)
{
	(void)cpu;
	if (user())
		return;
	uint64_t value;
	switch ((uint32_t)get(RCX)) {
	case MSR_GHCB:
		value = ghcb;
		break;
	case MSR_SEV_STATUS:
		value = 7; /* SEV, SEV-ES, SEV-SNP */
		break;
	default:
		return;
	}
	set(RAX, (uint32_t)value), set(RDX, value >> 32);
	qemu_plugin_set_pc((uintptr_t)next);
}

static void wrmsr(unsigned cpu, void *next)
{
	(void)cpu;
	if (user())
		return;
	if ((uint32_t)get(RCX) != MSR_GHCB)
		return;
	ghcb = (uint32_t)get(RAX) | get(RDX) << 32;
	qemu_plugin_set_pc((uintptr_t)next);
}

/* Fields of a GHCB. */
enum { GHCB_RAX = 0x1f8, GHCB_RBX = 0x318, EXIT_CODE = 0x390, EXIT_1 = 0x398, EXIT_2 = 0x3a0, SCRATCH = 0x3a8 };
enum { FEATURES = 1 | 1 << 1 }; /* SEV-SNP, creation of processors */

/* The hypervisor takes the message for the firmware, and puts its answer into the other page. */
static uint64_t request(uint64_t in, uint64_t out, bool extended, uint64_t certificates, uint64_t *pages)
{
	static const uint64_t too_few = 1ull << 32, busy = 2ull << 32;
	static uint8_t table[64 << 10];
	uint8_t message[PAGE];
	if (extended) {
		ssize_t n = ask(CERTIFICATES, NULL, 0, table, sizeof(table));
		uint64_t want = n > 0 ? (n + PAGE - 1) / PAGE : 0;
		if (want > *pages) {
			*pages = want;
			return too_few;
		}
		static const uint8_t none[24];
		if (n <= 0)
			store(certificates, none, sizeof(none));
		else
			store(certificates, table, n);
	}
	if (!load(in, message, PAGE))
		return busy;
	ssize_t n = ask(MESSAGE, message, PAGE, message, PAGE);
	uint64_t code = 0x16; /* INVALID_PARAM */
	if (n == PAGE && store(out, message, PAGE))
		return 0;
	if (n == 8) /* an error of the firmware, or above it of the hypervisor */
		memcpy(&code, message, 8);
	return code;
}

static uint64_t page_state(uint64_t at)
{
	uint16_t entries[2]; /* the current one and the last */
	if (!load(at, entries, 4))
		return 0;
	entries[0] = entries[1] + 1;
	store(at, entries, 2);
	return 0;
}

static void by_page(uint64_t at)
{
	uint64_t code, one, two, scratch, rax, rbx, zero = 0, answer = 0;
	load(at + EXIT_CODE, &code, 8), load(at + EXIT_1, &one, 8), load(at + EXIT_2, &two, 8), load(at + SCRATCH, &scratch, 8);
	load(at + GHCB_RAX, &rax, 8), load(at + GHCB_RBX, &rbx, 8);
	trace("VMGEXIT %#llx of %#llx %#llx\n", llu(code), llu(one), llu(two));
	switch (code) {
	case 0x80000005:	/* AP_JUMP_TABLE */
		break;
	case 0x80000010:	/* page state change */
		answer = page_state(PLAIN(scratch));
		break;
	case 0x80000011:	/* guest request */
	case 0x80000012:	/* with certificates */
		answer = request(PLAIN(one), PLAIN(two), code == 0x80000012, PLAIN(rax), &rbx);
		store(at + GHCB_RBX, &rbx, 8);
		break;
	case 0x8000fffd:	/* features */
		answer = FEATURES;
		break;
	default:
		fprintf(stderr, "snp: VMGEXIT %#llx of %#llx %#llx is not played\n", llu(code), llu(one), llu(two));
	}
	store(at + EXIT_1, &zero, 8);
	store(at + EXIT_2, &answer, 8);
}

static void vmgexit(unsigned cpu, void *next)
{
	(void)cpu;
	if (user())
		return;
	uint64_t value = ghcb >> 12;
	switch (ghcb & 0xfff) {
	case 0x000:	/* the page */
		by_page(PLAIN(ghcb));
		break;
	case 0x002:	/* SEV information: versions 1 and 2, the C-bit */
		ghcb = 0x001 | (uint64_t)C_BIT << 24 | 1ull << 32 | 2ull << 48;
		break;
	case 0x010:	/* preferred GHCB: none */
		ghcb = ~0ull << 12 | 0x011;
		break;
	case 0x012:	/* registers the GHCB */
		ghcb = value << 12 | 0x013;
		break;
	case 0x014:	/* page state change */
		ghcb = 0x015;
		break;
	case 0x080:	/* features */
		ghcb = 0x081 | FEATURES << 12;
		break;
	case 0x100:	/* termination */
		fprintf(stderr, "snp: the guest ends itself with reason %llu:%#llx\n", llu(value & 0xf), llu(value >> 4 & 0xff));
		exit(1);
	default:
		fprintf(stderr, "snp: VMGEXIT by MSR %#llx is not played\n", llu(ghcb));
	}
	qemu_plugin_set_pc((uintptr_t)next);
}

/* XOR EAX, EAX; NOP; NOP: the result says success, and the carry flag that something has changed. */
static void succeed(unsigned cpu, void *here)
{
	(void)cpu;
	if (user())
		return;
	static const uint8_t success[4] = { 0x31, 0xc0, 0x90, 0x90 };
	GByteArray *b = g_byte_array_append(g_byte_array_new(), success, sizeof(success));
	if (!qemu_plugin_write_memory_vaddr((uintptr_t)here, b)) {
		fprintf(stderr, "snp: the instruction at %#llx can't be written over\n", llu((uintptr_t)here));
		exit(1);
	}
	g_byte_array_free(b, 1);
	qemu_plugin_set_pc((uintptr_t)here);
}

/* A MOV to CR3, whose address the emulated processor does not take with a C-bit. */
static void page_table(unsigned cpu, void *reg)
{
	(void)cpu;
	find_registers();
	uint64_t value = get((uintptr_t)reg);
	if (value != PLAIN(value))
		set((uintptr_t)reg, PLAIN(value));
}

static const struct {
	uint8_t length;
	const char *bytes;
	void (*play)(unsigned, void *);
	bool here; /* goes on at the instruction, and not behind it */
} instructions[] = {
	{ 2, "\x0f\xa2", cpuid, false },
	{ 2, "\x0f\x32", rdmsr, false },
	{ 2, "\x0f\x30", wrmsr, false },
	{ 4, "\xf3\x0f\x01\xd9", vmgexit, false },
	{ 4, "\xf2\x0f\x01\xff", succeed, true }, /* PVALIDATE */
	{ 4, "\xf3\x0f\x01\xfe", succeed, true }, /* RMPADJUST */
};

static void translated(void *first, void *second)
{
	struct qemu_plugin_tb *tb = second ? second : first;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint8_t b[16];
		size_t n = qemu_plugin_insn_data(insn, b, sizeof(b));
		uint64_t at = qemu_plugin_insn_vaddr(insn);
		size_t rex = n == 4 && (b[0] & 0xf0) == 0x40;
		if (n == 3 + rex && b[rex] == 0x0f && b[rex + 1] == 0x22 && (b[rex + 2] & 0xf8) == 0xd8)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, page_table, CB_RW_REGS,
							       (void *)(uintptr_t)((b[rex + 2] & 7) + (rex && b[0] & 1 ? 8 : 0)));
		for (size_t k = 0; k < sizeof(instructions) / sizeof(instructions[0]); k++) {
			size_t length = instructions[k].length;
			/* What QEMU does not know as an instruction may be longer than it is. */
			if ((length == 2 ? n == 2 : n >= length) && !memcmp(b, instructions[k].bytes, length))
				qemu_plugin_register_vcpu_insn_exec_cb(insn, instructions[k].play, CB_RW_REGS_PC,
								       (void *)(uintptr_t)(at + (instructions[k].here ? 0 : length)));
		}
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	(void)info;
	options("snp", argc, argv);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	return path ? 0 : -1;
}
