/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The new binary is a child that inherits descriptors and one environment variable:
 *
 *     WEIR_INHERIT=<fd>    a memfd:    weir-inherit 1
 *                                      listener 12 127.0.0.1:22121
 *                                      stats 9 weir-proxy-1
 *                                      ...
 *
 * Both masters serve from the same sockets until an operator sends QUIT to one of them. The new one
 * says over `parent` that it lives, then that it serves; if it leaves or stays silent instead, nothing has changed here.
 */
#include "nginx-style-master/private.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nginx-style-master/signals.h"

#define INHERIT_VERSION  "weir-inherit 1"
#define INHERIT_VARIABLE "WEIR_INHERIT"

static const char *const kind_names[] = {
    [INHERIT_parent] = "parent",     [INHERIT_table] = "table",
    [INHERIT_stats] = "stats",       [INHERIT_pass_rx] = "pass_rx",
    [INHERIT_pass_tx] = "pass_tx",   [INHERIT_listener] = "listener",
    [INHERIT_guard] = "guard",
};
_Static_assert(ARRAY_COUNT(kind_names) == INHERIT_KIND_MAX_, "a name for each kind");

/* ---- the list as text --------------------------------------------------------------------- */

const char *inherit_version(void)
{
    return INHERIT_VERSION;
}

void inherit_add(struct inherit *inherit, enum inherit_kind kind, int fd, const char *text)
{
    struct inherit_entry *entry;

    if (inherit->count == inherit->cap) {
        inherit->cap = MAX(64u, inherit->cap * 2);
        inherit->entries = must_realloc(inherit->entries, inherit->cap * sizeof(*entry));
    }
    entry = &inherit->entries[inherit->count++];
    entry->kind = kind;
    entry->fd = fd;
    snprintf(entry->text, sizeof(entry->text), "%s", text);
}

const struct inherit_entry *inherit_find(const struct inherit *inherit,
                                         enum inherit_kind kind)
{
    for (uint32_t i = 0; i < inherit->count; i++)
        if (inherit->entries[i].kind == kind)
            return &inherit->entries[i];
    return NULL;
}

void inherit_free(struct inherit *inherit, bool close_fds)
{
    for (uint32_t i = 0; close_fds && i < inherit->count; i++)
        if (inherit->entries[i].fd >= 0)
            close(inherit->entries[i].fd);
    mem_free(inherit->entries);
    *inherit = (struct inherit){0};
}

size_t inherit_line(const struct inherit_entry *entry, char *out, size_t cap)
{
    int len = snprintf(out, cap, "%s %d %s\n", kind_names[entry->kind], entry->fd, entry->text);

    return len < 0 || (size_t)len >= cap ? 0 : (size_t)len;
}

static struct bytes take_until(struct bytes *from, char separator)
{
    const char *end = from->len == 0 ? NULL : memchr(from->data, separator, from->len);
    struct bytes taken = bytes_first(*from, end == NULL ? from->len : (size_t)(end - from->data));

    *from = bytes_skip(*from, taken.len + (end != NULL));
    return taken;
}

int inherit_parse_line(struct bytes line, struct inherit_entry *out)
{
    struct bytes word = take_until(&line, ' '), number = take_until(&line, ' ');
    uint64_t fd;

    if (!bytes_to_u64(number, INT32_MAX, &fd) || line.len >= sizeof(out->text) ||
        (line.len > 0 && memchr(line.data, '\0', line.len) != NULL))
        return ERR_INVALID;
    out->fd = (int)fd;
    if (line.len > 0)
        memcpy(out->text, line.data, line.len);
    out->text[line.len] = '\0';
    for (unsigned kind = 0; kind < INHERIT_KIND_MAX_; kind++)
        if (bytes_equal(word, bytes_of_string(kind_names[kind]))) {
            out->kind = (enum inherit_kind)kind;
            return 0;
        }
    /* A later version may hand over more; what we do not know we do not keep. */
    out->kind = INHERIT_KIND_MAX_;
    return word.len > 0 ? 0 : ERR_INVALID;
}

