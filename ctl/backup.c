/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weirctl backup: of a node that runs, or of the directory of one that is stopped.
 *
 *     each shard:  DEBUG BACKUP START ── ready? ──> links of its files; MANIFEST and shard copied ──> END
 *                                                   in DEST.part, if that is the same file system;
 *                                                   else in the shard's own folder backup.part: copied after END
 *     all:         flushed, DEST.part renamed to DEST
 *
 *   U1  What is in DEST is a node's directory as it was, shard by shard, at the END of each: it verifies, and a restore of
 *       it is the very state that had been written when the shard was held.
 *   U2  If a shard did not hold its files from START to END (its process died, or we took too long), there is no
 *       backup. END says so.
 *   U3  Files are linked, MANIFEST and shard alone copied: the node writes MANIFEST in place, and never again into what
 *       has a second name (backend/store/backup.h, B4). A stopped node's free segments are left out: they are going
 *       to be written.
 *   U4  A stopped node's directory is locked meanwhile, so no node starts on it. One whose processes were killed has
 *       its last changes in a log ring: refused, as the backup would not have them.
 *   U5  Killed at any time it leaves DEST.part and backup.part, which the next one removes, and a node that holds its
 *       files for a minute longer.
 *   U6  The end that it names for --until is before the first shard is held: all that was executed up to then is in
 *       every shard, however long the others and the copying take.
 */

#include "common/base/err.h"
#include "common/base/mem.h"
#include "ctl/ctl.h"
#include "ctl/node_client.h"
#include "ctl/range.h"
#include "ctl/ring.h"
#include "ctl/source.h"
#include "ctl/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS     5
#define STAGE       "backup.part"
#define STATUS_HEAD 8u

static uint64_t wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void sleep_ms(unsigned ms)
{
    struct timespec pause = {.tv_nsec = (long)ms * 1000000};

    MAYBE(nanosleep(&pause, NULL) != 0);
}

struct backup {
    struct tree tree;
    struct progress progress;
    uint64_t start_ms;
    uint64_t held_ms; /* no shard was held yet */
    uint32_t shards;
    bool is_stopped; /* its files hold still by themselves */
    bool is_staged;  /* copies are made from the stages */
    bool is_nobody;  /* nobody listens there */
    int stages[SHARDS_MAX], targets[SHARDS_MAX];
    uint64_t given_lsns[SHARDS_MAX];
    char stage_paths[SHARDS_MAX][SHARD_DIR_MAX + 32]; /* "": none */
};

/* ---- the files of one shard ------------------------------------------------------------------- */

static bool is_copied(const char *name)
{
    return strcmp(name, "MANIFEST") == 0 || strcmp(name, "shard") == 0;
}

/* -EXDEV: it cannot be linked; nothing was done. */
static int file_hold(struct backup *backup, int from, const char *name, int to)
{
    if (is_copied(name))
        return tree_copy(&backup->tree, from, name, to);
    return backup->is_stopped ? tree_take(&backup->tree, from, name, to) : tree_link(&backup->tree, from, name, to);
}

/* Another file system than the target's, or --copy: links are made in the shard's own folder first, so that it need not
 * be held while we copy. */
static int stage_open(struct backup *backup, uint32_t shard, const char *dir, int from)
{
    char *path = backup->stage_paths[shard];
    int fd;

    (void)snprintf(path, sizeof(backup->stage_paths[shard]), "%s/" STAGE, dir);
    fd = openat(from, STAGE, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
        bool is_held = flock(fd, LOCK_EX | LOCK_NB) != 0;
        int err = is_held ? ERR_EXISTS : tree_remove(path);

        close(fd);
        if (is_held)
            fprintf(stderr, "weirctl: %s: another weirctl is copying from there\n", path);
        if (err != 0) {
            path[0] = '\0';
            return err;
        }
    }
    if (mkdirat(from, STAGE, 0700) == 0)
        fd = openat(from, STAGE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    else
        fd = -1;
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0) {
        fprintf(stderr, "weirctl: %s: %s\n", path, err_text(-errno));
        path[0] = '\0';
        return -errno;
    }
    backup->stages[shard] = fd;
    return 0;
}

static void stages_remove(struct backup *backup)
{
    for (uint32_t i = 0; i < SHARDS_MAX; i++) {
        if (backup->stage_paths[i][0] == '\0')
            continue;
        MAYBE(tree_remove(backup->stage_paths[i]) != 0);
        close(backup->stages[i]);
        backup->stage_paths[i][0] = '\0';
    }
}

