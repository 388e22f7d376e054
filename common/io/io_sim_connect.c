/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening and connecting in the simulated network, and descriptors.
 *
 * A SYN travels, meets a listener with room in its backlog (then the server's end is there, before
 * the client knows), one without, none, or a host that is down; the answer travels back. What is
 * lost is sent again after 1 s, 2 s, 4 s ... until the connect times out.
 */
#include "common/io/io_sim_net_private.h"

#define SYN_RETRY_US   1000000
#define SYN_RETRIES_MAX 7

enum stage { STAGE_SYN, STAGE_ANSWER, STAGE_TIMEOUT };

static bool addr_is_any(const struct io_addr *addr)
{
    static const struct in6_addr any6; /* zeros */

    if (addr->any.sa_family == AF_INET)
        return addr->in.sin_addr.s_addr == htonl(INADDR_ANY);
    return addr->any.sa_family == AF_INET6 &&
           memcmp(&addr->in6.sin6_addr, &any6, sizeof(any6)) == 0;
}

static uint16_t addr_port(const struct io_addr *addr)
{
    if (addr->any.sa_family == AF_INET)
        return ntohs(addr->in.sin_port);
    return addr->any.sa_family == AF_INET6 ? ntohs(addr->in6.sin6_port) : 0;
}

/* The node that has this address; of 127.0.0.1 and ::1, the one that asks. */
static struct sim_node *addr_node(struct sim *sim, const struct sim_node *from,
                                  const struct io_addr *addr)
{
    uint32_t ip;

    if (addr->any.sa_family != AF_INET)
        return sim->nodes[from->id - 1];
    ip = ntohl(addr->in.sin_addr.s_addr);
    if (ip > 0x7f000100u && ip <= 0x7f000100u + sim->node_count)
        return sim->nodes[ip - 0x7f000101u];
    return sim->nodes[from->id - 1];
}

/* `target` NULL: any node's wildcard will do. */
static bool listener_matches(const struct sim_socket *listener, const struct sim_node *target,
                             const struct io_addr *addr)
{
    if (io_addr_equal(&listener->local, addr))
        return true;
    return addr_is_any(&listener->local) && (target == NULL || listener->node == target) &&
           addr_port(&listener->local) == addr_port(addr);
}

/* One of those that listen there, by chance (reuseport). */
static struct sim_socket *pick_listener(struct sim *sim, const struct sim_node *target,
                                        const struct io_addr *addr)
{
    struct sim_socket *found = NULL;
    uint64_t count = 0;

    LIST_FOR_EACH(&sim->listeners, node) {
        struct sim_socket *listener = CONTAINER_OF(node, struct sim_socket, listen_);

        if (!listener_matches(listener, target, addr))
            continue;
        count++;
        if (sim_random_below(sim, SIM_RANDOM_NET, count) == 0)
            found = listener;
    }
    return found;
}

/* 127.0.0.1 is the world's: also a wildcard of another node answers there, if there is none
 * nearer. */
static struct sim_socket *find_listener(struct sim *sim, const struct sim_node *from,
                                        const struct io_addr *addr, struct sim_node **down)
{
    struct sim_node *target = addr_node(sim, from, addr);
    struct sim_socket *found = pick_listener(sim, target, addr);

    if (found == NULL && target == from)
        found = pick_listener(sim, NULL, addr);
    *down = found == NULL && !target->is_up ? target : NULL;
    return found;
}

static void handshake_retry(struct sim_conn *conn)
{
    uint64_t at_us = conn->sim->now_us + ((uint64_t)SYN_RETRY_US << conn->syn_count);

    if (conn->syn_count < SYN_RETRIES_MAX)
        conn->syn_count++;
    if (at_us >= conn->deadline_us) {
        conn->stage = STAGE_TIMEOUT;
        at_us = conn->deadline_us;
    }
    sim_event_start(conn->sim, &conn->handshake, at_us);
}