int inherit_parse(struct bytes text, struct inherit *out, char *error)
{
    struct bytes line = take_until(&text, '\n');

    *out = (struct inherit){0};
    if (!bytes_equal(line, bytes_of_string(INHERIT_VERSION))) {
        snprintf(error, MASTER_ERROR_SIZE, "upgrade: the running master speaks \"%.*s\", not \"%s\"",
                 (int)MIN(line.len, 40u), line.data, INHERIT_VERSION);
        return ERR_INVALID;
    }
    while (text.len > 0) {
        struct inherit_entry entry;

        line = take_until(&text, '\n');
        if (out->count == INHERIT_ENTRIES_MAX || inherit_parse_line(line, &entry) != 0) {
            snprintf(error, MASTER_ERROR_SIZE, "upgrade: bad line \"%.*s\"",
                     (int)MIN(line.len, 60u), line.data);
            inherit_free(out, false);
            return ERR_INVALID;
        }
        if (entry.kind != INHERIT_KIND_MAX_)
            inherit_add(out, entry.kind, entry.fd, entry.text);
    }
    return 0;
}

/* ---- the old master's side ---------------------------------------------------------------- */

void upgrade_collect(struct master *master, struct inherit *out)
{
    char number[16];

    inherit_add(out, INHERIT_table, master->shm.table_fd, master->program->name);
    inherit_add(out, INHERIT_stats, master->shm.stats_fd, master->shm.stats->layout);
    for (uint32_t i = 0; i < master->shm.table->slots_count; i++) {
        snprintf(number, sizeof(number), "%u", i);
        inherit_add(out, INHERIT_pass_rx, master->pass_rx[i], number);
        inherit_add(out, INHERIT_pass_tx, master->pass_tx[i], number);
    }
    LIST_FOR_EACH (&master->listeners.list, node) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);

        for (uint32_t i = 0; i < listener->lanes; i++)
            inherit_add(out, INHERIT_listener, listener->fds[i], listener->name);
        if (listener->guard_fd >= 0)
            inherit_add(out, INHERIT_guard, listener->guard_fd, listener->name);
    }
}

static int inherit_write(const struct inherit *inherit)
{
    char line[INHERIT_TEXT_MAX + 64];
    int fd = memfd_create("weir-inherit", 0);
    FILE *file;

    if (fd < 0)
        return -errno;
    file = fdopen(dup(fd), "w");
    if (file == NULL) {
        close(fd);
        return -ENOMEM;
    }
    fprintf(file, INHERIT_VERSION "\n");
    for (uint32_t i = 0; i < inherit->count; i++) {
        size_t len = inherit_line(&inherit->entries[i], line, sizeof(line));

        fwrite(line, 1, len, file);
    }
    if (fclose(file) != 0 || lseek(fd, 0, SEEK_SET) != 0) {
        close(fd);
        return -EIO;
    }
    return fd;
}

/* In the child: nothing of the old master runs after this but the descriptors. */
NORETURN static void upgrade_exec(struct master *master, const char *binary, int parent_fd)
{
    struct channel_message refused = {.type = CHANNEL_REFUSED};
    struct inherit inherit = {0};
    char number[16], text[256];
    int fd;

    upgrade_collect(master, &inherit);
    snprintf(number, sizeof(number), "%d", (int)getppid());
    inherit_add(&inherit, INHERIT_parent, parent_fd, number);
    fd = inherit_write(&inherit);
    for (uint32_t i = 0; i < inherit.count; i++)
        fcntl(inherit.entries[i].fd, F_SETFD, 0);
    snprintf(number, sizeof(number), "%d", fd);
    setenv(INHERIT_VARIABLE, number, 1);
    signals_reset();
    if (fd >= 0 && (master->cwd_fd < 0 || fchdir(master->cwd_fd) == 0))
        execvp(binary, title_argv());
    snprintf(text, sizeof(text), "cannot execute %s: %s", binary, err_text(-errno));
    channel_try_send(parent_fd, &refused, text, -1);
    _exit(MASTER_EXIT_FATAL);
}