/* The files that a shard holds, by name. */
static int files_hold(struct backup *backup, uint32_t shard, const char *dir, const char *names, uint32_t count)
{
    int from, to, err = tree_outside(backup->tree.path, dir);
    char name[32];

    if (err != 0)
        return err;
    from = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (from < 0) {
        fprintf(stderr, "weirctl: %s: the shard's folder: %s; a backup is made on the machine where the node is\n", dir,
                err_text(-errno));
        return -errno;
    }
    (void)snprintf(name, sizeof(name), "shard-%u", shard);
    to = tree_dir(&backup->tree, name, from);
    backup->targets[shard] = to;
    if (to < 0)
        err = to;
    if (err == 0 && backup->is_staged)
        err = stage_open(backup, shard, dir, from);
    for (uint32_t i = 0; i < count && err == 0; i++, names += strlen(names) + 1) {
        err = file_hold(backup, from, names, backup->is_staged ? backup->stages[shard] : to);
        if (err == -EXDEV && backup->is_staged)
            fprintf(stderr, "weirctl: %s: its file system has no hard links: stop the node, then back up its "
                    "directory\n", dir);
        if (err != -EXDEV || backup->is_staged)
            continue;
        backup->is_staged = true;
        err = stage_open(backup, shard, dir, from);
        if (err == 0)
            err = file_hold(backup, from, names, backup->stages[shard]);
    }
    close(from);
    return err;
}

/* ---- a node that runs ------------------------------------------------------------------------- */

static int answer_failed(const char *what, int err, const struct node_answer *answer)
{
    fprintf(stderr, "weirctl: %s: %s\n", what, err != 0 ? node_error_text(err) : node_answer_item(answer, 0));
    return err != 0 ? err : ERR_INVALID;
}

/* The next STATUS that is not "running". */
static int status_wait(int fd, const char *what, const char *id, struct node_answer *out)
{
    char command[64];
    int err;

    (void)snprintf(command, sizeof(command), "DEBUG BACKUP STATUS %s", id);
    for (;;) {
        err = node_ask(fd, command, out);
        if (err != 0 || out->is_error || out->count < STATUS_HEAD)
            return answer_failed(what, err, out);
        if (strcmp(node_answer_item(out, 0), "running") != 0)
            break;
        node_answer_deinit(out);
        sleep_ms(POLL_MS);
    }
    if (strcmp(node_answer_item(out, 0), "ready") == 0)
        return 0;
    fprintf(stderr, "weirctl: %s: its files cannot be held: %s\n", what, node_answer_item(out, 1));
    return ERR_INVALID;
}

static int held_check(struct backup *backup, uint32_t shard, const char *what, const struct node_answer *status)
{
    uint64_t number = 0, count = 0;

    if (!bytes_to_u64(bytes_of_string(node_answer_item(status, 3)), SHARDS_MAX - 1, &number) ||
        !bytes_to_u64(bytes_of_string(node_answer_item(status, 4)), SHARDS_MAX, &count) ||
        !bytes_to_u64(bytes_of_string(node_answer_item(status, 7)), UINT64_MAX, &backup->given_lsns[shard]) ||
        number != shard) {
        fprintf(stderr, "weirctl: %s: it is shard %s; the address of shard 0 is wanted\n", what,
                node_answer_item(status, 3));
        return ERR_INVALID;
    }
    backup->shards = (uint32_t)count;
    return 0;
}

static int shard_held(struct backup *backup, uint32_t shard, int fd, const char *what, const char *id)
{
    struct node_answer status = {0}, answer = {0};
    char command[64];
    int err = status_wait(fd, what, id, &status);

    if (err == 0)
        err = held_check(backup, shard, what, &status);
    if (err == 0)
        err = files_hold(backup, shard, node_answer_item(&status, 2), node_answer_item(&status, STATUS_HEAD),
                         status.count - STATUS_HEAD);
    node_answer_deinit(&status);
    (void)snprintf(command, sizeof(command), "DEBUG BACKUP END %s", id);
    if (err != 0) {
        MAYBE(node_ask(fd, command, &answer) != 0);
    } else {
        err = node_ask(fd, command, &answer); /* U2 */
        if (err != 0 || answer.is_error)
            err = answer_failed(what, err, &answer);
    }
    node_answer_deinit(&answer);
    return err;
}

static int shard_backup(struct backup *backup, const char *host, uint16_t port, uint32_t shard)
{
    struct node_answer answer;
    char what[300], id[32];
    int fd = node_connect(host, port, &backup->is_nobody), err;

    if (fd < 0)
        return fd;
    (void)snprintf(what, sizeof(what), "%s:%u", host, port);
    err = node_ask(fd, "DEBUG BACKUP START", &answer);
    if (err != 0 || answer.is_error)
        err = answer_failed(what, err, &answer);
    (void)snprintf(id, sizeof(id), "%s", node_answer_item(&answer, 0));
    node_answer_deinit(&answer);
    if (err == 0)
        err = shard_held(backup, shard, fd, what, id);
    close(fd);
    return err;
}

