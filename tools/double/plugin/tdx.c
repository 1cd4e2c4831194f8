/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TDX module inside QEMU's emulation, as a TCG plugin: firmware and kernel of a guest find themselves in a TD. What needs a
 * register or a key goes to the program double (main.go) behind a unix socket.
 *
 *	qemu … -accel tcg -cpu max,vendor=GenuineIntel,level=33 -smp 1 -bios OVMF.inteltdx.fd -plugin tdx.so,socket=PATH
 *
 * It plays:
 *	CPUID 0x21, at the first of which the list of memory (TD HOB) is laid where the firmware looks for it, as TDH.MEM.PAGE.ADD
 *	does, the processor is put into x2APIC mode and EFER.LME and NXE are set, as a TD starts with them;
 *	TDCALL: VP.INFO, MR.REPORT, MR.RTMR.EXTEND, MEM.PAGE.ACCEPT, VM.RD and VM.WR of any field as zero;
 *	TDVMCALL: HLT, I/O, RDMSR and WRMSR of the local APIC, MMIO, MapGPA, GetTdVmCallInfo, GetQuote (which goes on while the guest
 *	runs, on a thread of its own), ReportFatalError.
 *
 * It leaves out whatever makes a TD confidential or costs the guest an exception: no memory is private or encrypted, accepting a
 * page does nothing, nothing raises #VE, and the firmware enters in real mode, which its reset vector takes as well. The shared
 * bit is said to be bit 52 of an address, which the emulated MMU ignores. There is one processor.
 *
 * Beside what both plugins use (qemu.h) it takes what QEMU exports for its own modules: ports, memory from another thread, and the local
 * APIC. Leaves and fields: Intel TDX Module ABI Reference; TDVMCALL: Intel TDX Guest-Hypervisor Communication Interface, section 3.
 */
#include "qemu.h"

/* Of QEMU itself, beside what both plugins use. */
void rcu_register_thread(void);
void rcu_unregister_thread(void);
void *object_resolve_path(const char *, bool *ambiguous);
void memory_region_set_readonly(void *, bool);
void bql_lock_impl(const char *file, int line);
void bql_unlock(void);
uint8_t cpu_inb(uint32_t);
uint16_t cpu_inw(uint32_t);
uint32_t cpu_inl(uint32_t);
void cpu_outb(uint32_t, uint8_t);
void cpu_outw(uint32_t, uint16_t);
void cpu_outl(uint32_t, uint32_t);
void *cpu_get_current_apic(void);
uint64_t cpu_get_apic_base(void *);
int cpu_set_apic_base(void *, uint64_t);
int apic_msr_read(void *, int, uint64_t *);
int apic_msr_write(void *, int, uint64_t);

enum { RAX, RBX, RCX, RDX, R8, R9, R10, R11, R12, R13, R14, R15, CS, EFER };
const char *const names[] = {
	"rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cs", "efer", NULL
};
static bool launched;
static uint64_t attributes; /* of the TD */

#define GPA_WIDTH 53
#define SHARED (1ull << (GPA_WIDTH - 1))
#define load_shared(at, to, n) load((at) & ~SHARED, to, n)
#define store_shared(at, from, n) store((at) & ~SHARED, from, n)

static const uint64_t invalid_operand = 0xC000010000000000ull;	/* TDX_OPERAND_INVALID */
static const uint64_t refused = 0x8000000000000000ull;		/* TDVMCALL_STATUS_INVALID_OPERAND */

enum { REPORT = 1, EXTEND, QUOTE, LAUNCH };

/* A quote's buffer: u64 version, u64 status, u32 length in, u32 length out, data. */
enum { QUOTE_STATUS = 8, QUOTE_IN = 16, QUOTE_OUT = 20, QUOTE_DATA = 24, REPORT_BYTES = 1024 };
struct quote {
	uint64_t at, room;
	uint8_t report[REPORT_BYTES];
};

/* The host's side of one quote: the guest goes on, and looks at the status from time to time. */
static void *serve_quote(void *p)
{
	struct quote *q = p;
	static const size_t most = 1 << 20;
	uint8_t *answer = malloc(most);
	uint64_t status = refused;
	int fd = dial();
	ssize_t n = ask_over(fd, QUOTE, q->report, REPORT_BYTES, answer, most);
	rcu_register_thread();
	if (n >= 8 && (uint64_t)n - 8 <= q->room - QUOTE_DATA) {
		uint32_t length = n - 8;
		memcpy(&status, answer, 8);
		store_shared(q->at + QUOTE_DATA, answer + 8, length);
		store_shared(q->at + QUOTE_OUT, &length, 4);
	}
	store_shared(q->at + QUOTE_STATUS, &status, 8);
	rcu_unregister_thread();
	if (fd >= 0)
		close(fd);
	free(answer);
	free(q);
	return NULL;
}

