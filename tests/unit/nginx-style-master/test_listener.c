/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "nginx-style-master/listener.h"

#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char error[MASTER_ERROR_SIZE];

static uint16_t free_port(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    close(fd);
    return ntohs(addr.sin_port);
}

static uint32_t open_count(void)
{
    DIR *dir = opendir("/proc/self/fd");
    uint32_t count = 0;

    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

static bool can_connect(const struct listener *listener)
{
    int fd = socket(listener->addr.ss_family, SOCK_STREAM, 0);
    bool is_fine =
        connect(fd, (const struct sockaddr *)&listener->addr, listener->addr_len) == 0;

    close(fd);
    return is_fine;
}

static void assert_name(struct master_listener wanted, const char *name)
{
    struct sockaddr_storage addr;
    socklen_t len;
    char got[HANDOVER_NAME_MAX];

    assert_int_equal(listener_resolve(&wanted, &addr, &len, got, error), 0);
    assert_string_equal(got, name);
}

static void test_names(void **state)
{
    struct master_listener bad = {.path = "x"};
    struct sockaddr_storage addr;
    socklen_t len;
    char name[HANDOVER_NAME_MAX], longest[140];

    (void)state;
    assert_name((struct master_listener){.host = "127.0.0.1", .port = 1}, "127.0.0.1:1");
    assert_name((struct master_listener){.host = "", .port = 65535}, "0.0.0.0:65535");
    assert_name((struct master_listener){.port = 2}, "0.0.0.0:2");
    assert_name((struct master_listener){.host = "::1", .port = 3}, "[::1]:3");
    assert_name((struct master_listener){.host = "0:0:0:0:0:0:0:1", .port = 3}, "[::1]:3");
    assert_name((struct master_listener){.path = "/run/a.sock"}, "/run/a.sock");
    assert_name((struct master_listener){.path = "@name"}, "@name");
    assert_int_equal(listener_resolve(&bad, &addr, &len, name, error), ERR_INVALID);
    memset(longest, 'p', sizeof(longest));
    longest[0] = '/';
    longest[108] = '\0';
    bad.path = longest;
    assert_int_equal(listener_resolve(&bad, &addr, &len, name, error), ERR_INVALID);
    longest[107] = '\0';
    assert_int_equal(listener_resolve(&bad, &addr, &len, name, error), 0);
    assert_string_equal(name, longest);
    bad = (struct master_listener){.host = "no.such.host.invalid", .port = 1};
    assert_int_equal(listener_resolve(&bad, &addr, &len, name, error), ERR_INVALID);
    assert_non_null(strstr(error, "no.such.host.invalid"));
}

static void test_guard_names_differ_and_fit(void **state)
{
    struct sockaddr_un a, b;
    char name[128];

    (void)state;
    for (size_t len = 1; len < sizeof(name) - 1; len++) {
        memset(name, 'n', len);
        name[len] = '\0';
        assert_true(listener_guard_addr(name, &a) <= sizeof(a));
        name[len - 1] = 'm';
        MAYBE(listener_guard_addr(name, &b));
        assert_memory_not_equal(&a, &b, sizeof(a));
    }
}

/* What a failed attempt opened is closed, and got no connection before. */
static void test_rollback_restores(void **state)
{
    struct master_listener wanted[3] = {{.host = "127.0.0.1", .port = free_port()},
                                        {.host = "127.0.0.1", .port = free_port()},
                                        {.path = "/nonexistent/dir/x.sock"}};
    struct master_config config = {.listeners = wanted, .listeners_count = 1};
    struct listener *bound[3];
    struct listener_set set;
    uint32_t before = open_count(), with_one;

    (void)state;
    listeners_init(&set);
    assert_int_equal(listeners_bind(&set, &config, 2, true, bound, error), 0);
    listeners_commit(&set);
    assert_int_equal(bound[0]->lanes, 2);
    assert_true(can_connect(bound[0]));
    with_one = open_count();
    config.listeners_count = 3;
    assert_int_not_equal(listeners_bind(&set, &config, 5, false, bound, error), 0);
    assert_non_null(strstr(error, "/nonexistent/dir/x.sock"));
    assert_int_equal(open_count(), with_one);
    assert_int_equal(bound[0]->lanes, 2);
    config.listeners_count = 2;
    assert_int_equal(listeners_bind(&set, &config, 5, false, bound, error), 0);
    assert_int_equal(bound[0]->lanes, 5);
    assert_false(can_connect(bound[1])); /* bound, not listening */
    listeners_rollback(&set);
    assert_int_equal(open_count(), with_one);
    assert_true(can_connect(bound[0]));
    listeners_deinit(&set, true);
    assert_int_equal(open_count(), before);
}

static void test_commit_closes_only_what_is_not_wanted(void **state)
{
    struct master_listener wanted[2] = {{.host = "127.0.0.1", .port = free_port()},
                                        {.host = "127.0.0.1", .port = free_port()}};
    struct master_config config = {.listeners = wanted, .listeners_count = 2};
    struct listener *bound[2], *kept;
    struct listener_set set;
    int fd;

    (void)state;
    listeners_init(&set);
    assert_int_equal(listeners_bind(&set, &config, 4, true, bound, error), 0);
    listeners_commit(&set);
    kept = bound[1];
    fd = kept->fds[3];
    config.listeners = &wanted[1];
    config.listeners_count = 1;
    assert_int_equal(listeners_bind(&set, &config, 1, false, bound, error), 0);
    assert_int_equal(listeners_listen(&set, error), 0);
    listeners_commit(&set);
    assert_ptr_equal(bound[0], kept);
    assert_int_equal(kept->lanes, 4); /* fewer workers: the sockets stay */
    assert_int_equal(kept->fds[3], fd);
    assert_null(listener_find(&set, bytes_of_string("127.0.0.1:1")));
    assert_ptr_equal(list_first(&set.list), list_last(&set.list));
    listeners_deinit(&set, true);
}

static void test_guard_keeps_a_second_set_out(void **state)
{
    struct master_listener wanted = {.host = "127.0.0.1", .port = free_port()};
    struct master_config config = {.listeners = &wanted, .listeners_count = 1};
    struct listener *bound[1];
    struct listener_set first, second;

    (void)state;
    listeners_init(&first);
    listeners_init(&second);
    assert_int_equal(listeners_bind(&first, &config, 1, true, bound, error), 0);
    assert_int_equal(listeners_bind(&second, &config, 1, true, bound, error), -EADDRINUSE);
    listeners_deinit(&first, true);
    assert_int_equal(listeners_bind(&second, &config, 1, true, bound, error), 0);
    listeners_deinit(&second, true);
}

static void test_unix_socket_files(void **state)
{
    char dir[] = "/tmp/weir-listener-XXXXXX", path[64], temp[70];
    struct master_listener wanted = {.path = path, .mode = 0640};
    struct master_config config = {.listeners = &wanted, .listeners_count = 1};
    struct listener *bound[1];
    struct listener_set set;
    struct stat st;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/x.sock", dir);
    snprintf(temp, sizeof(temp), "%s.new", path);
    listeners_init(&set);
    assert_int_equal(listeners_bind(&set, &config, 8, true, bound, error), 0);
    assert_int_equal(bound[0]->lanes, 1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_not_equal(stat(temp, &st), 0);
    wanted.mode = 0600;
    assert_int_equal(listeners_bind(&set, &config, 8, false, bound, error), 0);
    assert_int_equal(listeners_listen(&set, error), 0);
    listeners_commit(&set);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    listeners_deinit(&set, false); /* as after an upgrade: the file is the other's */
    assert_int_equal(stat(path, &st), 0);
    /* Stale now: replaced, and removed by its owner. */
    assert_int_equal(listeners_bind(&set, &config, 8, true, bound, error), 0);
    assert_true(can_connect(bound[0]));
    listeners_deinit(&set, true);
    assert_int_not_equal(stat(path, &st), 0);
    rmdir(dir);
}

static void test_adopted_sockets_are_used_again(void **state)
{
    struct master_listener wanted = {.host = "127.0.0.1", .port = free_port()};
    struct master_config config = {.listeners = &wanted, .listeners_count = 1};
    struct listener *bound[1];
    struct listener_set old, heir;
    char name[HANDOVER_NAME_MAX];
    int fd, pipes[2];

    (void)state;
    listeners_init(&old);
    listeners_init(&heir);
    assert_int_equal(listeners_bind(&old, &config, 2, true, bound, error), 0);
    snprintf(name, sizeof(name), "%s", bound[0]->name);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(listener_adopt(&heir, name, dup(bound[0]->fds[i])));
    assert_true(listener_adopt_guard(&heir, name, dup(bound[0]->guard_fd)));
    fd = dup(bound[0]->guard_fd);
    assert_false(listener_adopt_guard(&heir, "127.0.0.1:1", fd));
    assert_int_equal(pipe(pipes), 0);
    assert_false(listener_adopt(&heir, name, pipes[0])); /* closed by the callee */
    close(pipes[1]);
    listeners_deinit(&old, false);
    assert_int_equal(listeners_bind(&heir, &config, 2, false, bound, error), 0);
    assert_int_equal(bound[0]->lanes, 2);
    assert_true(can_connect(bound[0]));
    listeners_deinit(&heir, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_guard_names_differ_and_fit),
        cmocka_unit_test(test_rollback_restores),
        cmocka_unit_test(test_commit_closes_only_what_is_not_wanted),
        cmocka_unit_test(test_guard_keeps_a_second_set_out),
        cmocka_unit_test(test_unix_socket_files),
        cmocka_unit_test(test_adopted_sockets_are_used_again),
    };

    return cmocka_run_group_tests_name("listener", tests, NULL, NULL);
}
