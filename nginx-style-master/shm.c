/* SPDX-License-Identifier: Apache-2.0 */
#include "nginx-style-master/shm.h"
#include "common/base/fsm.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TABLE_MAGIC   0x3162615472696557ull /* "WeirTab1" */
#define TABLE_VERSION 1u
#define STATS_MAGIC   0x3161745372696557ull /* "WeirSta1" */
#define PAGE          4096u

/*
 *             claim            ready             drain               gone
 *   FREE -----------> STARTING -----> SERVING ----------> DRAINING -------> RETIRED --> FREE
 *                      ^   |             |                                     ^  folded
 *                      |   '--> GONE <---' died                                |
 *                      '----- forked -+----------- gone for good --------------'
 */
static const struct fsm_state slot_states[] = {
    [WORKER_STATE_FREE] = {"free", FSM_TO(WORKER_STATE_STARTING)},
    [WORKER_STATE_STARTING] = {"starting", FSM_TO(WORKER_STATE_SERVING) |
                                               FSM_TO(WORKER_STATE_DRAINING) |
                                               FSM_TO(WORKER_STATE_GONE) |
                                               FSM_TO(WORKER_STATE_RETIRED)},
    [WORKER_STATE_SERVING] = {"serving", FSM_TO(WORKER_STATE_DRAINING) | FSM_TO(WORKER_STATE_GONE) |
                                             FSM_TO(WORKER_STATE_RETIRED)},
    [WORKER_STATE_DRAINING] = {"draining", FSM_TO(WORKER_STATE_GONE) | FSM_TO(WORKER_STATE_RETIRED)},
    [WORKER_STATE_GONE] = {"gone", FSM_TO(WORKER_STATE_STARTING) | FSM_TO(WORKER_STATE_RETIRED)},
    [WORKER_STATE_RETIRED] = {"retired", FSM_TO(WORKER_STATE_FREE)},
};

uint64_t shm_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static size_t page_round(size_t size)
{
    return (size + PAGE - 1) & ~(size_t)(PAGE - 1);
}

/* ---- mapping ------------------------------------------------------------------------------ */

static int memfd_map(const char *name, size_t size, int *fd_out, void **out)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    void *map;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) != 0)
        goto fail;
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED)
        goto fail;
    /* Sparse gigabytes of address space have no place in a core dump. */
    madvise(map, size, MADV_DONTDUMP);
    *fd_out = fd;
    *out = map;
    return 0;
fail:;
    int err = -errno;

    close(fd);
    return err;
}

static int memfd_remap(int fd, size_t size_min, size_t *size_out, void **out)
{
    struct stat st;
    void *map;

    if (fstat(fd, &st) != 0)
        return -errno;
    if (st.st_size < 0 || (size_t)st.st_size < size_min)
        return ERR_INVALID;
    map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    madvise(map, (size_t)st.st_size, MADV_DONTDUMP);
    *size_out = (size_t)st.st_size;
    *out = map;
    return 0;
}

static size_t stats_total(uint32_t slots_count, size_t segment_size)
{
    return PAGE + (2 + (size_t)slots_count) * segment_size;
}

static int stats_create(struct shm *shm, const char *layout, size_t segment_size)
{
    uint32_t slots_count = shm->table->slots_count;
    void *map;
    int err;

    shm->stats_size = stats_total(slots_count, segment_size);
    err = memfd_map("weir-stats", shm->stats_size, &shm->stats_fd, &map);
    if (err != 0)
        return err;
    shm->stats = map;
    shm->stats->magic = STATS_MAGIC;
    snprintf(shm->stats->layout, sizeof(shm->stats->layout), "%s", layout);
    shm->stats->id = atomic_fetch_add(&shm->table->serial_last, 1) + 1;
    shm->stats->segment_size = segment_size;
    shm->stats->slots_count = slots_count;
    return 0;
}

