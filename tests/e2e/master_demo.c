/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line server over nginx-style-master, so that the library can be tested with real processes: several
 * addresses, accept balance, hand-over of clients with a name, counters, a control port, and every way
 * to misbehave. Its configuration is lines of "key value"; see demo_configure().
 */
#include "common/base/mem.h"
#include "nginx-style-master/crash.h"
#include "nginx-style-master/master.h"
#include "nginx-style-master/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MAX   4096
#define INPUT_MAX     1024
#define LISTENERS_MAX 64

struct demo_conf {
    struct master_listener listeners[LISTENERS_MAX];
    uint32_t listeners_count;
    char texts[LISTENERS_MAX][128];
    char mode[256]; /* what a new worker does: serve, exit, fatal, hang, crash, once */
    char greeting[256];
    char user[256];
    uint32_t cpus[8], cpus_count;
    bool has_sandbox;
};

struct demo_options {
    const char *conf_path, *pid_path, *log_path, *binary;
    bool daemonize;
};

struct demo_stats {
    uint64_t requests, accepted, passed, received;
    uint64_t clients; /* a gauge */
};

struct client {
    int fd;
    const struct worker_listener *listener;
    char name[32];
    char input[INPUT_MAX];
    size_t input_len;
};

struct demo {
    struct worker *worker;
    struct demo_conf *conf;
    struct demo_stats *stats;
    struct client *clients[CLIENTS_MAX];
    uint32_t clients_count;
    bool is_stopping, is_draining;
    char value[64]; /* of "set" */
    char applied[256];
    /* stats process */
    int asker;
    uint64_t asked_id;
};

/* ---- configuration ------------------------------------------------------------------------ */

static int conf_listen(struct demo_conf *conf, const char *value, enum master_for for_whom)
{
    struct master_listener *listener = &conf->listeners[conf->listeners_count];
    char *text = conf->texts[conf->listeners_count], kind[32] = "", *colon;

    if (conf->listeners_count == LISTENERS_MAX || sscanf(value, "%127s %31s", text, kind) < 1)
        return -1;
    listener->for_whom = for_whom;
    listener->tag = conf->listeners_count++;
    listener->accept = strcmp(kind, "exclusive") == 0 ? MASTER_ACCEPT_EXCLUSIVE
                       : strcmp(kind, "mutex") == 0   ? MASTER_ACCEPT_MUTEX
                                                      : MASTER_ACCEPT_REUSEPORT;
    if (text[0] == '/' || text[0] == '@') {
        listener->path = text;
        listener->mode = (mode_t)strtoul(kind, NULL, 8);
        return 0;
    }
    colon = strrchr(text, ':');
    if (colon == NULL)
        return -1;
    *colon = '\0';
    listener->host = text;
    listener->port = (uint16_t)strtoul(colon + 1, NULL, 10);
    return 0;
}

static int conf_line(struct demo_conf *conf, struct master_config *out, const char *key,
                     const char *value)
{
    uint32_t number = (uint32_t)strtoul(value, NULL, 10);

    if (strcmp(key, "listen") == 0)
        return conf_listen(conf, value, MASTER_FOR_WORKERS);
    if (strcmp(key, "stats") == 0)
        return conf_listen(conf, value, MASTER_FOR_STATS);
    if (strcmp(key, "workers") == 0)
        out->workers = number;
    else if (strcmp(key, "drain_ms") == 0)
        out->drain_timeout_ms = number;
    else if (strcmp(key, "ready_ms") == 0)
        out->ready_timeout_ms = number;
    else if (strcmp(key, "watchdog_ms") == 0)
        out->watchdog_ms = number;
    else if (strcmp(key, "mode") == 0)
        snprintf(conf->mode, sizeof(conf->mode), "%s", value);
    else if (strcmp(key, "greeting") == 0)
        snprintf(conf->greeting, sizeof(conf->greeting), "%s", value);
    else if (strcmp(key, "user") == 0)
        snprintf(conf->user, sizeof(conf->user), "%s", value);
    else if (strcmp(key, "sandbox") == 0)
        conf->has_sandbox = number != 0;
    else if (strcmp(key, "in_place") == 0)
        out->replace = number != 0 ? MASTER_REPLACE_IN_PLACE : MASTER_REPLACE_OVERLAP;
    else if (strcmp(key, "cpu") == 0 && conf->cpus_count < 8)
        conf->cpus[conf->cpus_count++] = number;
    else
        return -1;
    return 0;
}

