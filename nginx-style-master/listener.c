/* SPDX-License-Identifier: Apache-2.0 */
#include "nginx-style-master/listener.h"
#include "common/base/mem.h"
#include "nginx-style-master/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

void listeners_init(struct listener_set *set)
{
    list_init(&set->list);
    set->guards_count = 0;
}

static struct listener *listener_create(struct listener_set *set, const char *name)
{
    struct listener *listener = must_zalloc(sizeof(*listener));

    snprintf(listener->name, sizeof(listener->name), "%s", name);
    listener->guard_fd = -1;
    list_push_back(&set->list, &listener->node);
    return listener;
}

static void path_unlink(const struct listener *listener)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&listener->addr;
    struct stat st;

    if (listener->is_path && lstat(un->sun_path, &st) == 0 &&
        (uint64_t)st.st_dev == listener->path_dev && (uint64_t)st.st_ino == listener->path_ino)
        unlink(un->sun_path);
}

static void listener_destroy(struct listener_set *set, struct listener *listener, bool unlink_path)
{
    if (unlink_path)
        path_unlink(listener);
    for (uint32_t i = 0; i < listener->lanes; i++)
        close(listener->fds[i]);
    if (listener->guard_fd >= 0) {
        close(listener->guard_fd);
        set->guards_count--;
    }
    list_remove(&listener->node);
    mem_free(listener);
}

void listener_forget(struct listener_set *set, struct listener *listener)
{
    listener_destroy(set, listener, false);
}

void listeners_deinit(struct listener_set *set, bool unlink_paths)
{
    LIST_FOR_EACH (&set->list, node)
        listener_destroy(set, CONTAINER_OF(node, struct listener, node), unlink_paths);
}

void listeners_close(struct listener_set *set)
{
    LIST_FOR_EACH (&set->list, node) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);

        while (listener->lanes > 0)
            close(listener->fds[--listener->lanes]);
        if (listener->guard_fd >= 0) {
            close(listener->guard_fd);
            listener->guard_fd = -1;
            set->guards_count--;
        }
    }
}

struct listener *listener_find(const struct listener_set *set, struct bytes name)
{
    for (struct list_node *node = list_first(&set->list); node != NULL;
         node = list_next(&set->list, node)) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);

        if (bytes_equal(bytes_of_string(listener->name), name))
            return listener;
    }
    return NULL;
}

/* ---- addresses ---------------------------------------------------------------------------- */

static void addr_name(const struct sockaddr_storage *addr, socklen_t len,
                      char name[HANDOVER_NAME_MAX])
{
    char host[INET6_ADDRSTRLEN] = "?";
    const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
    const struct sockaddr_un *un = (const struct sockaddr_un *)addr;
    size_t path_len = len - offsetof(struct sockaddr_un, sun_path);

    if (addr->ss_family == AF_UNIX && un->sun_path[0] == '\0')
        snprintf(name, HANDOVER_NAME_MAX, "@%.*s", (int)path_len - 1, un->sun_path + 1);
    else if (addr->ss_family == AF_UNIX)
        snprintf(name, HANDOVER_NAME_MAX, "%.*s", (int)path_len, un->sun_path);
    else if (addr->ss_family == AF_INET6)
        snprintf(name, HANDOVER_NAME_MAX, "[%s]:%u",
                 inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)), ntohs(in6->sin6_port));
    else
        snprintf(name, HANDOVER_NAME_MAX, "%s:%u",
                 inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)), ntohs(in->sin_port));
}

static int resolve_unix(const char *path, struct sockaddr_storage *addr, socklen_t *addr_len,
                        char *error)
{
    struct sockaddr_un *un = (struct sockaddr_un *)addr;
    size_t len = strlen(path);

    if (len < 2 || len >= sizeof(un->sun_path)) {
        snprintf(error, MASTER_ERROR_SIZE,
                 "listen: the path of a unix socket has 2 to %zu bytes: %s",
                 sizeof(un->sun_path) - 1, path);
        return ERR_INVALID;
    }
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, len + 1);
    if (path[0] == '@') {
        un->sun_path[0] = '\0';
        *addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    } else {
        *addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    }
    return 0;
}