/* Before anything is made: its first shard's folder lies in the node's. */
static int node_outside(struct backup *backup, const char *host, uint16_t port, const char *dest)
{
    struct node_answer answer;
    char dir[SHARD_DIR_MAX], *slash;
    int fd = node_connect(host, port, &backup->is_nobody), err;

    if (fd < 0)
        return fd;
    err = node_ask(fd, "CONFIG GET dir", &answer);
    close(fd);
    (void)snprintf(dir, sizeof(dir), "%s", node_answer_item(&answer, 1));
    slash = strrchr(dir, '/');
    if (slash != NULL)
        *slash = '\0';
    err = err == 0 && slash != NULL ? tree_outside(dest, dir) : 0; /* who is no node will be told so */
    node_answer_deinit(&answer);
    return err;
}

static int node_backup(struct backup *backup, const char *host, uint16_t port)
{
    int err = 0;

    backup->is_staged = backup->tree.must_copy;
    backup->shards = 1; /* the first one knows */
    for (uint32_t i = 0; i < backup->shards && err == 0; i++) {
        if (port + i > UINT16_MAX) {
            fprintf(stderr, "weirctl: %s:%u: it says that it has %u shards, so it is no node\n", host, port, backup->shards);
            return ERR_INVALID;
        }
        err = shard_backup(backup, host, (uint16_t)(port + i), i);
    }
    return err;
}

static void names_add(struct buffer *names, uint32_t *count, const char *name)
{
    buffer_append(names, name, strlen(name) + 1);
    ++*count;
}

/* ---- the directory of one that is stopped ----------------------------------------------------- */

/* U4 */
static int ring_check(const struct shard *shard)
{
    struct ring ring;
    int err = ring_open(shard, &ring);

    if (err == 0 && (ring.state == RING_THERE || ring.state == RING_DAMAGED)) {
        fprintf(stderr, "weirctl: %s: its node was killed, its last changes are in %s: start and stop it, then try again\n",
                shard->dir, ring.path);
        err = ERR_INVALID;
    }
    ring_close(&ring);
    return err;
}

static int shard_directory(struct backup *backup, struct shard *shard, uint32_t i)
{
    struct shard_checkpoint checkpoints[2];
    struct buffer names = {0};
    uint32_t count = 0;
    unsigned checkpoint_count = shard_checkpoints(shard, checkpoints);
    int err;

    backup->given_lsns[i] = shard->given_lsn;
    names_add(&names, &count, "shard");
    if (faccessat(shard->dir_fd, "MANIFEST", F_OK, 0) == 0)
        names_add(&names, &count, "MANIFEST");
    for (unsigned k = 0; k < checkpoint_count; k++)
        if (k == 0 || strcmp(checkpoints[0].name, checkpoints[1].name) != 0)
            names_add(&names, &count, checkpoints[k].name);
    for (uint32_t k = 0; k < shard->count; k++)
        if (source_keeps(shard, &shard->segments[k]))
            names_add(&names, &count, shard->segments[k].name);
    for (unsigned k = 0; k < checkpoint_count; k++)
        shard_checkpoint_free(&checkpoints[k]);
    err = names.failed ? ERR_FULL : files_hold(backup, i, shard->dir, names.data, count);
    buffer_deinit(&names);
    return err;
}

static int directory_backup(struct backup *backup, const char *dir)
{
    struct source source, before;
    int locks[SHARDS_MAX], err;

    backup->is_stopped = true;
    err = source_open(&before, dir);
    if (err != 0)
        return err;
    err = source_lock(&before, locks);
    if (err != 0) {
        source_close(&before);
        return err;
    }
    err = source_open(&source, dir); /* now that it holds still */
    if (err == 0) {
        backup->shards = source.count;
        progress_start(&backup->progress, "copying", source.bytes);
        backup->tree.progress = &backup->progress;
        for (uint32_t i = 0; i < source.count && err == 0; i++) {
            err = ring_check(&source.shards[i]);
            if (err == 0)
                err = shard_directory(backup, &source.shards[i], i);
        }
        progress_clear(&backup->progress);
        backup->tree.progress = NULL;
        source_close(&source);
    }
    source_unlock(&before, locks);
    source_close(&before);
    return err;
}

/* ---- copies ----------------------------------------------------------------------------------- */

static int names_of(int fd, struct buffer *names, uint32_t *count, uint64_t *bytes)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    struct stat status;

    *count = 0;
    if (dir == NULL)
        return -errno;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.' || fstatat(fd, entry->d_name, &status, 0) != 0 || !S_ISREG(status.st_mode))
            continue;
        names_add(names, count, entry->d_name);
        *bytes += (uint64_t)status.st_size;
    }
    closedir(dir);
    return names->failed ? ERR_FULL : 0;
}

