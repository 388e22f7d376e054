/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/ctl.h"

#include "proxy/where.h"

#include <stdio.h>

static void print(void *arg, const char *text, size_t len)
{
    fwrite(text, 1, len, arg);
}

int ctl_where_file(const char *conf_path, int words_count, char **words)
{
    struct where where = {.pool = NULL};
    struct buffer key = {0};
    struct conf_error error;
    struct conf *conf;
    int first = 0, err;

    if (conf_load(conf_path, &conf, &error) != 0) {
        fprintf(stderr, "weirctl: %s\n", error.text);
        return CTL_FAILED;
    }
    where.conf = conf;
    if (words_count > 1 && conf_pool_by_name(conf, bytes_of_string(words[0])) != NULL)
        where.pool = words[first++];
    for (int i = first; i < words_count; i++) {
        buffer_append_string(&key, i > first ? " " : "");
        buffer_append_string(&key, words[i]);
    }
    err = where_print(&where, buffer_bytes(&key), print, stdout);
    buffer_deinit(&key);
    conf_destroy(&conf);
    return err == 0 ? CTL_OK : CTL_FAILED;
}