static bool begin_quote(uint64_t at, uint64_t room)
{
	static const uint64_t in_flight = ~0ull;	/* GET_QUOTE_IN_FLIGHT */
	uint32_t length;
	pthread_t thread;
	struct quote *q = malloc(sizeof(*q));
	q->at = at, q->room = room;
	if (room < QUOTE_DATA + REPORT_BYTES || !load_shared(at + QUOTE_IN, &length, 4) || length != REPORT_BYTES ||
	    !load_shared(at + QUOTE_DATA, q->report, REPORT_BYTES) || !store_shared(at + QUOTE_STATUS, &in_flight, 8) ||
	    pthread_create(&thread, NULL, serve_quote, q)) {
		free(q);
		return false;
	}
	pthread_detach(thread);
	return true;
}

static bool port(uint64_t size, bool write, uint32_t number, uint64_t *value)
{
	switch (size) {
	case 1:
		write ? cpu_outb(number, *value) : (void)(*value = cpu_inb(number));
		return true;
	case 2:
		write ? cpu_outw(number, *value) : (void)(*value = cpu_inw(number));
		return true;
	case 4:
		write ? cpu_outl(number, *value) : (void)(*value = cpu_inl(number));
		return true;
	}
	return false;
}

enum { APIC_BASE = 0x1b, X2APIC = 0x800, X2APIC_END = 0x8ff };

static bool msr(bool write, uint32_t number, uint64_t *value)
{
	bool ok = false;
	bql_lock_impl(__FILE__, __LINE__);
	if (number == APIC_BASE && !write)
		*value = cpu_get_apic_base(cpu_get_current_apic()), ok = true;
	else if (number >= X2APIC && number <= X2APIC_END && write)
		ok = apic_msr_write(cpu_get_current_apic(), number - X2APIC, *value) == 0;
	else if (number >= X2APIC && number <= X2APIC_END)
		ok = apic_msr_read(cpu_get_current_apic(), number - X2APIC, value) == 0;
	bql_unlock();
	return ok;
}

static void vmcall(void)
{
	uint64_t fn = get(R11), a = get(R12), b = get(R13), c = get(R14), d = get(R15), value = 0, status = 0;
	switch (fn) {
	case 12:	/* HLT: a wait, after which the guest looks again what there is to do */
		usleep(500);
		break;
	case 30:	/* I/O: size, direction, port, value */
		value = d;
		if (!port(a, b, c, &value))
			status = refused;
		break;
	case 31:	/* RDMSR */
		if (!msr(false, a, &value))
			status = refused;
		break;
	case 32:	/* WRMSR */
		value = b;
		if (!msr(true, a, &value))
			status = refused;
		break;
	case 48:	/* MMIO: size, direction, address, value */
		value = d;
		if ((a != 1 && a != 2 && a != 4 && a != 8) || !(b ? store_shared(c, &value, a) : load_shared(c, (value = 0, &value), a)))
			status = refused;
		break;
	case 0x10000:	/* GetTdVmCallInfo */
		for (int r = R12; r <= R14; r++)
			set(r, 0);
		break;
	case 0x10001:	/* MapGPA */
		break;
	case 0x10002:	/* GetQuote */
		if (!begin_quote(a, b))
			status = refused;
		break;
	case 0x10003:	/* ReportFatalError */
		fprintf(stderr, "tdx: the guest reports fatal error %#llx\n", llu(a));
		break;
	default:
		fprintf(stderr, "tdx: TDVMCALL %#llx of %#llx %#llx %#llx %#llx is not played\n", llu(fn), llu(a), llu(b), llu(c), llu(d));
		status = refused;
	}
	if (status)
		fprintf(stderr, "tdx: TDVMCALL %llu of %#llx %#llx %#llx refused\n", llu(fn), llu(a), llu(b), llu(c));
	set(R10, status);
	set(R11, value);
}

