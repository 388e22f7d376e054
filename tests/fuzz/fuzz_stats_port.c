/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes to the stats port (first byte even) and over the control socket (odd): heads, paths, verbs. The
 * worker library is played here: two workers, one of which has a segment of its own.
 */
#include "common/base/mem.h"
#include "common/io/io_ev.h"
#include "proxy/stats_process.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char conf_text[] = "weir:\n  version: 1\n  slowlog:\n    entries: 2\n  hotkeys:\n    entries: 2\n"
                                "alpha:\n  listen: 127.0.0.1:1\n  redis: true\n  servers:\n  - 10.0.0.1:6379:1\n"
                                "  - 10.0.0.2:6379:1\n";

struct worker {
    void *segment;
    size_t size;
};

uint32_t worker_slots_count(const struct worker *worker)
{
    return worker == NULL ? 0 : 2;
}

bool worker_slot_info(const struct worker *worker, uint32_t slot, struct worker_info *out)
{
    *out = (struct worker_info){.state = slot == 0 ? WORKER_STATE_SERVING : WORKER_STATE_GONE, .pid = 1};
    if (slot == 0) {
        out->stats = worker->segment;
        out->stats_size = worker->size;
    }
    return true;
}

void worker_master_info(const struct worker *worker, struct worker_master_info *out)
{
    *out = (struct worker_master_info){.pid = worker == NULL ? 0 : 1};
}

const void *worker_stats_base(const struct worker *worker, size_t *size)
{
    *size = worker->size;
    return worker->segment;
}

void *worker_health(const struct worker *worker, size_t *size)
{
    MAYBE(worker);
    *size = 0;
    return NULL;
}

int worker_request(struct worker *worker, enum worker_request request, const char *text, uint64_t *id)
{
    MAYBE(worker);
    MAYBE(request);
    *id = strlen(text) + 1;
    return ERR_EOF;
}

bool worker_has_master(const struct worker *worker)
{
    return worker != NULL;
}

/* Instead of http_server.c's: the answer stays in conn->out. */
void http_conn_answer(struct http_conn *conn)
{
    conn->state = HTTP_SENDING;
}

void http_conn_wait(struct http_conn *conn, uint32_t timeout_ms)
{
    MAYBE(timeout_ms);
    conn->state = HTTP_WAITING;
}

static void segment_fill(struct worker *worker, const struct conf *conf)
{
    struct stats_segment segment;
    struct stats_schemas schemas;
    struct stats_plan plan;
    uint64_t *cells;

    stats_plan_private(conf, &plan);
    worker->size = plan.size;
    worker->segment = must_zalloc(plan.size);
    stats_open(&segment, worker->segment, plan.size, false);
    stats_schemas_add(&segment, &plan, &schemas);
    MAYBE(stats_group_add(&segment, schemas.process, BYTES_EMPTY, BYTES_EMPTY));
    MAYBE(stats_group_add(&segment, schemas.pool, BYTES("alpha"), BYTES_EMPTY));
    cells = stats_group_add(&segment, schemas.command, BYTES("alpha"), BYTES("get"));
    cells[0] = 3;
    stats_close(&segment);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct io_ev_options io_options = {.files = IO_FILES_NONE};
    struct stats_process process = {.conf_path = "fuzz", .host_name = "host"};
    const struct http_pages pages = {
        .pages = stats_pages, .count = STATS_PAGES, .plain = stats_page_plain, .not_found = STATS_NOT_FOUND,
    };
    struct http_conn conn = {.server = &process.http, .state = HTTP_READING, .is_line = true};
    struct worker worker;
    struct conf_error error;
    struct bytes input = bytes_of(data + 1, size - 1);

    if (size < 1)
        return 0;
    if (io_ev_create(&io_options, &process.io) != 0 ||
        conf_parse("fuzz", bytes_of(conf_text, sizeof(conf_text) - 1), &process.conf, &error) != 0)
        UNREACHABLE("the fuzzer's own set-up");
    segment_fill(&worker, process.conf);
    process.worker = &worker;
    process.changes = must_zalloc(sizeof(*process.changes) * STATS_CHANGES_MAX);
    process.http.arg = &process;
    list_init(&process.http.conns);
    if (data[0] % 2 == 0) {
        bool is_done = http_read(&pages, &process, input, false, &conn.out);

        /* Nothing is answered twice, and the end always brings an answer. */
        ASSERT(is_done == (conn.out.len > 0));
        if (!is_done)
            ASSERT(http_read(&pages, &process, input, true, &conn.out) && conn.out.len > 0);
    } else if (memchr(input.data, '\n', input.len) == NULL && input.len <= HTTP_HEAD_MAX) {
        control_line(&conn, input);
        ASSERT(conn.state == HTTP_SENDING && conn.out.len > 0);
        ASSERT(memcmp(conn.out.data, "ok\n", 3) == 0 || memcmp(conn.out.data, "error: ", 7) == 0);
    }
    io_timer_stop(&conn.timer);
    buffer_deinit(&conn.out);
    mem_free(process.changes);
    mem_free(worker.segment);
    conf_destroy(&process.conf);
    io_ev_destroy(&process.io);
    return 0;
}