int upgrade_start(struct master *master, const char *binary, char *error)
{
    struct upgrade *upgrade = &master->upgrade;
    int fds[2], err;

    if (binary == NULL || binary[0] == '\0')
        binary = master->program->upgrade_binary != NULL ? master->program->upgrade_binary
                                                         : master->binary;
    if (upgrade->pid != 0) {
        snprintf(error, MASTER_ERROR_SIZE,
                 "upgrade: one is under way, the new master is pid %d: send QUIT to it or to us",
                 (int)upgrade->pid);
        return ERR_EXISTS;
    }
    if (master->is_quitting || master->is_stopping) {
        snprintf(error, MASTER_ERROR_SIZE, "upgrade: the master is leaving");
        return ERR_CANCELED;
    }
    err = channel_pair(fds);
    if (err != 0)
        return err;
    if (master->pid_path != NULL)
        MAYBE(rename(master->pid_path, master->pid_path_old));
    fflush(NULL);
    upgrade->pid = fork();
    if (upgrade->pid == 0)
        upgrade_exec(master, binary, fds[1]);
    close(fds[1]);
    if (upgrade->pid < 0) {
        err = -errno;
        upgrade->pid = 0;
        close(fds[0]);
        if (master->pid_path != NULL)
            MAYBE(rename(master->pid_path_old, master->pid_path));
        snprintf(error, MASTER_ERROR_SIZE, "upgrade: fork failed: %s", err_text(err));
        return err;
    }
    upgrade->channel = fds[0];
    upgrade->is_ready = upgrade->is_heard = false;
    upgrade->ready_by_ms = shm_now_ms() + MASTER_UPGRADE_MS;
    log_notice(master->log, "upgrade started binary=%s new_pid=%d", binary, (int)upgrade->pid);
    return 0;
}

static void upgrade_reply(struct master *master, int err, const char *text)
{
    struct upgrade *upgrade = &master->upgrade;
    struct channel_message message = {.type = CHANNEL_REPLY, .id = upgrade->request_id,
                                      .value = (uint32_t)-err};
    struct child *child;

    if (upgrade->request_id == 0)
        return;
    child = child_by_pid(master, upgrade->requester);
    if (child != NULL && child->channel >= 0)
        channel_try_send(child->channel, &message, text, -1);
    upgrade->request_id = 0;
}

/* Whoever asked is told when the new master has left: then it is counted, and another one may be tried. */
static void upgrade_fails(struct upgrade *upgrade, int err, const char *why)
{
    upgrade->err = err;
    snprintf(upgrade->why, sizeof(upgrade->why), "%s", why);
}

static void upgrade_refused(struct master *master)
{
    log_error(master->log, "upgrade refused by the new binary: %s", master->text);
    upgrade_fails(&master->upgrade, ERR_INVALID, master->text);
}

/* It sends no descriptors. */
static int upgrade_recv(struct master *master, struct channel_message *message)
{
    int fd, err = channel_recv(master->upgrade.channel, message, master->text, &fd);

    if (fd >= 0)
        close(fd);
    return err;
}

void upgrade_event(struct master *master)
{
    struct upgrade *upgrade = &master->upgrade;
    struct channel_message message;
    int err = upgrade_recv(master, &message);
    bool is_over;

    if (err == ERR_AGAIN || err == ERR_INVALID)
        return;
    upgrade->is_heard |= err == 0;
    if (err == 0 && message.type == CHANNEL_UPGRADED) {
        upgrade->is_ready = true;
        atomic_fetch_add(&master->self->upgrades, 1);
        /* What workers in place had is the new ones' already: there is no way back, and nothing to drain. */
        is_over = master->serving != NULL && master->serving->config.replace == MASTER_REPLACE_IN_PLACE;
        log_notice(master->log, "upgrade done: the new master serves, %s new_pid=%d",
                   is_over ? "we leave" : "QUIT us or it", (int)upgrade->pid);
        if (master->serving != NULL)
            generation_stats_accept(master->serving, false);
        upgrade_reply(master, 0, "");
        if (is_over)
            master_quit(master);
        return;
    }
    if (err == 0 && message.type == CHANNEL_STARTING) {
        if (upgrade->ready_by_ms != UINT64_MAX)
            upgrade->ready_by_ms = shm_now_ms() + MASTER_UPGRADE_MS;
        return;
    }
    if (err == 0 && message.type == CHANNEL_REFUSED) {
        upgrade_refused(master);
        return;
    }
    /* The end: SIGCHLD tells the rest. */
    close(upgrade->channel);
    upgrade->channel = -1;
}