static int demo_configure(void *arg, struct master_config *out, char error[MASTER_ERROR_SIZE])
{
    const struct demo_options *options = arg;
    struct demo_conf *conf = must_zalloc(sizeof(*conf));
    FILE *file = fopen(options->conf_path, "r");
    char line[256], key[32], value[200];
    int number = 0;

    if (file == NULL) {
        snprintf(error, MASTER_ERROR_SIZE, "%s: %s", options->conf_path, err_text(-errno));
        mem_free(conf);
        return ERR_INVALID;
    }
    snprintf(conf->mode, sizeof(conf->mode), "serve");
    while (fgets(line, sizeof(line), file) != NULL) {
        number++;
        if (sscanf(line, "%31s %199[^\n]", key, value) == 2 &&
            conf_line(conf, out, key, value) == 0)
            continue;
        snprintf(error, MASTER_ERROR_SIZE, "%s:%d:1: no such key, or no value",
                 options->conf_path, number);
        fclose(file);
        mem_free(conf);
        return ERR_INVALID;
    }
    fclose(file);
    out->listeners = conf->listeners;
    out->listeners_count = conf->listeners_count;
    out->cpus = conf->cpus;
    out->cpus_count = conf->cpus_count;
    out->user = conf->user[0] == '\0' ? NULL : conf->user;
    out->stats_size = sizeof(struct demo_stats);
    out->health_size = sizeof(uint64_t);
    out->settings = conf->greeting;
    out->arg = conf;
    return 0;
}

static void demo_release(void *arg, struct master_config *config)
{
    MAYBE(arg);
    mem_free(config->arg);
}

/* The health area counts generations, to see that it is handed on. */
static void demo_health_init(void *arg, const struct master_config *config, void *health,
                             const struct master_config *old_config, const void *old_health)
{
    MAYBE(arg);
    MAYBE(config);
    MAYBE(old_config);
    *(uint64_t *)health = 1 + (old_health == NULL ? 0 : *(const uint64_t *)old_health);
}

/* ---- clients ------------------------------------------------------------------------------ */

static void load_changed(struct demo *demo)
{
    demo->stats->clients = demo->clients_count;
    worker_load_set(demo->worker, demo->clients_count);
}

static struct client *client_add(struct demo *demo, int fd, const struct worker_listener *listener)
{
    struct client *client;

    if (demo->clients_count == CLIENTS_MAX) {
        close(fd);
        return NULL;
    }
    client = must_zalloc(sizeof(*client));
    client->fd = fd;
    client->listener = listener;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    demo->clients[demo->clients_count++] = client;
    load_changed(demo);
    return client;
}

/* The caller has closed the descriptor or given it away. */
static void client_remove(struct demo *demo, uint32_t index)
{
    mem_free(demo->clients[index]);
    demo->clients[index] = demo->clients[--demo->clients_count];
    load_changed(demo);
}

static void client_say(struct client *client, const char *text)
{
    char line[512];
    int len = snprintf(line, sizeof(line), "%s\n", text);

    if (send(client->fd, line, (size_t)len, MSG_NOSIGNAL) < 0)
        MAYBE(errno);
}

static NOINLINE void demo_crash(void)
{
    volatile uintptr_t nowhere = 16;

    *(volatile int *)nowhere = 1;
}