int shm_create(struct shm *shm, uint32_t slots_count, const char *layout, size_t segment_size)
{
    void *map;
    int err;

    slots_count = MAX(SHM_SLOTS_MIN, MIN(slots_count, SHM_SLOTS_MAX));
    *shm = (struct shm){.table_fd = -1, .stats_fd = -1};
    shm->table_size =
        page_round(sizeof(struct shm_table) + (size_t)slots_count * sizeof(struct shm_slot));
    err = memfd_map("weir-table", shm->table_size, &shm->table_fd, &map);
    if (err != 0)
        return err;
    shm->table = map;
    shm->table->magic = TABLE_MAGIC;
    shm->table->version = TABLE_VERSION;
    shm->table->size = (uint32_t)shm->table_size;
    shm->table->slots_count = slots_count;
    shm->table->owner_uid = geteuid();
    err = stats_create(shm, layout, page_round(segment_size));
    if (err != 0)
        shm_close(shm);
    return err;
}

static bool table_is_ours(const struct shm_table *table, size_t size)
{
    return table->magic == TABLE_MAGIC && table->version == TABLE_VERSION &&
           table->size == size && table->slots_count <= SHM_SLOTS_MAX &&
           sizeof(*table) + table->slots_count * sizeof(struct shm_slot) <= size;
}

static bool stats_is_ours(const struct shm *shm, const char *layout, size_t segment_size)
{
    const struct shm_stats_head *stats = shm->stats;

    return stats->magic == STATS_MAGIC && stats->segment_size == segment_size &&
           stats->slots_count == shm->table->slots_count &&
           stats_total(stats->slots_count, segment_size) == shm->stats_size &&
           strncmp(stats->layout, layout, sizeof(stats->layout)) == 0;
}

int shm_adopt(struct shm *shm, int table_fd, int stats_fd, const char *layout, size_t segment_size)
{
    void *map;
    int err;

    segment_size = page_round(segment_size);
    *shm = (struct shm){.table_fd = -1, .stats_fd = -1};
    err = memfd_remap(table_fd, sizeof(struct shm_table), &shm->table_size, &map);
    if (err != 0)
        return err;
    shm->table = map;
    if (!table_is_ours(shm->table, shm->table_size)) {
        shm_close(shm);
        return ERR_INVALID;
    }
    if (stats_fd >= 0 && memfd_remap(stats_fd, PAGE, &shm->stats_size, &map) == 0) {
        shm->stats = map;
        if (stats_is_ours(shm, layout, segment_size)) {
            shm->table_fd = table_fd;
            shm->stats_fd = stats_fd;
            return 0;
        }
        munmap(shm->stats, shm->stats_size);
        shm->stats = NULL;
    }
    err = stats_create(shm, layout, segment_size);
    if (err != 0) {
        shm_close(shm);
        return err;
    }
    shm->table_fd = table_fd;
    if (stats_fd >= 0)
        close(stats_fd);
    return 0;
}

void shm_close(struct shm *shm)
{
    if (shm->table != NULL)
        munmap(shm->table, shm->table_size);
    if (shm->stats != NULL)
        munmap(shm->stats, shm->stats_size);
    if (shm->table_fd >= 0)
        close(shm->table_fd);
    if (shm->stats_fd >= 0)
        close(shm->stats_fd);
    *shm = (struct shm){.table_fd = -1, .stats_fd = -1};
}