void upgrade_died(struct master *master, int status)
{
    struct upgrade *upgrade = &master->upgrade;
    struct channel_message message;
    char text[128];

    while (upgrade->channel >= 0 && !upgrade->is_ready && upgrade_recv(master, &message) == 0)
        if (message.type == CHANNEL_REFUSED)
            upgrade_refused(master);
    snprintf(text, sizeof(text), "the new master left pid=%d %s=%d", (int)upgrade->pid,
             WIFSIGNALED(status) ? "signal" : "code",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    /* Before anybody is told: who reads the pid file then finds us. */
    if (master->pid_path != NULL)
        MAYBE(rename(master->pid_path_old, master->pid_path));
    if (!upgrade->is_ready) {
        atomic_fetch_add(&master->self->upgrades_failed, 1);
        log_error(master->log, "upgrade failed, the old binary goes on: %s", text);
        if (upgrade->err == 0)
            upgrade_fails(upgrade, ERR_INVALID, text);
        upgrade_reply(master, upgrade->err, upgrade->why);
    } else {
        log_notice(master->log, "upgrade backed out: %s", text);
        if (master->serving != NULL)
            generation_stats_accept(master->serving, true);
    }
    if (upgrade->channel >= 0)
        close(upgrade->channel);
    *upgrade = (struct upgrade){.channel = -1};
}

void upgrade_tick(struct master *master, uint64_t now_ms)
{
    struct upgrade *upgrade = &master->upgrade;

    if (upgrade->pid == 0 || upgrade->is_ready || now_ms < upgrade->ready_by_ms)
        return;
    log_error(master->log, "upgrade: the new binary did not get ready, or was silent for %u ms, ends pid=%d",
              MASTER_UPGRADE_MS, (int)upgrade->pid);
    if (upgrade->err == 0)
        upgrade_fails(upgrade, ERR_TIMEOUT, "the new binary did not get ready in time");
    kill(upgrade->pid, SIGKILL);
    upgrade->ready_by_ms = UINT64_MAX;
}

/* A new binary that lives goes on without us. Of one that has said nothing nobody would be left who ends it, and it has our
 * listeners: the next start would find them held. */
void upgrade_leave(struct master *master)
{
    struct upgrade *upgrade = &master->upgrade;
    struct channel_message message;

    if (upgrade->pid == 0)
        return;
    if (!upgrade->is_heard && upgrade->channel >= 0) /* it may just have spoken */
        upgrade->is_heard = upgrade_recv(master, &message) == 0;
    if (upgrade->is_heard)
        return;
    log_error(master->log, "upgrade: the new binary has said nothing yet, ends with us pid=%d", (int)upgrade->pid);
    kill(upgrade->pid, SIGKILL);
}

/* ---- the new master's side ---------------------------------------------------------------- */

static int memfd_text(int fd, char **out, size_t *len)
{
    struct stat st;
    ssize_t got;

    if (fstat(fd, &st) != 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size > (off_t)INHERIT_ENTRIES_MAX * 256)
        return ERR_INVALID;
    *out = must_alloc((size_t)st.st_size + 1);
    got = pread(fd, *out, (size_t)st.st_size, 0);
    if (got != st.st_size) {
        mem_free(*out);
        return -EIO;
    }
    *len = (size_t)got;
    return 0;
}

static void starting_tell(int parent_fd)
{
    struct channel_message starting = {.type = CHANNEL_STARTING};

    channel_try_send(parent_fd, &starting, NULL, -1);
}

void upgrade_beat(struct master *master)
{
    if (master->parent_channel >= 0 && master->starting != NULL &&
        master->starting->config.replace == MASTER_REPLACE_IN_PLACE)
        starting_tell(master->parent_channel);
}

/* It lives: upgrade_leave() spares it. */
static void inherited_tell(const struct inherit *inherit)
{
    const struct inherit_entry *parent = inherit_find(inherit, INHERIT_parent);

    if (parent != NULL && parent->fd >= 0)
        starting_tell(parent->fd);
}

int upgrade_inherited(struct inherit *out, char *error)
{
    const char *variable = getenv(INHERIT_VARIABLE);
    uint64_t fd;
    size_t len = 0;
    char *text = NULL;
    int err;

    *out = (struct inherit){0};
    if (variable == NULL)
        return 0;
    if (!bytes_to_u64(bytes_of_string(variable), INT32_MAX, &fd) ||
        memfd_text((int)fd, &text, &len) != 0) {
        snprintf(error, MASTER_ERROR_SIZE, "upgrade: " INHERIT_VARIABLE "=%.40s names no list",
                 variable);
        return ERR_INVALID;
    }
    unsetenv(INHERIT_VARIABLE);
    close((int)fd);
    err = inherit_parse(bytes_of(text, len), out, error);
    mem_free(text);
    for (uint32_t i = 0; err == 0 && i < out->count; i++)
        if (fcntl(out->entries[i].fd, F_SETFD, FD_CLOEXEC) != 0) {
            snprintf(error, MASTER_ERROR_SIZE, "upgrade: descriptor %d (%s) is not open",
                     out->entries[i].fd, out->entries[i].text);
            inherit_free(out, false);
            return ERR_INVALID;
        }
    if (err == 0)
        inherited_tell(out);
    return err;
}