static NOINLINE void client_command(struct demo *demo, struct client *client, const char *line)
{
    struct worker *worker = demo->worker;
    char text[512];

    demo->stats->requests++;
    crash_note_set("command");
    if (strncmp(line, "echo ", 5) == 0) {
        client_say(client, line + 5);
    } else if (strcmp(line, "who") == 0) {
        snprintf(text, sizeof(text), "pid=%d generation=%u index=%u slot=%u tag=%u load=%u",
                 (int)getpid(), worker_generation(worker), worker_index(worker),
                 worker_slot(worker), client->listener == NULL ? 99 : client->listener->tag,
                 demo->clients_count);
        client_say(client, text);
    } else if (strncmp(line, "name ", 5) == 0) {
        snprintf(client->name, sizeof(client->name), "%s", line + 5);
        client_say(client, "ok");
    } else if (strcmp(line, "name?") == 0) {
        client_say(client, client->name);
    } else if (strcmp(line, "greeting") == 0) {
        client_say(client, demo->applied[0] != '\0' ? demo->applied : demo->conf->greeting);
    } else if (strcmp(line, "misbehave") == 0) {
        int made = open("must-not-exist", O_CREAT | O_WRONLY, 0600);
        int ran = execl("/bin/true", "true", NULL);

        snprintf(text, sizeof(text), "create=%d exec=%d", made, ran);
        client_say(client, text);
    } else if (strcmp(line, "value") == 0) {
        client_say(client, demo->value);
    } else if (strcmp(line, "health") == 0) {
        snprintf(text, sizeof(text), "%llu",
                 (unsigned long long)*(uint64_t *)worker_health(worker, NULL));
        client_say(client, text);
    } else if (strcmp(line, "crash") == 0) {
        crash_note_set("crash (a command)");
        demo_crash();
    } else if (strcmp(line, "abort") == 0) {
        ASSERT(demo == NULL);
    } else if (strcmp(line, "spin") == 0) {
        for (volatile unsigned i = 0;; i++)
            MAYBE(i);
    } else if (strcmp(line, "fatal") == 0) {
        _exit(MASTER_EXIT_FATAL);
    } else {
        client_say(client, "error");
    }
    crash_note_set(NULL);
}

/* False: the client is gone. */
static bool client_input(struct demo *demo, struct client *client)
{
    char *end;
    ssize_t got = recv(client->fd, client->input + client->input_len,
                       INPUT_MAX - 1 - client->input_len, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (got <= 0) {
        close(client->fd);
        return false;
    }
    client->input_len += (size_t)got;
    client->input[client->input_len] = '\0';
    while ((end = memchr(client->input, '\n', client->input_len)) != NULL) {
        size_t used = (size_t)(end - client->input) + 1;

        *end = '\0';
        client_command(demo, client, client->input);
        memmove(client->input, client->input + used, client->input_len - used);
        client->input_len -= used;
    }
    return true;
}

/* ---- hand-over ---------------------------------------------------------------------------- */

static void clients_pass_on(struct demo *demo)
{
    for (uint32_t i = demo->clients_count; i-- > 0;) {
        struct client *client = demo->clients[i];
        uint32_t slot = worker_pick_successor(demo->worker);
        char blob[32 + INPUT_MAX];

        if (slot == WORKER_SLOT_NONE)
            return;
        memcpy(blob, client->name, 32);
        memcpy(blob + 32, client->input, client->input_len);
        if (worker_pass(demo->worker, slot, WORKER_PASS_CLIENT, client->listener, &client->fd, 1,
                        bytes_of(blob, 32 + client->input_len), 0) != 0)
            continue; /* the next turn tries again */
        demo->stats->passed++;
        client_remove(demo, i);
    }
}

static void demo_passed(struct worker *worker, const struct worker_passed *passed)
{
    struct demo *demo = worker_arg(worker);
    struct client *client = client_add(demo, passed->fds[0], passed->listener);

    demo->stats->received++;
    if (client == NULL || passed->blob.len < 32 || passed->blob.len >= 32 + INPUT_MAX)
        return;
    memcpy(client->name, passed->blob.data, 32);
    client->input_len = passed->blob.len - 32;
    memcpy(client->input, passed->blob.data + 32, client->input_len);
}

static void demo_accept_from(struct demo *demo, struct worker_listener *listener)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        uint32_t slot;

        if (fd < 0)
            return;
        demo->stats->accepted++;
        slot = worker_pick_for_accept(demo->worker);
        if (slot != worker_slot(demo->worker) &&
            worker_pass(demo->worker, slot, WORKER_PASS_ACCEPTED, listener, &fd, 1, BYTES_EMPTY,
                        0) == 0) {
            demo->stats->passed++;
            continue;
        }
        client_add(demo, fd, listener);
    }
}