void *shm_area_map(size_t size)
{
    void *map;

    if (size == 0)
        return NULL;
    map = mmap(NULL, page_round(size), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return map == MAP_FAILED ? NULL : map;
}

void shm_area_unmap(void *area, size_t size)
{
    if (area != NULL)
        munmap(area, page_round(size));
}

/* ---- slots -------------------------------------------------------------------------------- */

static size_t segment_off(const struct shm *shm, uint32_t slot)
{
    return PAGE + (2 + (size_t)slot) * shm->stats->segment_size;
}

/* Gives the pages back too. */
static void range_zero(struct shm *shm, size_t off, size_t size)
{
    if (size > 0 && fallocate(shm->stats_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              (off_t)off, (off_t)size) != 0)
        memset((char *)shm->stats + off, 0, size);
}

static void segment_zero(struct shm *shm, uint32_t slot)
{
    range_zero(shm, segment_off(shm, slot), shm->stats->segment_size);
}

uint32_t shm_slot_claim(struct shm *shm, pid_t master_pid, uint32_t generation, uint32_t index,
                        size_t stats_size)
{
    struct shm_table *table = shm->table;

    for (uint32_t i = 0; i < table->slots_count; i++) {
        struct shm_slot *slot = &table->slots[i];
        uint32_t expected = WORKER_STATE_FREE;

        if (!atomic_compare_exchange_strong(&slot->state, &expected, WORKER_STATE_STARTING))
            continue;
        atomic_store(&slot->master_pid, master_pid);
        atomic_store(&slot->pid, 0);
        atomic_store(&slot->heartbeat_ms, 0);
        atomic_store(&slot->load, 0);
        atomic_store(&slot->pending, 0);
        slot->generation = generation;
        slot->index = index;
        slot->respawns = 0;
        slot->pid_start = 0;
        slot->serial = atomic_fetch_add(&table->serial_last, 1) + 1;
        slot->started_s = (uint64_t)time(NULL);
        slot->stats_id = shm->stats->id;
        slot->stats_size = MIN(stats_size, shm->stats->segment_size);
        segment_zero(shm, i);
        return i;
    }
    return WORKER_SLOT_NONE;
}

bool shm_slot_try_move(struct shm *shm, uint32_t slot, enum worker_state from,
                       enum worker_state next)
{
    uint32_t expected = from;

    ASSERT(slot < shm->table->slots_count);
    ASSERT(fsm_may_move(slot_states, from, next));
    return atomic_compare_exchange_strong(&shm->table->slots[slot].state, &expected, next);
}

void shm_slot_move(struct shm *shm, uint32_t slot, enum worker_state next)
{
    uint32_t state = atomic_load(&shm->table->slots[slot].state);

    if (state == next)
        return;
    /* A worker of ours may have been drained by itself (QUIT) while the master thought otherwise. */
    if (state < ARRAY_COUNT(slot_states) && fsm_may_move(slot_states, state, next))
        MAYBE(shm_slot_try_move(shm, slot, (enum worker_state)state, next));
}

void *shm_segment(const struct shm *shm, uint32_t slot)
{
    ASSERT(slot < shm->table->slots_count);
    if (shm->table->slots[slot].stats_id != shm->stats->id)
        return NULL;
    return (char *)shm->stats + segment_off(shm, slot);
}

uint32_t shm_generation_next(struct shm *shm)
{
    return atomic_fetch_add(&shm->table->generation_last, 1) + 1;
}

/* ---- masters ------------------------------------------------------------------------------ */

struct shm_master *shm_master_register(struct shm *shm)
{
    for (uint32_t i = 0; i < SHM_MASTERS_MAX; i++) {
        struct shm_master *master = &shm->table->masters[i];
        int32_t pid = atomic_load(&master->pid);

        if (pid != 0 && shm_pid_is_alive(pid, master->pid_start))
            continue;
        if (!atomic_compare_exchange_strong(&master->pid, &pid, getpid()))
            continue;
        memset((char *)master + sizeof(master->pid), 0, sizeof(*master) - sizeof(master->pid));
        master->pid_start = shm_pid_start(getpid());
        master->started_s = (uint64_t)time(NULL);
        return master;
    }
    return NULL;
}

pid_t shm_master_other(const struct shm *shm)
{
    for (uint32_t i = 0; i < SHM_MASTERS_MAX; i++) {
        const struct shm_master *master = &shm->table->masters[i];
        int32_t pid = atomic_load(&master->pid);

        if (pid != 0 && pid != getpid() && shm_pid_is_alive(pid, master->pid_start))
            return pid;
    }
    return 0;
}

/* ---- totals ------------------------------------------------------------------------------- */

static void *base_at(const struct shm *shm, uint64_t which)
{
    return (char *)shm->stats + PAGE + which * shm->stats->segment_size;
}

const void *shm_base(const struct shm *shm)
{
    return base_at(shm, atomic_load(&shm->stats->base_word) & 1);
}

static bool fold_begin(struct shm *shm)
{
    int32_t holder = atomic_load(&shm->stats->folder_pid);

    if (holder == getpid())
        return true;
    if (holder != 0 && shm_pid_is_alive(holder, 0))
        return false;
    return atomic_compare_exchange_strong(&shm->stats->folder_pid, &holder, getpid());
}

/* Only what was ever written to: reading a hole of shared memory would fill it with a page. */
static void base_copy(struct shm *shm, uint64_t to, uint64_t from)
{
    const char *map = (const char *)shm->stats;
    off_t size = (off_t)shm->stats->segment_size;
    off_t start = (off_t)((const char *)base_at(shm, from) - map);
    off_t shift = (off_t)((const char *)base_at(shm, to) - map) - start;
    off_t at = start, hole;

    range_zero(shm, (size_t)(start + shift), (size_t)size);
    while (at < start + size && (at = lseek(shm->stats_fd, at, SEEK_DATA)) >= 0 && at < start + size) {
        hole = lseek(shm->stats_fd, at, SEEK_HOLE);
        hole = hole < 0 ? start + size : MIN(hole, start + size);
        memcpy((char *)shm->stats + at + shift, map + at, (size_t)(hole - at));
        at = hole;
    }
}

/* The store of base_word is the commit: it names both the new base and the slot that is in it. A folder
 * that died before it left no trace, one that died after it is recognised by the serial. */
bool shm_fold(struct shm *shm, uint32_t index,
              void (*fold)(void *, void *, size_t, const void *, size_t), void *arg)
{
    struct shm_slot *slot = &shm->table->slots[index];
    uint64_t word;
    const void *segment;

    ASSERT(index < shm->table->slots_count);
    if (atomic_load(&slot->state) != WORKER_STATE_RETIRED || !fold_begin(shm))
        return false;
    word = atomic_load(&shm->stats->base_word);
    segment = shm_segment(shm, index);
    if (segment != NULL && word >> 1 != slot->serial) {
        uint64_t next = ~word & 1;
        size_t size = shm->stats->segment_size;

        base_copy(shm, next, word & 1);
        if (fold != NULL)
            fold(arg, base_at(shm, next), size, segment, slot->stats_size);
        atomic_store(&shm->stats->base_word, slot->serial << 1 | next);
    }
    MAYBE(shm_slot_try_move(shm, index, WORKER_STATE_RETIRED, WORKER_STATE_FREE));
    atomic_store(&shm->stats->folder_pid, 0);
    return true;
}

/* ---- processes ---------------------------------------------------------------------------- */

uint64_t shm_pid_start(pid_t pid)
{
    char path[48], text[512];
    const char *at;
    ssize_t len;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    len = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (len <= 0)
        return 0;
    text[len] = '\0';
    /* The name may hold anything, so count from its closing parenthesis: the state is field 3, the start
     * time 22. */
    at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X')
        return 0;
    at += 2;
    for (int field = 3; field < 22 && at != NULL; field++)
        at = strchr(at + 1, ' ');
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

bool shm_pid_is_alive(pid_t pid, uint64_t pid_start)
{
    uint64_t now_start;

    if (pid <= 0 || (kill(pid, 0) != 0 && errno == ESRCH))
        return false;
    now_start = shm_pid_start(pid);
    if (now_start == 0) /* a zombie, or /proc is not there */
        return access("/proc/self/stat", R_OK) != 0;
    return pid_start == 0 || now_start == pid_start;
}
