/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both plugins use of QEMU 11.1 (plugin interface, version 7) and of glib, which QEMU has loaded; and how they speak to double. There is
 * no header for either in any package, so the few that are used stand here.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct { uint8_t *data; unsigned len; } GByteArray;
typedef struct { char *data; unsigned len; } GArray;
GByteArray *g_byte_array_new(void);
GByteArray *g_byte_array_append(GByteArray *, const uint8_t *, unsigned);
uint8_t *g_byte_array_free(GByteArray *, int);

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct { void *handle; const char *name, *feature; bool readonly; } descriptor;
enum { CB_RW_REGS = 2, CB_RW_REGS_PC };
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(void *, void *), void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
GArray *qemu_plugin_get_registers(void);
bool qemu_plugin_read_register(void *, GByteArray *);
bool qemu_plugin_write_register(void *, GByteArray *);
bool qemu_plugin_write_memory_vaddr(uint64_t, GByteArray *);
void qemu_plugin_set_pc(uint64_t);
__attribute__((visibility("default"))) int qemu_plugin_version = 7;

/* Of QEMU itself. Attributes of a memory access are eight bytes, of which zeros say nothing. */
extern char address_space_memory[];
uint32_t address_space_rw(void *, uint64_t at, uint64_t attributes, void *, uint64_t n, bool write);

/* A plugin names the registers that it reads and writes, and ends the list with NULL. */
extern const char *const names[];
static void *handles[32];
static const char *path, *self;
static bool tracing;

#define llu(x) ((unsigned long long)(x))
#define trace(...) do { if (tracing) { fprintf(stderr, "%s: ", self); fprintf(stderr, __VA_ARGS__); } } while (0)

static void options(const char *name, int argc, char **argv)
{
	self = name;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "socket=", 7))
			path = argv[i] + 7;
		tracing |= !strcmp(argv[i], "trace=on");
	}
}

/* The registers are there once a processor runs. */
static void find_registers(void)
{
	if (handles[0])
		return;
	GArray *all = qemu_plugin_get_registers();
	for (int r = 0; names[r]; r++) {
		for (unsigned i = 0; i < all->len; i++) {
			descriptor *d = &((descriptor *)all->data)[i];
			if (!handles[r] && d->name && !strcmp(d->name, names[r]))
				handles[r] = d->handle;
		}
		if (!handles[r]) {
			fprintf(stderr, "%s: QEMU has no register %s\n", self, names[r]);
			abort();
		}
	}
}

static uint64_t get(int r)
{
	GByteArray *b = g_byte_array_new();
	uint64_t v = 0;
	qemu_plugin_read_register(handles[r], b);
	memcpy(&v, b->data, b->len < 8 ? b->len : 8);
	g_byte_array_free(b, 1);
	return v;
}

static void set(int r, uint64_t v)
{
	GByteArray *b = g_byte_array_append(g_byte_array_new(), (uint8_t *)&v, 8);
	qemu_plugin_write_register(handles[r], b);
	g_byte_array_free(b, 1);
}

static bool load(uint64_t at, void *to, size_t n)
{
	return address_space_rw(address_space_memory, at, 0, to, n, false) == 0;
}

static bool store(uint64_t at, const void *from, size_t n)
{
	return address_space_rw(address_space_memory, at, 0, (void *)from, n, true) == 0;
}

static bool all(int fd, bool out, void *p, size_t n)
{
	while (n) {
		ssize_t k = out ? write(fd, p, n) : read(fd, p, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return false;
		p = (char *)p + k;
		n -= k;
	}
	return true;
}

static int dial(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* What double answers: u8 operation, u32 length, bytes; u32 status, u32 length, bytes. Negative is a refusal or no double. */
static ssize_t ask_over(int fd, uint8_t op, void *in, uint32_t n, void *out, uint32_t room)
{
	uint32_t head[2];
	if (fd < 0 || !all(fd, true, &op, 1) || !all(fd, true, &n, 4) || !all(fd, true, in, n) || !all(fd, false, head, 8) ||
	    head[1] > room || !all(fd, false, out, head[1]))
		return -1;
	return head[0] ? -1 : (ssize_t)head[1];
}

static ssize_t ask(uint8_t op, void *in, uint32_t n, void *out, uint32_t room)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static int fd = -1;
	pthread_mutex_lock(&lock);
	if (fd < 0)
		fd = dial();
	ssize_t k = ask_over(fd, op, in, n, out, room);
	pthread_mutex_unlock(&lock);
	return k;
}