static int resolve_tcp(const char *host, uint16_t port, struct sockaddr_storage *addr,
                       socklen_t *addr_len, char *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL, *best;
    char service[8];
    int err;

    snprintf(service, sizeof(service), "%u", port);
    if (host == NULL || host[0] == '\0')
        host = "0.0.0.0";
    err = getaddrinfo(host, service, &hints, &found);
    if (err != 0) {
        snprintf(error, MASTER_ERROR_SIZE, "listen: the name \"%s\" has no address: %s", host,
                 gai_strerror(err));
        return ERR_INVALID;
    }
    best = found;
    for (struct addrinfo *at = found; at != NULL; at = at->ai_next)
        if (at->ai_family == AF_INET) {
            best = at;
            break;
        }
    memcpy(addr, best->ai_addr, best->ai_addrlen);
    *addr_len = best->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

int listener_resolve(const struct master_listener *wanted, struct sockaddr_storage *addr,
                     socklen_t *addr_len, char name[HANDOVER_NAME_MAX], char *error)
{
    int err;

    memset(addr, 0, sizeof(*addr));
    err = wanted->path != NULL
              ? resolve_unix(wanted->path, addr, addr_len, error)
              : resolve_tcp(wanted->host, wanted->port, addr, addr_len, error);
    if (err == 0)
        addr_name(addr, wanted->path != NULL && wanted->path[0] != '@'
                            ? (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
                                          strlen(wanted->path))
                            : *addr_len,
                  name);
    return err;
}

/* ---- guards ------------------------------------------------------------------------------- */

socklen_t listener_guard_addr(const char *name, struct sockaddr_un *out)
{
    int len;

    memset(out, 0, sizeof(*out));
    out->sun_family = AF_UNIX;
    if (strlen(name) <= 80) {
        len = snprintf(out->sun_path + 1, sizeof(out->sun_path) - 1, "weir/%u/%s",
                       (unsigned)geteuid(), name);
    } else {
        uint64_t hash = 14695981039346656037ull; /* FNV-1a */

        for (const char *at = name; *at != '\0'; at++)
            hash = (hash ^ (unsigned char)*at) * 1099511628211ull;
        len = snprintf(out->sun_path + 1, sizeof(out->sun_path) - 1, "weir/%u/%.40s#%016llx",
                       (unsigned)geteuid(), name, (unsigned long long)hash);
    }
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
}

static int guard_open(const char *name)
{
    struct sockaddr_un addr;
    socklen_t len = listener_guard_addr(name, &addr);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&addr, len) != 0 || listen(fd, 16) != 0) {
        int err = -errno;

        close(fd);
        return err;
    }
    return fd;
}

/* ---- sockets ------------------------------------------------------------------------------ */

static int backlog_of(const struct master_listener *wanted)
{
    return wanted->backlog == 0 ? SOMAXCONN : (int)MIN(wanted->backlog, 1u << 20);
}

/* backlog 0: not yet. A socket that is bound but does not listen gets no connections, so it can be
 * closed again without a reset. */