static int stages_copy(struct backup *backup)
{
    struct buffer names[SHARDS_MAX] = {{0}};
    uint32_t counts[SHARDS_MAX] = {0};
    uint64_t bytes = 0;
    int err = 0;

    for (uint32_t i = 0; i < backup->shards && err == 0; i++)
        if (backup->stage_paths[i][0] != '\0')
            err = names_of(backup->stages[i], &names[i], &counts[i], &bytes);
    progress_start(&backup->progress, "copying", bytes);
    backup->tree.progress = &backup->progress;
    backup->tree.linked_bytes = backup->tree.copied_bytes = 0;
    for (uint32_t i = 0; i < backup->shards && err == 0; i++) {
        const char *name = names[i].data;

        for (uint32_t k = 0; k < counts[i] && err == 0; k++, name += strlen(name) + 1)
            err = tree_copy(&backup->tree, backup->stages[i], name, backup->targets[i]);
    }
    progress_clear(&backup->progress);
    backup->tree.progress = NULL;
    for (uint32_t i = 0; i < SHARDS_MAX; i++)
        buffer_deinit(&names[i]);
    return err;
}

/* ---- the command ------------------------------------------------------------------------------ */

/* "host:port", "[::1]:7000" */
static bool address_parse(const char *text, char *host, size_t size, uint16_t *port)
{
    const char *colon = strrchr(text, ':');
    size_t len;
    uint64_t number;

    if (colon == NULL || colon == text || !bytes_to_u64(bytes_of_string(colon + 1), UINT16_MAX, &number) ||
        number == 0)
        return false;
    len = (size_t)(colon - text);
    if (text[0] == '[' && colon[-1] == ']') {
        text++;
        len -= 2;
    }
    *port = (uint16_t)number;
    return (size_t)snprintf(host, size, "%.*s", (int)len, text) < size;
}

static int info_put(struct backup *backup)
{
    char text[64 + SHARDS_MAX * 40];
    size_t len = (size_t)snprintf(text, 64, "weir-backup 1\ntaken_ms %llu\n", (unsigned long long)backup->held_ms);

    for (uint32_t i = 0; i < backup->shards; i++)
        if (backup->given_lsns[i] != 0)
            len += (size_t)snprintf(text + len, 40, "given_lsn %u %llu\n", i, (unsigned long long)backup->given_lsns[i]);
    ASSERT(len < sizeof(text));
    return tree_put(&backup->tree, backup->tree.fds[0], SOURCE_FILE, bytes_of(text, len), len, backup->targets[0]);
}

static void told_done(const struct backup *backup)
{
    char linked[SIZE_TEXT_MAX], copied[SIZE_TEXT_MAX];

    printf("%s: backup of %u shard%s: %s linked, %s copied, %llu ms\n", backup->tree.path, backup->shards,
           backup->shards == 1 ? "" : "s", size_text(backup->tree.linked_bytes, linked),
           size_text(backup->tree.copied_bytes, copied), (unsigned long long)(wall_ms() - backup->start_ms));
}

static int backup_make(struct backup *backup, const char *source, const char *host, uint16_t port)
{
    int err = host[0] != '\0' ? node_backup(backup, host, port) : directory_backup(backup, source);

    if (err == 0 && backup->is_staged)
        err = stages_copy(backup);
    stages_remove(backup);
    return err == 0 ? info_put(backup) : err;
}

/* host "": it is a directory. */
static int source_find(struct backup *backup, const char *source, const char *dest, char *host, size_t size, uint16_t *port)
{
    struct stat status;

    host[0] = '\0';
    if (stat(source, &status) == 0 && S_ISDIR(status.st_mode))
        return tree_outside(dest, source);
    if (address_parse(source, host, size, port))
        return node_outside(backup, host, *port, dest);
    fprintf(stderr, "weirctl: %s: neither a directory nor an address of a node, like 127.0.0.1:7000\n", source);
    return ERR_INVALID;
}

int ctl_backup(const char *source, const char *dest, bool must_copy)
{
    struct backup *backup = must_zalloc(sizeof(*backup));
    char host[256];
    uint16_t port = 0;
    bool is_nobody;
    int err;

    backup->start_ms = wall_ms();
    err = source_find(backup, source, dest, host, sizeof(host), &port);
    if (err == 0)
        err = tree_begin(&backup->tree, dest);
    if (err == 0) {
        backup->tree.must_copy = must_copy;
        backup->held_ms = wall_ms(); /* U6 */
        err = backup_make(backup, source, host, port);
        if (err == 0)
            err = tree_end(&backup->tree);
        else
            tree_drop(&backup->tree);
    }
    if (err == 0) {
        told_done(backup);
        range_print(backup->tree.path);
    }
    is_nobody = backup->is_nobody;
    mem_free(backup);
    return err == 0 ? CTL_OK : is_nobody ? CTL_NOBODY : CTL_FAILED;
}
