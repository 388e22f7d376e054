/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay_main.c - runs a fuzz target without libFuzzer, as a test: every seed of the corpus, and a
 * bounded number of mutations of each.
 *
 *     fuzz_resp [FILE|DIRECTORY]...      default: $srcdir/tests/fuzz/corpus/resp
 *
 * The mutations come from a fixed generator that starts anew for each seed, keyed by the seed's bytes:
 * what fails once fails again, whatever else is in the corpus. FUZZ_MUTATIONS=n sets how many a seed
 * gets (default: as many as keep the whole at 20,000, at most 2,000). The input under which the target
 * dies is written to crash-<target>.bin, which can be given as the argument to see it again.
 *
 * Output is TAP, one line a seed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef WEIR_FUZZ /* with --enable-fuzz libFuzzer brings main() */

#define INPUT_SIZE_MAX      (1u << 20)
#define MUTATIONS_SEED_MAX  2000u
#define MUTATIONS_SEED_MIN  20u
#define MUTATIONS_TOTAL     20000u
#define FILES_MAX           10000u
#define PATH_SIZE_MAX       1024u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static char *files[FILES_MAX];
static unsigned file_count;

/* What the target is looking at, for the death hook. */
static const uint8_t *current_data;
static size_t current_size;
static char crash_path[PATH_SIZE_MAX];

static void save_input(void)
{
    static const char note[] = "# the input is kept in ";
    size_t done = 0;
    int fd;

    if (current_data == NULL)
        return;
    fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    while (done < current_size) {
        ssize_t n = write(fd, current_data + done, current_size - done);

        if (n <= 0)
            break;
        done += (size_t)n;
    }
    close(fd);
    if (write(STDERR_FILENO, note, sizeof(note) - 1) < 0 ||
        write(STDERR_FILENO, crash_path, strlen(crash_path)) < 0 ||
        write(STDERR_FILENO, "\n", 1) < 0)
        return;
    current_data = NULL;
}

static void on_fatal_signal(int signo)
{
    save_input();
    signal(signo, SIG_DFL);
    raise(signo);
}

static void hook_death(void)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM};

    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(save_input);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        if (__sanitizer_set_death_callback == NULL || signals[i] == SIGABRT ||
            signals[i] == SIGALRM)
            signal(signals[i], on_fatal_signal);
}

/* Exact-size heap copies, so that the sanitizer sees one byte too far. */
static void run_one(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    if (copy == NULL)
        abort();
    if (size > 0)
        memcpy(copy, data, size);
    current_data = copy;
    current_size = size;
    alarm(20); /* an endless loop is a finding too */
    LLVMFuzzerTestOneInput(copy, size);
    alarm(0);
    current_data = NULL;
    free(copy);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u); /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(uint64_t *state, size_t limit)
{
    return limit == 0 ? 0 : (size_t)(next_random(state) % limit);
}

/* Bytes that mean something to our parsers. */
static const char *const tokens[] = {
    "\r\n", "\n", "\r", " ", "\t", ":", "-1", "0", "$-1\r\n", "*-1\r\n", "$0\r\n\r\n", "*0\r\n",
    "*1\r\n$4\r\nPING\r\n", "get a\r\n", "set a 0 0 1\r\nb\r\n", "END\r\n", "VALUE ", "noreply",
    "18446744073709551615", "9223372036854775807", "-9223372036854775808", "2147483648",
    "4294967296", "{", "}", "_\r\n", "#t\r\n", "~2\r\n", "%1\r\n", ">2\r\n", "|1\r\n", ",inf\r\n",
    "(1\r\n", "=4\r\ntxt:\r\n", "$?\r\n", ";0\r\n", "\x80\x00", "\x81\x00", "MN\r\n", "HD\r\n", "\"",
    "\\x00",
};

static size_t insert_at(uint8_t *data, size_t size, size_t at, const void *bytes, size_t count)
{
    if (count > INPUT_SIZE_MAX - size)
        return size;
    memmove(data + at + count, data + at, size - at);
    memcpy(data + at, bytes, count);
    return size + count;
}