static int tcp_open(const struct listener *listener, int backlog)
{
    int on = 1, err;
    int fd = socket(listener->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    /* Linux hands it down to every accepted socket, which saves a call for each. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    /* REUSEPORT always: lanes may be added later, and a new master must be able to bind beside orphans. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0 ||
        (listener->addr.ss_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0) ||
        bind(fd, (const struct sockaddr *)&listener->addr, listener->addr_len) != 0 ||
        (backlog > 0 && listen(fd, backlog) != 0))
        goto fail;
    return fd;
fail:
    err = -errno;
    close(fd);
    return err;
}

/* What is at `path` now? 0: nothing, or a socket that nobody listens to. */
static int path_check(const struct listener *listener)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&listener->addr;
    struct stat st;
    int fd, err;

    if (lstat(un->sun_path, &st) != 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    err = connect(fd, (const struct sockaddr *)un, listener->addr_len) == 0 ? 0 : errno;
    close(fd);
    return err == ECONNREFUSED ? 0 : err == EACCES ? -EACCES : -EADDRINUSE;
}

/* The socket gets its mode and its queue under another name; then it is renamed, so that nobody ever
 * connects to one with other rights, and a dead process's file is replaced in one step. */
static int path_bind(struct listener *listener, int fd, mode_t mode, int backlog)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&listener->addr;
    struct sockaddr_un temp = {.sun_family = AF_UNIX};
    struct stat st;
    mode_t umask_before;
    int err;

    if ((size_t)snprintf(temp.sun_path, sizeof(temp.sun_path), "%s.new", un->sun_path) >=
        sizeof(temp.sun_path))
        return ERR_INVALID;
    unlink(temp.sun_path);
    umask_before = umask(0177);
    err = bind(fd, (struct sockaddr *)&temp, sizeof(temp)) == 0 ? 0 : -errno;
    umask(umask_before);
    if (err != 0)
        return err;
    if (chmod(temp.sun_path, mode) != 0 || listen(fd, backlog) != 0 ||
        lstat(temp.sun_path, &st) != 0 || rename(temp.sun_path, un->sun_path) != 0) {
        err = -errno;
        unlink(temp.sun_path);
        return err;
    }
    listener->is_path = true;
    listener->path_dev = (uint64_t)st.st_dev;
    listener->path_ino = (uint64_t)st.st_ino;
    return 0;
}

static int unix_open(struct listener *listener, const struct master_listener *wanted)
{
    int err = 0, fd;

    if (wanted->path[0] != '@')
        err = path_check(listener);
    if (err != 0)
        return err;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (wanted->path[0] != '@')
        err = path_bind(listener, fd, wanted->mode == 0 ? 0666 : wanted->mode & 0777,
                        backlog_of(wanted));
    else if (bind(fd, (struct sockaddr *)&listener->addr, listener->addr_len) != 0 ||
             listen(fd, backlog_of(wanted)) != 0)
        err = -errno;
    if (err != 0) {
        close(fd);
        return err;
    }
    return fd;
}

static uint32_t lanes_wanted(const struct master_listener *wanted, uint32_t workers)
{
    if (wanted->path != NULL || wanted->accept != MASTER_ACCEPT_REUSEPORT ||
        wanted->for_whom != MASTER_FOR_WORKERS)
        return 1;
    return workers;
}

static int listener_open_lanes(struct listener *listener, const struct master_listener *wanted,
                               uint32_t workers, bool listen_now)
{
    uint32_t lanes = lanes_wanted(wanted, workers);

    while (listener->lanes < lanes) {
        int fd = wanted->path != NULL ? unix_open(listener, wanted)
                                      : tcp_open(listener, listen_now ? listener->backlog : 0);

        if (fd < 0)
            return fd;
        listener->fds[listener->lanes++] = fd;
    }
    return 0;
}

static int listener_bind_one(struct listener_set *set, const struct master_listener *wanted,
                             uint32_t workers, bool listen_now, struct listener **out, char *error)
{
    struct sockaddr_storage addr;
    socklen_t addr_len;
    char name[HANDOVER_NAME_MAX];
    struct listener *listener;
    int err = listener_resolve(wanted, &addr, &addr_len, name, error);

    if (err != 0)
        return err;
    listener = listener_find(set, bytes_of_string(name));
    if (listener != NULL && listener->is_wanted) {
        snprintf(error, MASTER_ERROR_SIZE, "listen: %s is given twice", name);
        return ERR_EXISTS;
    }
    if (listener == NULL)
        listener = listener_create(set, name);
    listener->addr = addr;
    listener->addr_len = addr_len;
    listener->is_wanted = true;
    listener->backlog = backlog_of(wanted);
    listener->mode = wanted->mode & 0777;
    if (listener->guard_fd < 0 && set->guards_count < LISTENER_GUARDS_MAX) {
        listener->guard_fd = guard_open(name);
        if (listener->guard_fd == -EADDRINUSE) {
            snprintf(error, MASTER_ERROR_SIZE, "listen: %s is served by another process of ours",
                     name);
            return -EADDRINUSE;
        }
        if (listener->guard_fd >= 0)
            set->guards_count++;
    }
    err = listener_open_lanes(listener, wanted, workers, listen_now);
    if (err != 0) {
        snprintf(error, MASTER_ERROR_SIZE, "listen: cannot bind %s: %s%s", name, err_text(err),
                 privilege_nofile_hint(err));
        return err;
    }
    *out = listener;
    return 0;
}

int listeners_bind(struct listener_set *set, const struct master_config *config, uint32_t workers,
                   bool listen_now, struct listener **bound, char *error)
{
    LIST_FOR_EACH (&set->list, node) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);

        listener->lanes_before = listener->lanes;
        listener->is_wanted = false;
    }
    for (uint32_t i = 0; i < config->listeners_count; i++) {
        int err = listener_bind_one(set, &config->listeners[i], workers, listen_now, &bound[i],
                                    error);

        if (err != 0) {
            listeners_rollback(set);
            return err;
        }
    }
    return 0;
}