/* ---- the worker --------------------------------------------------------------------------- */

static void demo_stop(struct worker *worker)
{
    ((struct demo *)worker_arg(worker))->is_stopping = true;
}

static void demo_drain(struct worker *worker, uint32_t timeout_ms)
{
    MAYBE(timeout_ms);
    ((struct demo *)worker_arg(worker))->is_draining = true;
}

static void demo_set(struct worker *worker, const char *text)
{
    struct demo *demo = worker_arg(worker);

    snprintf(demo->value, sizeof(demo->value), "%s", text);
}

static void demo_apply(struct worker *worker, const char *settings)
{
    struct demo *demo = worker_arg(worker);

    snprintf(demo->applied, sizeof(demo->applied), "%s", settings);
}

static void demo_master_gone(struct worker *worker)
{
    log_notice(worker_log(worker), "demo: no master");
}

static const struct worker_handler worker_callbacks = {
    .stop = demo_stop,
    .drain = demo_drain,
    .set = demo_set,
    .apply = demo_apply,
    .passed = demo_passed,
    .master_gone = demo_master_gone,
};

static void misbehave_at_start(const struct demo *demo)
{
    const char *mode = demo->conf->mode;

    if (strcmp(mode, "exit") == 0)
        _exit(1);
    if (strcmp(mode, "once") == 0 && worker_is_respawn(demo->worker))
        _exit(1);
    if (strcmp(mode, "fatal") == 0)
        _exit(MASTER_EXIT_FATAL);
    if (strcmp(mode, "crash") == 0)
        demo_crash();
    while (strcmp(mode, "hang") == 0)
        sleep(1);
}

static void worker_turn(struct demo *demo)
{
    static struct pollfd fds[CLIENTS_MAX + 1024];
    struct worker *worker = demo->worker;
    uint32_t listeners_count, clients_count = demo->clients_count, at = 1;
    struct worker_listener *listeners = worker_listeners(worker, &listeners_count);

    fds[0] = (struct pollfd){.fd = worker_channel_fd(worker), .events = POLLIN};
    for (uint32_t i = 0; i < listeners_count; i++)
        fds[at++] = (struct pollfd){.fd = listeners[i].is_accepting ? listeners[i].fd : -1,
                                    .events = POLLIN};
    for (uint32_t i = 0; i < clients_count; i++)
        fds[at++] = (struct pollfd){.fd = demo->clients[i]->fd, .events = POLLIN};
    if (poll(fds, at, demo->is_draining ? 20 : 500) < 0)
        return;
    worker_heartbeat(worker);
    for (uint32_t i = clients_count; i-- > 0;)
        if (fds[1 + listeners_count + i].revents != 0 && !client_input(demo, demo->clients[i]))
            client_remove(demo, i);
    for (uint32_t i = 0; i < listeners_count; i++)
        if (fds[1 + i].revents != 0 && listeners[i].is_accepting &&
            (!listeners[i].is_mutex || worker_mutex_try(worker))) {
            demo_accept_from(demo, &listeners[i]);
            if (listeners[i].is_mutex)
                worker_mutex_release(worker);
        }
    worker_channel_ready(worker);
}