static void handshake_answer(struct sim_conn *conn, const struct sim_node *from, int answer)
{
    struct sim *sim = conn->sim;

    conn->stage = STAGE_ANSWER;
    conn->answer = answer;
    if (answer == -ECONNREFUSED)
        sim->stats.refusals++;
    sim_event_start(sim, &conn->handshake,
                    sim->now_us + sim_net_delay(sim, from, conn->nodes[0], conn->is_unix));
}

static void backlog_push(struct sim_socket *listener, struct sim_conn *conn)
{
    struct sim_socket *client = conn->ends[0];
    struct sim_socket *server = sim_conn_add_server(conn, listener->node);

    server->local = conn->target;
    server->peer = client->local;
    if (conn->is_unix) {
        server->peer = (struct io_addr){.len = offsetof(struct sockaddr_un, sun_path)};
        server->peer.un.sun_family = AF_UNIX;
    }
    list_push_back(&listener->backlog, &server->listen_);
    listener->backlog_count++;
    sim_socket_notify(listener);
}

static void syn_arrives(struct sim_conn *conn)
{
    struct sim *sim = conn->sim;
    const struct sim_options *o = &sim->options;
    struct sim_node *source = conn->nodes[0], *down, *target;
    struct sim_socket *listener = find_listener(sim, source, &conn->target, &down);

    target = listener != NULL ? listener->node : addr_node(sim, source, &conn->target);
    if (conn->is_unix) {
        int answer = 0;

        if (listener == NULL)
            answer = -ECONNREFUSED;
        else if (listener->backlog_count >= o->net.backlog)
            answer = -EAGAIN;
        else
            backlog_push(listener, conn);
        handshake_answer(conn, source, answer);
        return;
    }
    if (conn->is_blackhole || down != NULL || sim_net_cut_is(sim, source, target) ||
        sim_random_chance(sim, SIM_RANDOM_NET, o->net.syn_loss_ppm)) {
        handshake_retry(conn);
    } else if (listener == NULL || sim_random_chance(sim, SIM_RANDOM_NET, o->net.refuse_ppm)) {
        conn->nodes[1] = target;
        handshake_answer(conn, target, -ECONNREFUSED);
    } else if (listener->backlog_count >= o->net.backlog) {
        handshake_retry(conn); /* Linux drops it */
    } else {
        backlog_push(listener, conn);
        handshake_answer(conn, target, 0);
    }
}

void sim_handshake_fire(struct sim_event *event)
{
    struct sim_conn *conn = CONTAINER_OF(event, struct sim_conn, handshake);
    struct sim_socket *client = conn->ends[0];
    int err;

    if (client == NULL || client->connect != SIM_CONNECT_GOING)
        return;
    if (conn->stage == STAGE_SYN) {
        syn_arrives(conn);
        return;
    }
    if (conn->stage == STAGE_ANSWER && !conn->is_unix &&
        (conn->is_blackhole || sim_net_cut_is(conn->sim, conn->nodes[1], conn->nodes[0]))) {
        handshake_retry(conn);
        return;
    }
    err = conn->stage == STAGE_TIMEOUT ? -ETIMEDOUT : conn->answer;
    if (err != 0) {
        sim_conn_fail(conn, 0, err);
        return;
    }
    client->connect = SIM_CONNECT_ENDED;
    client->connect_err = 0;
    sim_trace(conn->sim, client->node, "connected", conn->id, 0);
    sim_socket_notify(client);
}

int sim_socket_connect(struct sim_process *process, const struct io_addr *addr,
                       struct sim_socket **out)
{
    struct sim_node *node = process->node;
    struct sim *sim = node->sim;
    struct sim_socket *socket = sim_socket_create(node, SIM_SOCKET_STREAM);
    struct sim_conn *conn;
    int err = sim_fd_alloc(sim, process, socket);

    if (err != 0) {
        sim_socket_free(socket);
        return err;
    }
    sim->stats.connects++;
    conn = sim_conn_create(node, socket);
    conn->is_unix = addr->any.sa_family == AF_UNIX;
    conn->target = *addr;
    conn->deadline_us = sim->now_us + sim->options.net.connect_timeout_us;
    socket->connect = SIM_CONNECT_GOING;
    socket->peer = *addr;
    if (!conn->is_unix) {
        sim_node_addr(node, (uint16_t)sim->port_next, &socket->local);
        sim->port_next = sim->port_next >= 60999 ? 32768 : sim->port_next + 1;
    }
    sim_event_start(sim, &conn->handshake,
                    sim_process_true_us(process) + sim_net_delay(sim, node, NULL, conn->is_unix));
    *out = socket;
    return 0;
}

