/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/ctl.h"

#include "proxy/conf.h"
#include "proxy/control_client.h"
#include "proxy/control_path.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_WAIT_MS 120000 /* a reload waits for its workers */

static int put(const char *path, char *out, size_t size)
{
    int len = snprintf(out, size, "%s", path);

    if (len < 0 || (size_t)len >= size) {
        fprintf(stderr, "weirctl: the socket's path is too long: %s\n", path);
        return CTL_USAGE;
    }
    return CTL_OK;
}

static int find_by_port(const char *host, int port, char *out, size_t size)
{
    char path[CONTROL_PATH_MAX];

    if (!control_default_path(host, (uint16_t)port, path)) {
        fprintf(stderr, "weirctl: the default path is too long; use --control\n");
        return CTL_USAGE;
    }
    return put(path, out, size);
}

static int find_by_conf(const char *conf_path, char *out, size_t size)
{
    struct conf_error error;
    struct conf *conf;
    int code;

    if (conf_load(conf_path, &conf, &error) != 0) {
        fprintf(stderr, "weirctl: %s\n", error.text);
        return CTL_FAILED;
    }
    if (conf->process.control != NULL)
        code = put(conf->process.control, out, size);
    else
        code = conf->process.stats_listen.text == NULL
                   ? find_by_port(NULL, CONTROL_STATS_PORT, out, size)
                   : find_by_port(conf->process.stats_listen.host, conf->process.stats_listen.port, out, size);
    conf_destroy(&conf);
    return code;
}

static bool is_socket_name(const char *name)
{
    size_t len = strlen(name);

    return strncmp(name, "weir-proxy-", 11) == 0 && len > 16 && strcmp(name + len - 5, ".sock") == 0;
}

/* Whether somebody listens there. */
static bool is_alive(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_ok;

    if (fd < 0 || strlen(path) >= sizeof(addr.sun_path))
        return false;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    is_ok = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
    close(fd);
    return is_ok;
}

/* The only one in the default directory. */
static int find_only(char *out, size_t size)
{
    char directory[CONTROL_PATH_MAX], found[8][512];
    struct dirent *entry;
    uint32_t count = 0;
    DIR *dir;

    if (!control_directory(directory))
        directory[0] = '\0';
    dir = opendir(directory);
    while (dir != NULL && count < ARRAY_COUNT(found) && (entry = readdir(dir)) != NULL) {
        if (!is_socket_name(entry->d_name))
            continue;
        snprintf(found[count], sizeof(found[count]), "%s/%s", directory, entry->d_name);
        count += is_alive(found[count]);
    }
    if (dir != NULL)
        closedir(dir);
    if (count == 1)
        return put(found[0], out, size);
    if (count == 0) {
        fprintf(stderr,
                "weirctl: no weir-proxy of this user runs (none listens in %s); where its control socket is\n"
                "elsewhere, say --control PATH or -c CONF\n",
                directory);
        return CTL_NOBODY;
    }
    fprintf(stderr, "weirctl: several run; say which with --control PATH, -c CONF or -s STATS-PORT:\n");
    for (uint32_t i = 0; i < count; i++)
        fprintf(stderr, "  %s\n", found[i]);
    return CTL_USAGE;
}

int ctl_find(const struct ctl_options *options, char *out, size_t size)
{
    if (options->control != NULL)
        return put(options->control, out, size);
    if (options->stats_port >= 0)
        return find_by_port(NULL, options->stats_port, out, size);
    if (options->conf != NULL)
        return find_by_conf(options->conf, out, size);
    return find_only(out, size);
}

/* ---- talking ------------------------------------------------------------------------------------- */

int ctl_ask(const char *path, const char *line, struct buffer *out)
{
    int err = control_ask(path, line, ANSWER_WAIT_MS, out);

    if (err == 0 || err == ERR_INVALID)
        return err == 0 ? CTL_OK : CTL_FAILED;
    /* Closed without a word: a stop ends the process that would have answered. */
    if (err == ERR_EOF && (strcmp(line, "stop") == 0 || strcmp(line, "quit") == 0))
        return CTL_OK;
    fprintf(stderr, "weirctl: %s: %s%s\n", path, err_text(err),
            err == -ECONNREFUSED || err == -ENOENT ? ": no weir-proxy listens there"
            : err == -EACCES                       ? ": only its owner may"
                                                   : "");
    return CTL_NOBODY;
}