static size_t mutate_once(uint8_t *data, size_t size, uint64_t *state)
{
    size_t at = below(state, size + 1);
    size_t count = 1 + below(state, size - at < 16 ? size - at : 16);
    uint8_t chunk[64];
    const char *token;

    if (count > size - at)
        count = size - at;
    switch (below(state, 9)) {
    case 0: /* one bit */
        if (at < size)
            data[at] ^= (uint8_t)(1u << below(state, 8));
        return size;
    case 1: /* one byte */
        if (at < size)
            data[at] = (uint8_t)next_random(state);
        return size;
    case 2: /* a digit: lengths and counts are digits */
        for (size_t i = at; i < size; i++)
            if (data[i] >= '0' && data[i] <= '9') {
                data[i] = (uint8_t)('0' + below(state, 10));
                break;
            }
        return size;
    case 3: /* cut the end off */
        return at;
    case 4: /* take a piece out */
        memmove(data + at, data + at + count, size - at - count);
        return size - count;
    case 5: /* say a piece twice */
        memcpy(chunk, data + at, count);
        return insert_at(data, size, at, chunk, count);
    case 6: /* a token */
    case 7:
        token = tokens[below(state, sizeof(tokens) / sizeof(tokens[0]))];
        return insert_at(data, size, at, token, strlen(token));
    default: /* a piece moved elsewhere */
        memcpy(chunk, data + at, count);
        memmove(data + at, data + at + count, size - at - count);
        size -= count;
        return insert_at(data, size, below(state, size + 1), chunk, count);
    }
}

static uint64_t seed_of(const uint8_t *data, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * 0x100000001b3u;
    return hash;
}

static void run_mutations(const uint8_t *data, size_t size, unsigned count)
{
    uint8_t *buffer = malloc(INPUT_SIZE_MAX);
    uint64_t state = seed_of(data, size);

    if (buffer == NULL)
        abort();
    for (unsigned i = 0; i < count; i++) {
        size_t len = size;

        if (size > 0)
            memcpy(buffer, data, size);
        for (size_t rounds = 1 + below(&state, 4); rounds > 0; rounds--)
            len = mutate_once(buffer, len, &state);
        run_one(buffer, len);
    }
    free(buffer);
}

/* NULL: unreadable or too large. */
static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data;

    if (file == NULL)
        return NULL;
    data = malloc(INPUT_SIZE_MAX);
    if (data != NULL) {
        *size = fread(data, 1, INPUT_SIZE_MAX, file);
        if (ferror(file) || !feof(file)) {
            free(data);
            data = NULL;
        }
    }
    fclose(file);
    return data;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void collect(const char *path)
{
    struct stat st;
    struct dirent *entry;
    DIR *dir;

    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
        if (file_count < FILES_MAX)
            files[file_count++] = strdup(path);
        return;
    }
    dir = opendir(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL && file_count < FILES_MAX) {
        char full[PATH_SIZE_MAX];

        if (entry->d_name[0] == '.')
            continue;
        snprintf(full, sizeof(full), "%s/%s", path, entry->d_name);
        files[file_count++] = strdup(full);
    }
    if (dir != NULL)
        closedir(dir);
}

static unsigned mutations_per_seed(unsigned seeds)
{
    const char *asked = getenv("FUZZ_MUTATIONS");
    unsigned share = MUTATIONS_TOTAL / (seeds > 0 ? seeds : 1);

    if (asked != NULL)
        return (unsigned)strtoul(asked, NULL, 10);
    if (share > MUTATIONS_SEED_MAX)
        share = MUTATIONS_SEED_MAX;
    return share < MUTATIONS_SEED_MIN ? MUTATIONS_SEED_MIN : share;
}

/* "fuzz_resp" -> "$srcdir/tests/fuzz/corpus/resp" */
static void collect_default(const char *target)
{
    const char *srcdir = getenv("srcdir");
    char path[PATH_SIZE_MAX];

    snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s", srcdir != NULL ? srcdir : ".",
             strncmp(target, "fuzz_", 5) == 0 ? target + 5 : target);
    collect(path);
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    const char *target = slash != NULL ? slash + 1 : argv[0];
    unsigned failed = 0, mutations;

    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(crash_path, sizeof(crash_path), "crash-%s.bin", target);
    if (LLVMFuzzerInitialize != NULL)
        LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++)
        collect(argv[i]);
    if (argc < 2)
        collect_default(target);
    qsort(files, file_count, sizeof(files[0]), by_name);
    printf("1..%u\n", file_count + 1);
    printf("%s 1 - %s has a corpus (%u seeds)\n", file_count > 0 ? "ok" : "not ok", target,
           file_count);
    failed += file_count == 0;
    mutations = mutations_per_seed(file_count);
    hook_death();
    for (unsigned i = 0; i < file_count; i++) {
        size_t size = 0;
        uint8_t *data = read_file(files[i], &size);
        const char *name = strrchr(files[i], '/');

        if (data != NULL) {
            run_one(data, size);
            run_mutations(data, size, mutations);
        }
        failed += data == NULL;
        printf("%s %u - %s and %u mutations%s\n", data != NULL ? "ok" : "not ok", i + 2,
               name != NULL ? name + 1 : files[i], mutations,
               data != NULL ? "" : " (unreadable, or over 1 MiB)");
        free(data);
        free(files[i]);
    }
    return failed > 0;
}

#endif