static void tdcall(unsigned cpu, void *next)
{
	find_registers();
	if ((get(CS) & 3) == 3)
		return; /* a program's: the processor makes an invalid instruction of it */
	uint8_t buf[REPORT_BYTES];
	uint64_t leaf = get(RAX) & 0xffff, rcx = get(RCX), rdx = get(RDX), ret = 0;
	if (leaf != 0 && leaf != 6)
		trace("TDCALL %llu of %#llx %#llx at %#llx\n", llu(leaf), llu(rcx), llu(rdx), llu((uintptr_t)next));
	switch (leaf) {
	case 0:		/* VP.VMCALL */
		vmcall();
		break;
	case 1:		/* VP.INFO: width, attributes, processors there are and may be, this one's number */
		set(RCX, GPA_WIDTH), set(RDX, attributes), set(R8, 1ull << 32 | 1), set(R9, cpu), set(R10, 0), set(R11, 0);
		break;
	case 2:		/* MR.RTMR.EXTEND: address, register */
		buf[0] = rdx;
		if (rdx > 3 || rcx & 63 || !load_shared(rcx, buf + 1, 48) || ask(EXTEND, buf, 49, buf, 0) < 0)
			ret = invalid_operand;
		break;
	case 4:		/* MR.REPORT: report, data, subtype */
		if (rcx & 1023 || rdx & 63 || !load_shared(rdx, buf, 64) || ask(REPORT, buf, 64, buf, sizeof(buf)) != REPORT_BYTES ||
		    !store_shared(rcx, buf, REPORT_BYTES))
			ret = invalid_operand;
		break;
	case 6:		/* MEM.PAGE.ACCEPT */
		break;
	case 7:		/* VM.RD: field */
	case 8:		/* VM.WR */
		set(R8, 0);
		break;
	default:
		fprintf(stderr, "tdx: TDCALL %llu is not played\n", llu(leaf));
		ret = invalid_operand;
	}
	set(RAX, ret);
	qemu_plugin_set_pc((uintptr_t)next);
}

/* What a TD finds when it starts, and an emulated machine does not. */
static void launch(void)
{
	enum { LME = 1 << 8, NXE = 1 << 11, X2APIC_MODE = 1 << 10 };
	static uint8_t hob[64 << 10];
	uint64_t at;
	ssize_t n = ask(LAUNCH, NULL, 0, hob, sizeof(hob)); /* attributes, address, list */
	launched = true;
	if (n < 16) {
		fprintf(stderr, "tdx: double gives no list of memory\n");
		exit(1);
	}
	memcpy(&attributes, hob, 8);
	memcpy(&at, hob + 8, 8);
	store_shared(at, hob + 16, n - 16);
	set(EFER, get(EFER) | LME | NXE);
	void *firmware = object_resolve_path("/machine/unattached/pc.bios[0]", NULL);
	if (!firmware) {
		fprintf(stderr, "tdx: QEMU has no firmware of -bios\n");
		exit(1);
	}
	bql_lock_impl(__FILE__, __LINE__);
	memory_region_set_readonly(firmware, false); /* a TD's firmware lies in memory of its own, and keeps variables there */
	cpu_set_apic_base(cpu_get_current_apic(), cpu_get_apic_base(cpu_get_current_apic()) | X2APIC_MODE);
	bql_unlock();
}

static void cpuid(unsigned cpu, void *next)
{
	(void)cpu;
	find_registers();
	if ((uint32_t)get(RAX) != 0x21)
		return;
	if (!launched)
		launch();
	set(RAX, 0), set(RBX, 0x65746e49), set(RCX, 0x20202020), set(RDX, 0x5844546c); /* "IntelTDX    " in EBX, EDX, ECX */
	qemu_plugin_set_pc((uintptr_t)next);
}

/* Either (id, block) or (block, user data), which is NULL: QEMU 11.1 changed it. */
static void translated(void *first, void *second)
{
	struct qemu_plugin_tb *tb = second ? second : first;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint8_t b[16];
		size_t n = qemu_plugin_insn_data(insn, b, sizeof(b));
		uint64_t at = qemu_plugin_insn_vaddr(insn);
		if (n >= 4 && !memcmp(b, "\x66\x0f\x01\xcc", 4))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, tdcall, CB_RW_REGS_PC, (void *)(uintptr_t)(at + 4));
		else if (n == 2 && !memcmp(b, "\x0f\xa2", 2))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, cpuid, CB_RW_REGS_PC, (void *)(uintptr_t)(at + 2));
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	(void)info;
	options("tdx", argc, argv);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	return path ? 0 : -1;
}