static int demo_worker_main(struct worker *worker)
{
    struct demo *demo = must_zalloc(sizeof(*demo));

    demo->worker = worker;
    demo->conf = worker_config_arg(worker);
    demo->stats = worker_stats(worker, NULL);
    demo->stats->clients = 0;
    misbehave_at_start(demo);
    worker_handler_set(worker, &worker_callbacks, demo);
    if (demo->conf->has_sandbox && worker_sandbox(worker) != 0)
        log_notice(worker_log(worker), "demo: no sandbox here");
    worker_ready(worker);
    while (!demo->is_stopping) {
        worker_turn(demo);
        if (!demo->is_draining)
            continue;
        clients_pass_on(demo);
        if (demo->clients_count == 0 || worker_pick_successor(worker) == WORKER_SLOT_NONE)
            break;
    }
    while (demo->clients_count > 0) {
        close(demo->clients[0]->fd);
        client_remove(demo, 0);
    }
    mem_free(demo);
    return MASTER_EXIT_DONE;
}

/* ---- the stats process -------------------------------------------------------------------- */

static void stats_fold(void *arg, void *base, size_t base_size, const void *stats,
                       size_t stats_size)
{
    uint64_t *to = base;
    const uint64_t *from = stats;

    MAYBE(arg);
    ASSERT(base_size >= stats_size);
    for (size_t i = 0; i < stats_size / sizeof(uint64_t); i++)
        to[i] += from[i];
    ((struct demo_stats *)base)->clients = 0;
}

static void stats_retired(struct worker *worker, uint32_t slot)
{
    MAYBE(worker_stats_fold(worker, slot, stats_fold, NULL));
}

static void stats_reply(struct worker *worker, uint64_t id, int err, const char *text)
{
    struct demo *demo = worker_arg(worker);
    char line[2048];
    int len = snprintf(line, sizeof(line), "%s %s\n", err == 0 ? "ok" : err_text(err), text);

    if (demo->asker < 0 || id != demo->asked_id)
        return;
    if (send(demo->asker, line, (size_t)len, MSG_NOSIGNAL) < 0)
        MAYBE(errno);
    close(demo->asker);
    demo->asker = -1;
}

static const struct worker_handler stats_callbacks = {
    .stop = demo_stop,
    .drain = demo_drain,
    .retired = stats_retired,
    .reply = stats_reply,
};

static void stats_print(struct worker *worker, int fd)
{
    const struct demo_stats *base = worker_stats_base(worker, NULL);
    struct worker_master_info master;
    uint64_t sum[5];
    char text[16384];
    size_t len = 0;

    memcpy(sum, base, sizeof(sum));
    worker_master_info(worker, &master);
    for (uint32_t i = 0; i < worker_slots_count(worker) && len < sizeof(text) - 256; i++) {
        struct worker_info info;
        const uint64_t *counters;

        if (!worker_slot_info(worker, i, &info))
            continue;
        counters = info.stats;
        for (int j = 0; counters != NULL && j < 5; j++)
            sum[j] += counters[j];
        len += (size_t)snprintf(text + len, sizeof(text) - len,
                                "slot=%u state=%d pid=%d generation=%u index=%u load=%u "
                                "respawns=%u newest=%d\n",
                                i, info.state, (int)info.pid, info.generation, info.index,
                                info.load, info.respawns, info.is_newest);
    }
    snprintf(text + len, sizeof(text) - len,
             "requests=%llu accepted=%llu passed=%llu received=%llu clients=%llu\n"
             "master pid=%d generation=%u reloads=%llu failed=%llu respawns=%llu level=%d\nend\n",
             (unsigned long long)sum[0], (unsigned long long)sum[1], (unsigned long long)sum[2],
             (unsigned long long)sum[3], (unsigned long long)sum[4], (int)master.pid,
             master.generation, (unsigned long long)master.reloads,
             (unsigned long long)master.reloads_failed, (unsigned long long)master.respawns,
             master.log_level);
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        MAYBE(errno);
}

