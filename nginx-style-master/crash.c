/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handler may call nothing that allocates or locks. So the executable's own symbol table is mapped
 * at set-up (static functions are in it, which backtrace_symbols_fd() cannot know), backtrace() is
 * called once for its lazy loading, and numbers are formatted by hand.
 */
#include "nginx-style-master/crash.h"

#include <elf.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/ucontext.h>
#include <time.h>
#include <unistd.h>

#define CRASH_FRAMES_MAX 64
#define CRASH_STACK_SIZE (64u << 10)

const char *volatile crash_note_;

static struct {
    int fd;
    const char *program, *version;
    char title[64];
    uintptr_t base;       /* where the executable was loaded */
    const ElfW(Sym) *symbols;
    size_t symbols_count;
    const char *names;
    size_t names_size;
    bool is_setup;
    volatile sig_atomic_t is_reporting;
    char stack[CRASH_STACK_SIZE] __attribute__((aligned(16)));
} crash = {.fd = STDERR_FILENO};

/* ---- text --------------------------------------------------------------------------------- */

struct text {
    char data[512];
    size_t len;
};

static void text_add(struct text *text, const char *string)
{
    for (; string != NULL && *string != '\0' && text->len < sizeof(text->data) - 1; string++) {
        unsigned char c = (unsigned char)*string;

        text->data[text->len++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
}

static void text_add_number(struct text *text, uint64_t number, unsigned base)
{
    char digits[24];
    size_t count = sizeof(digits) - 1;

    digits[count] = '\0';
    do
        digits[--count] = "0123456789abcdef"[number % base];
    while ((number /= base) != 0);
    text_add(text, base == 16 ? "0x" : "");
    text_add(text, digits + count);
}

static void text_emit(struct text *text)
{
    text->data[text->len++] = '\n';
    if (write(crash.fd, text->data, text->len) < 0)
        MAYBE(errno);
    text->len = 0;
}

/* ---- symbols ------------------------------------------------------------------------------ */

static int find_base(struct dl_phdr_info *info, size_t size, void *arg)
{
    MAYBE(size);
    *(uintptr_t *)arg = info->dlpi_addr; /* the first is the executable */
    return 1;
}

static void symbols_map(void)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    const ElfW(Ehdr) *elf;
    const ElfW(Shdr) *sections;
    struct stat st;
    void *map;

    if (fd < 0)
        return;
    if (fstat(fd, &st) != 0 || (size_t)st.st_size < sizeof(*elf)) {
        close(fd);
        return;
    }
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return;
    elf = map;
    if (elf->e_shoff == 0 ||
        elf->e_shoff + (uint64_t)elf->e_shnum * sizeof(*sections) > (uint64_t)st.st_size)
        return;
    sections = (const ElfW(Shdr) *)((const char *)map + elf->e_shoff);
    for (unsigned i = 0; i < elf->e_shnum; i++) {
        const ElfW(Shdr) *table = &sections[i], *names;

        if (table->sh_type != SHT_SYMTAB || table->sh_link >= elf->e_shnum)
            continue;
        names = &sections[table->sh_link];
        if (table->sh_offset + table->sh_size > (uint64_t)st.st_size ||
            names->sh_offset + names->sh_size > (uint64_t)st.st_size)
            return;
        crash.symbols = (const ElfW(Sym) *)((const char *)map + table->sh_offset);
        crash.symbols_count = table->sh_size / sizeof(ElfW(Sym));
        crash.names = (const char *)map + names->sh_offset;
        crash.names_size = names->sh_size;
        return;
    }
}

static bool symbol_add(struct text *text, uintptr_t address)
{
    uintptr_t off = address - crash.base;

    for (size_t i = 0; i < crash.symbols_count; i++) {
        const ElfW(Sym) *symbol = &crash.symbols[i];

        if (ELF64_ST_TYPE(symbol->st_info) != STT_FUNC || off < symbol->st_value ||
            off >= symbol->st_value + symbol->st_size || symbol->st_name >= crash.names_size)
            continue;
        text_add(text, crash.names + symbol->st_name);
        text_add(text, "+");
        text_add_number(text, off - symbol->st_value, 16);
        /* For addr2line. */
        text_add(text, " (exe+");
        text_add_number(text, off, 16);
        text_add(text, ")");
        return true;
    }
    return false;
}

static void backtrace_emit(void)
{
    void *frames[CRASH_FRAMES_MAX];
    int count = backtrace(frames, CRASH_FRAMES_MAX);

    for (int i = 0; i < count; i++) {
        struct text text = {.len = 0};

        text_add(&text, "crash:   #");
        text_add_number(&text, (uint64_t)i, 10);
        text_add(&text, " ");
        text_add_number(&text, (uintptr_t)frames[i], 16);
        text_add(&text, " ");
        /* A return address is behind the call; the call may be a function's last instruction. */
        if (symbol_add(&text, (uintptr_t)frames[i] - (i > 0))) {
            text_emit(&text);
        } else if (write(crash.fd, text.data, text.len) > 0) {
            backtrace_symbols_fd(&frames[i], 1, crash.fd);
        }
    }
}

/* ---- handler ------------------------------------------------------------------------------ */

static const char *signal_text(int signal_number)
{
    switch (signal_number) {
    case SIGSEGV:
        return "SIGSEGV";
    case SIGBUS:
        return "SIGBUS";
    case SIGABRT:
        return "SIGABRT";
    case SIGFPE:
        return "SIGFPE";
    case SIGILL:
        return "SIGILL";
    default:
        return "signal";
    }
}

static uintptr_t program_counter(const void *context)
{
#if defined(__x86_64__)
    return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.pc;
#else
    MAYBE(context);
    return 0;
#endif
}

static void crash_report(int signal_number, const siginfo_t *info, const void *context)
{
    struct text text = {.len = 0};
    const char *note = crash_note_;

    text_add(&text, "crash: ");
    text_add(&text, crash.title);
    text_add(&text, " version=");
    text_add(&text, crash.version);
    text_add(&text, " pid=");
    text_add_number(&text, (uint64_t)getpid(), 10);
    text_add(&text, " time=");
    text_add_number(&text, (uint64_t)time(NULL), 10);
    text_add(&text, " signal=");
    text_add(&text, signal_text(signal_number));
    if (info->si_code > 0) {
        text_add(&text, " address=");
        text_add_number(&text, (uintptr_t)info->si_addr, 16);
    } else {
        text_add(&text, " sender=");
        text_add_number(&text, (uint64_t)info->si_pid, 10);
    }
    text_add(&text, " at=");
    text_add_number(&text, program_counter(context), 16);
    text_add(&text, " ");
    MAYBE(symbol_add(&text, program_counter(context)));
    text_emit(&text);
    text_add(&text, "crash: command in execution: ");
    text_add(&text, note != NULL ? note : "none");
    text_emit(&text);
    backtrace_emit();
}

static void crash_handler(int signal_number, siginfo_t *info, void *context)
{
    int saved = errno;

    /* A fault inside the report ends it. */
    if (!crash.is_reporting) {
        crash.is_reporting = 1;
        crash_report(signal_number, info, context);
    }
    errno = saved;
    /* SA_RESETHAND has put the default action back, SA_NODEFER leaves it deliverable. */
    raise(signal_number);
}

void crash_setup(int fd, const char *program, const char *version)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    stack_t stack = {.ss_sp = crash.stack, .ss_size = sizeof(crash.stack)};
    struct sigaction action = {.sa_sigaction = crash_handler,
                               .sa_flags = (int)(SA_SIGINFO | SA_ONSTACK | SA_RESETHAND |
                                                 SA_NODEFER)};
    void *warm_up[4];

    crash.fd = fd;
    crash.program = program;
    crash.version = version;
    crash_title_set(program);
    if (crash.is_setup)
        return;
    crash.is_setup = true;
    MAYBE(backtrace(warm_up, 4));
    dl_iterate_phdr(find_base, &crash.base);
    symbols_map();
    sigaltstack(&stack, NULL);
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_COUNT(signals); i++)
        sigaction(signals[i], &action, NULL);
}

void crash_title_set(const char *title)
{
    size_t len = MIN(strlen(title), sizeof(crash.title) - 1);

    memcpy(crash.title, title, len);
    crash.title[len] = '\0';
}