/* ---- descriptors of the driver ------------------------------------------------------------ */

static void choose_port(struct sim *sim, struct io_addr *addr)
{
    if (addr->any.sa_family == AF_UNIX || addr_port(addr) != 0)
        return;
    if (addr->any.sa_family == AF_INET)
        addr->in.sin_port = htons((uint16_t)sim->port_next);
    else
        addr->in6.sin6_port = htons((uint16_t)sim->port_next);
    sim->port_next = sim->port_next >= 60999 ? 32768 : sim->port_next + 1;
}

int sim_listen(struct sim_node *node, const struct io_addr *addr, int *fd)
{
    struct sim *sim = node->sim;
    struct sim_socket *socket;
    int err;

    if (addr->any.sa_family == AF_UNIX) {
        LIST_FOR_EACH(&sim->listeners, at) {
            if (io_addr_equal(&CONTAINER_OF(at, struct sim_socket, listen_)->local, addr))
                return -EADDRINUSE;
        }
    }
    socket = sim_socket_create(node, SIM_SOCKET_LISTENER);
    err = node->process->is_dead ? -ENETDOWN : sim_fd_alloc(sim, node->process, socket);
    if (err != 0) {
        sim_socket_free(socket);
        return err;
    }
    socket->local = *addr;
    choose_port(sim, &socket->local);
    list_push_back(&sim->listeners, &socket->listen_);
    *fd = socket->fd;
    return 0;
}

void sim_listen_keep(struct sim *sim, int fd)
{
    struct sim_socket *socket = sim_socket_of_fd(sim, fd);

    ASSERT(socket != NULL && socket->kind == SIM_SOCKET_LISTENER);
    socket->is_kept = true;
}

int sim_socketpair(struct sim_node *a, struct sim_node *b, int fds[2])
{
    struct sim *sim = a->sim;
    struct sim_socket *first = sim_socket_create(a, SIM_SOCKET_STREAM), *second;
    struct sim_conn *conn;
    int err = sim_fd_alloc(sim, a->process, first);

    if (err != 0) {
        sim_socket_free(first);
        return err;
    }
    conn = sim_conn_create(a, first);
    first->connect = SIM_CONNECT_ENDED;
    second = sim_conn_add_server(conn, b);
    err = sim_fd_alloc(sim, b->process, second);
    if (err != 0) {
        sim_socket_close(second);
        sim_socket_close(first);
        return err;
    }
    sim_node_addr(a, 1, &first->local);
    sim_node_addr(b, 1, &second->local);
    first->peer = second->local;
    second->peer = first->local;
    fds[0] = first->fd;
    fds[1] = second->fd;
    return 0;
}

void sim_fd_addr(const struct sim *sim, int fd, struct io_addr *out)
{
    const struct sim_socket *socket = sim_socket_of_fd(sim, fd);

    ASSERT(socket != NULL);
    *out = socket->local;
}

void sim_fd_close(struct sim *sim, int fd)
{
    struct sim_socket *socket = sim_socket_of_fd(sim, fd);

    ASSERT(socket != NULL && socket->stream == NULL && socket->listener == NULL);
    sim_socket_close(socket);
}

void sim_fd_move(struct sim *sim, int fd, struct sim_node *to)
{
    struct sim_socket *socket = sim_socket_of_fd(sim, fd);

    ASSERT(socket != NULL && socket->stream == NULL && socket->listener == NULL);
    sim_socket_disown(socket);
    socket->node = to;
    if (socket->conn != NULL)
        socket->conn->nodes[socket->side] = to;
    sim_socket_adopt(to->process, socket);
}

uint32_t sim_fd_count(const struct sim *sim, const struct sim_node *node)
{
    return node == NULL ? sim->fd_open : node->process->fd_count;
}