/* One line in, the answer out, close. Requests are answered from stats_reply(). */
static void stats_serve(struct demo *demo, int fd)
{
    static const char *const names[WORKER_REQUEST_MAX_] = {
        "reload", "reopen", "upgrade", "level", "set", "quit", "stop",
    };
    char line[256] = "", verb[32] = "", text[200] = "";
    struct timeval patience = {.tv_sec = 1};
    ssize_t got;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    got = recv(fd, line, sizeof(line) - 1, 0);
    if (got <= 0 || sscanf(line, "%31s %199[^\n]", verb, text) < 1) {
        close(fd);
        return;
    }
    for (unsigned i = 0; i < WORKER_REQUEST_MAX_; i++)
        if (strcmp(verb, names[i]) == 0 && demo->asker < 0 &&
            worker_request(demo->worker, (enum worker_request)i, text, &demo->asked_id) == 0) {
            demo->asker = fd;
            return;
        }
    for (uint32_t i = 0; i < worker_slots_count(demo->worker); i++)
        stats_retired(demo->worker, i);
    stats_print(demo->worker, fd);
    close(fd);
}

static int demo_stats_main(struct worker *worker)
{
    struct demo *demo = must_zalloc(sizeof(*demo));
    uint32_t count;
    struct worker_listener *listeners = worker_listeners(worker, &count);

    demo->worker = worker;
    demo->asker = -1;
    worker_handler_set(worker, &stats_callbacks, demo);
    worker_ready(worker);
    while (!demo->is_stopping && (!demo->is_draining || demo->asker >= 0)) {
        struct pollfd fds[LISTENERS_MAX + 1];

        fds[0] = (struct pollfd){.fd = worker_channel_fd(worker), .events = POLLIN};
        for (uint32_t i = 0; i < count; i++)
            fds[i + 1] = (struct pollfd){.fd = listeners[i].is_accepting ? listeners[i].fd : -1,
                                         .events = POLLIN};
        if (poll(fds, count + 1, 500) < 0)
            continue;
        for (uint32_t i = 0; i < count; i++) {
            int fd = fds[i + 1].revents == 0 ? -1 : accept4(listeners[i].fd, NULL, NULL, SOCK_CLOEXEC);

            if (fd >= 0)
                stats_serve(demo, fd);
        }
        worker_channel_ready(worker);
        for (uint32_t i = 0; i < worker_slots_count(worker); i++)
            stats_retired(worker, i);
    }
    mem_free(demo);
    return 0;
}

int main(int argc, char **argv)
{
    struct demo_options options = {0};
    struct log *log;
    int code, option, level = LOG_INFO;

    master_title_setup(argc, argv);
    while ((option = getopt(argc, argv, "c:p:l:b:dv:")) != -1)
        switch (option) {
        case 'c':
            options.conf_path = optarg;
            break;
        case 'p':
            options.pid_path = optarg;
            break;
        case 'l':
            options.log_path = optarg;
            break;
        case 'b':
            options.binary = optarg;
            break;
        case 'd':
            options.daemonize = true;
            break;
        case 'v':
            level = (int)strtol(optarg, NULL, 10);
            break;
        default:
            return 64;
        }
    if (options.conf_path == NULL || log_create(options.log_path, level, "demo", &log) != 0)
        return 64;
    struct master_program program = {
        .name = "demo",
        .version = "1.0",
        .argc = argc,
        .argv = argv,
        .log = log,
        .pid_file = options.pid_path,
        .daemonize = options.daemonize,
        .upgrade_binary = options.binary,
        .arg = &options,
        .stats_layout = "demo-1",
        .stats_size_max = 4096,
        .configure = demo_configure,
        .release = demo_release,
        .health_init = demo_health_init,
        .worker_main = demo_worker_main,
        .stats_main = demo_stats_main,
    };
    code = master_run(&program);
    log_destroy(&log);
    return code;
}