int listeners_listen(struct listener_set *set, char *error)
{
    LIST_FOR_EACH (&set->list, node) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);

        if (!listener->is_wanted)
            continue;
        /* Also for those that listen already: the backlog may be another now. */
        for (uint32_t i = 0; i < listener->lanes; i++)
            if (listen(listener->fds[i], listener->backlog) != 0) {
                int err = -errno;

                snprintf(error, MASTER_ERROR_SIZE, "listen: cannot listen on %s: %s",
                         listener->name, err_text(err));
                return err;
            }
        if (listener->is_path && listener->mode != 0 &&
            chmod(((struct sockaddr_un *)&listener->addr)->sun_path, listener->mode) != 0)
            MAYBE(errno);
    }
    return 0;
}

void listeners_commit(struct listener_set *set)
{
    LIST_FOR_EACH (&set->list, node) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);

        if (!listener->is_wanted)
            listener_destroy(set, listener, true);
        else
            listener->lanes_before = listener->lanes;
    }
}

void listeners_rollback(struct listener_set *set)
{
    LIST_FOR_EACH (&set->list, node) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);

        if (listener->lanes_before == 0) {
            listener_destroy(set, listener, true);
            continue;
        }
        while (listener->lanes > listener->lanes_before)
            close(listener->fds[--listener->lanes]);
        listener->is_wanted = true;
    }
}

/* ---- inherited ---------------------------------------------------------------------------- */

static bool fd_listens(int fd)
{
    int listens = 0;
    socklen_t len = sizeof(listens);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens != 0;
}

bool listener_adopt(struct listener_set *set, const char *name, int fd)
{
    struct listener *listener = listener_find(set, bytes_of_string(name));
    const struct sockaddr_un *un;
    struct stat st;

    if (!fd_listens(fd) || strlen(name) >= HANDOVER_NAME_MAX ||
        (listener != NULL && listener->lanes == MASTER_WORKERS_MAX)) {
        close(fd);
        return false;
    }
    if (listener == NULL)
        listener = listener_create(set, name);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    listener->addr_len = sizeof(listener->addr);
    MAYBE(getsockname(fd, (struct sockaddr *)&listener->addr, &listener->addr_len));
    if (name[0] == '/') {
        un = (const struct sockaddr_un *)&listener->addr;
        /* Bound under another name, then renamed: the kernel remembers the first. */
        snprintf(((struct sockaddr_un *)&listener->addr)->sun_path, sizeof(un->sun_path), "%s",
                 name);
        listener->is_path = lstat(name, &st) == 0;
        listener->path_dev = listener->is_path ? (uint64_t)st.st_dev : 0;
        listener->path_ino = listener->is_path ? (uint64_t)st.st_ino : 0;
    }
    listener->fds[listener->lanes++] = fd;
    listener->lanes_before = listener->lanes;
    return true;
}

bool listener_adopt_guard(struct listener_set *set, const char *name, int fd)
{
    struct listener *listener = listener_find(set, bytes_of_string(name));

    if (listener == NULL || listener->guard_fd >= 0 || !fd_listens(fd)) {
        close(fd);
        return false;
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    listener->guard_fd = fd;
    set->guards_count++;
    return true;
}
